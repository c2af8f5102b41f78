"""Runtimes for code of the user's own: a script as it is, and Python code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from cloudtune.spec.fields import flat, setting
from cloudtune.spec.runtime import CondaRuntime

if TYPE_CHECKING:
    from typing_extensions import Self


@attrs.frozen(kw_only=True)
class ScriptRuntime(CondaRuntime):
    """A script, a folder or an archive, run as it is."""

    type: ClassVar[str] = "script"

    script_path_uri: str | None = setting("A local file or folder, or a URI, with the code.", key="scriptPathURI")
    entrypoint: str | None = setting("The file to run inside a folder or archive.")

    def with_script_path_uri(self, script_path_uri: str | None) -> "Self":
        """A local file or folder, or a URI, with the code."""
        return attrs.evolve(self, script_path_uri=script_path_uri)

    def with_entrypoint(self, entrypoint: str | None) -> "Self":
        """The file to run inside a folder or archive."""
        return attrs.evolve(self, entrypoint=entrypoint)

    def with_script(self, uri: str) -> "Self":
        """A local file or folder, or a URI, with the code."""
        return attrs.evolve(self, script_path_uri=uri)

    def with_source(self, uri: str, entrypoint: str | None = None) -> "Self":
        """A local file, folder or archive, or a URI, with the code, and the file to run inside it."""
        return attrs.evolve(self, script_path_uri=uri, entrypoint=entrypoint or self.entrypoint)


@attrs.frozen(kw_only=True)
class PythonRuntime(ScriptRuntime):
    """Python code: a file or a folder, with entry function, python path and working directory."""

    type: ClassVar[str] = "python"

    entry_function: str | None = setting("Function in the entrypoint that is called instead of running the file.")
    python_path: tuple[str, ...] = setting("Folders inside the code that go on PYTHONPATH.", default=())
    working_dir: str | None = setting("Working directory inside the code.")

    def with_entry_function(self, entry_function: str | None) -> "Self":
        """Function in the entrypoint that is called instead of running the file."""
        return attrs.evolve(self, entry_function=entry_function)

    def with_python_path(self, *python_path: str | Sequence[str]) -> "Self":
        """Folders inside the code that go on PYTHONPATH."""
        return attrs.evolve(self, python_path=flat(python_path))

    def with_working_dir(self, working_dir: str | None) -> "Self":
        """Working directory inside the code."""
        return attrs.evolve(self, working_dir=working_dir)

    def with_entrypoint(self, entrypoint: str | None, func: str | None = None) -> "Self":
        """The file to run inside the code, and the function in it to call."""
        return attrs.evolve(self, entrypoint=entrypoint, entry_function=func or self.entry_function)

    def with_output(self, output_dir: str, output_uri: str) -> "Self":
        """The folder whose files are outputs, and the URI where they go."""
        return attrs.evolve(self, output_dir=output_dir, output_uri=output_uri)
