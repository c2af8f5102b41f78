"""Runtimes for one program: a git repository, a notebook, a container image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from cloudtune.spec.fields import flat, freeze, setting
from cloudtune.spec.runtime import CondaRuntime, Runtime

if TYPE_CHECKING:
    from typing_extensions import Self


@attrs.frozen(kw_only=True)
class GitPythonRuntime(CondaRuntime):
    """Python code from a git repository."""

    type: ClassVar[str] = "gitPython"

    url: str | None = setting("URL of the repository.")
    branch: str | None = setting("Branch or tag.")
    commit: str | None = setting("Commit id; beats the branch.")
    git_secret_id: str | None = setting("OCID of the Vault secret that holds the SSH key.")
    entrypoint: str | None = setting("The file to run inside the repository.")
    entry_function: str | None = setting("Function in the entrypoint that is called instead of running the file.")
    python_path: tuple[str, ...] = setting("Folders inside the code that go on PYTHONPATH.", default=())
    working_dir: str | None = setting("Working directory inside the code.")
    skip_metadata_update: bool | None = setting("Leave the cloud's record of the run without git's metadata.")

    def with_url(self, url: str | None) -> "Self":
        """URL of the repository."""
        return attrs.evolve(self, url=url)

    def with_branch(self, branch: str | None) -> "Self":
        """Branch or tag."""
        return attrs.evolve(self, branch=branch)

    def with_commit(self, commit: str | None) -> "Self":
        """Commit id; beats the branch."""
        return attrs.evolve(self, commit=commit)

    def with_git_secret_id(self, git_secret_id: str | None) -> "Self":
        """OCID of the Vault secret that holds the SSH key."""
        return attrs.evolve(self, git_secret_id=git_secret_id)

    def with_entrypoint(self, path: str | None, func: str | None = None) -> "Self":
        """The file to run inside the repository, and the function in it to call."""
        return attrs.evolve(self, entrypoint=path, entry_function=func)

    def with_entry_function(self, entry_function: str | None) -> "Self":
        """Function in the entrypoint that is called instead of running the file."""
        return attrs.evolve(self, entry_function=entry_function)

    def with_python_path(self, *python_path: str | Sequence[str]) -> "Self":
        """Folders inside the code that go on PYTHONPATH."""
        return attrs.evolve(self, python_path=flat(python_path))

    def with_working_dir(self, working_dir: str | None) -> "Self":
        """Working directory inside the code."""
        return attrs.evolve(self, working_dir=working_dir)

    def with_skip_metadata_update(self, skip_metadata_update: bool | None) -> "Self":
        """Leave the cloud's record of the run without git's metadata."""
        return attrs.evolve(self, skip_metadata_update=skip_metadata_update)

    def with_source(
        self, url: str, branch: str | None = None, commit: str | None = None, secret_ocid: str | None = None
    ) -> "Self":
        """The repository, its branch or commit, and the secret with the SSH key, in place of what it had."""
        return attrs.evolve(self, url=url, branch=branch, commit=commit, git_secret_id=secret_ocid)

    def with_output(self, output_dir: str, output_uri: str) -> "Self":
        """The folder whose files are outputs, and the URI where they go."""
        return attrs.evolve(self, output_dir=output_dir, output_uri=output_uri)


@attrs.frozen(kw_only=True)
class NotebookRuntime(CondaRuntime):
    """A notebook, executed from top to bottom; the executed copy is kept with the outputs."""

    type: ClassVar[str] = "notebook"

    notebook_path_uri: str | None = setting("A local notebook or its URI.", key="notebookPathURI")
    source: str | None = setting("A folder or archive that holds the notebook named by `entrypoint`.")
    entrypoint: str | None = setting("The notebook inside `source`.")
    notebook_encoding: str | None = setting("Encoding of the notebook; default utf-8.")
    exclude_tags: tuple[str, ...] = setting("Cells with one of these tags are left out.", default=())

    def with_notebook_path_uri(self, notebook_path_uri: str | None) -> "Self":
        """A local notebook or its URI."""
        return attrs.evolve(self, notebook_path_uri=notebook_path_uri)

    def with_source(self, uri: str | None, notebook: str | None = None, encoding: str | None = "utf-8") -> "Self":
        """A folder or archive, the notebook inside it, and the notebook's encoding."""
        return attrs.evolve(self, source=uri, entrypoint=notebook, notebook_encoding=encoding)

    def with_entrypoint(self, entrypoint: str | None) -> "Self":
        """The notebook inside `source`."""
        return attrs.evolve(self, entrypoint=entrypoint)

    def with_notebook_encoding(self, notebook_encoding: str | None) -> "Self":
        """Encoding of the notebook; default utf-8."""
        return attrs.evolve(self, notebook_encoding=notebook_encoding)

    def with_exclude_tags(self, *exclude_tags: str | Sequence[str]) -> "Self":
        """Cells with one of these tags are left out."""
        return attrs.evolve(self, exclude_tags=flat(exclude_tags))

    def with_exclude_tag(self, *tags: str | Sequence[str]) -> "Self":
        """Cells with one of these tags are left out."""
        return attrs.evolve(self, exclude_tags=flat(tags))

    def with_notebook(self, path: str, encoding: str | None = "utf-8") -> "Self":
        """A local notebook or its URI, and its encoding."""
        return attrs.evolve(self, notebook_path_uri=path, notebook_encoding=encoding)

    def with_output(self, output_uri: str) -> "Self":
        """The URI where the executed notebook and the files beside it go."""
        return attrs.evolve(self, output_uri=output_uri)


@attrs.frozen(kw_only=True)
class ContainerRuntime(Runtime):
    """A container image. With an entrypoint of the user's own it runs as given, without an agent."""

    type: ClassVar[str] = "container"

    image: str | None = setting("Image with registry and tag.")
    entrypoint: str | tuple[str, ...] | None = setting("Replaces the image's entrypoint; a list is exact.")
    cmd: str | tuple[str, ...] | None = setting("Replaces the image's command; a list is exact.")
    image_digest: str | None = setting("Digest that the image must have.")
    image_signature_id: str | None = setting("OCID of the image's signature.")
    script_path_uri: str | None = setting("Files that travel with the container.", key="scriptPathURI")

    def with_image(
        self,
        image: str | None,
        entrypoint: str | Sequence[str] | None = None,
        cmd: str | Sequence[str] | None = None,
        image_digest: str | None = None,
        image_signature_id: str | None = None,
    ) -> "Self":
        """The image; entrypoint, cmd, digest and signature become what is given here, or unset."""
        return attrs.evolve(
            self,
            image=image,
            entrypoint=freeze(entrypoint),
            cmd=freeze(cmd),
            image_digest=image_digest,
            image_signature_id=image_signature_id,
        )

    def with_entrypoint(self, entrypoint: str | Sequence[str] | None) -> "Self":
        """Replaces the image's entrypoint; a list is exact."""
        return attrs.evolve(self, entrypoint=freeze(entrypoint))

    def with_cmd(self, cmd: str | Sequence[str] | None) -> "Self":
        """Replaces the image's command; a list is exact."""
        return attrs.evolve(self, cmd=freeze(cmd))

    def with_image_digest(self, image_digest: str | None) -> "Self":
        """Digest that the image must have."""
        return attrs.evolve(self, image_digest=image_digest)

    def with_image_signature_id(self, image_signature_id: str | None) -> "Self":
        """OCID of the image's signature."""
        return attrs.evolve(self, image_signature_id=image_signature_id)

    def with_script_path_uri(self, script_path_uri: str | None) -> "Self":
        """Files that travel with the container."""
        return attrs.evolve(self, script_path_uri=script_path_uri)

    def with_artifact(self, uri: str | None) -> "Self":
        """Files that travel with the container."""
        return attrs.evolve(self, script_path_uri=uri)
