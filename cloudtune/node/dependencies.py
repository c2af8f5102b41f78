"""The job's own Python packages, in a private environment over the image's Python.

The environment is made without pip and sees the image's packages through a ``.pth`` file, so pip (the image's own, run
by the environment's interpreter) finds torch installed and fetches no second one, and nothing of the image changes.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log
from cloudtune.node.masks import secret_spans
from cloudtune.node.steps import run_step, try_step

_SITE_FOLDERS = """
import json, site, sys, sysconfig
paths = sysconfig.get_paths()
folders = [paths["purelib"], paths["platlib"], *getattr(site, "getsitepackages", list)()]
if getattr(site, "ENABLE_USER_SITE", False):
    folders.append(site.getusersitepackages())
print(json.dumps([folder for folder in dict.fromkeys(folders) if folder in sys.path]))
"""


#: Options of pip that a requirements file may have, and others with a URL.
_OF_FILES = frozenset(
    "-i --index-url --extra-index-url -f --find-links -r --requirement -c --constraint -e --editable".split()  # noqa: SIM905
)
_OTHERS = frozenset(("--proxy", "--config-settings", "-C", "--report", "--log"))


def pip_arguments(packages: str, requirements: Path | None) -> list[str]:
    """Return what follows ``pip install``: requirements and options as on pip's own command line, in any order."""
    try:
        words = shlex.split(packages, comments=False)
    except ValueError as error:
        raise NodeError(f"pipPackages cannot be read as a command line ({error}): {packages!r}") from error
    return [*words, *(("-r", str(requirements)) if requirements else ())]


def apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return words of a command line, and lines of a requirements file: those that hold a password or a signature.

    Every process of a machine may read a command line. An option of pip that no such file may have stays where it is.
    """
    left: list[str] = []
    lines: list[str] = []
    for word in words:
        option, equals, _ = word.partition("=")
        if not secret_spans(word):
            left.append(word)
        elif word.startswith("-"):
            (lines if equals and option in _OF_FILES else left).append(word)
        elif left and left[-1] in _OF_FILES:
            lines.append(f"{left.pop()} {word}")
        elif left and left[-1] in _OTHERS:
            left.append(word)
        else:
            lines.append(word)
    return left, lines


def requirements_file(named: str, *, working: Path, code: Path) -> Path | None:
    """Return the requirements file, looked for in the working folder first; None if none was named."""
    if not named:
        return None
    for folder in (working, code):
        if (folder / named).is_file():
            return folder / named
    raise NodeError(f"pipRequirements names {named!r}, which is not in the job's code (looked in {working} and {code})")


def private_environment(folder: Path, python: str, log: Log, *, variables: Mapping[str, str]) -> str:
    """Make an environment over that interpreter, unless it is there already; return its own interpreter."""
    inner = folder / "bin" / "python"
    marker = folder / "complete"
    if marker.exists():
        return str(inner)
    folder.parent.mkdir(parents=True, exist_ok=True)
    what = "make an environment for the job's packages (is the venv module part of this Python?)"
    make = [python, "-m", "venv", "--without-pip", "--clear", str(folder)]
    run_step(make, log, variables=variables, folder=folder.parent, what=what, quiet=True)
    outer = _site_folders(python, log, variables=variables, folder=folder.parent)
    own = _site_folders(str(inner), log, variables=variables, folder=folder.parent)
    lines = [f"import site; site.addsitedir({path!r})" for path in outer]
    (Path(own[0]) / "cloudtune-outer.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    look = [str(inner), "-m", "pip", "--version"]
    if try_step(look, log, variables=variables, folder=folder.parent, quiet=True)[0] != 0:
        what = "find pip: this Python has none, and its ensurepip does not work; install pip into the image"
        get = [str(inner), "-m", "ensurepip"]
        run_step(get, log, variables=variables, folder=folder.parent, what=what, quiet=True)
    marker.touch()
    return str(inner)


def _site_folders(python: str, log: Log, *, variables: Mapping[str, str], folder: Path) -> list[str]:
    command = [python, "-c", _SITE_FOLDERS]
    code, lines = try_step(command, log, variables=variables, folder=folder, quiet=True)
    try:
        folders: list[str] = json.loads(lines[-1]) if code == 0 and lines else []
    except ValueError:
        folders = []
    if not folders:
        raise NodeError(f"{python} does not say where its packages are: " + "\n".join(lines))
    return folders


def install(
    arguments: Sequence[str],
    python: str,
    log: Log,
    *,
    variables: Mapping[str, str],
    working: Path,
    tools: Path,
    quiet: bool = False,
) -> None:
    """Run ``pip install`` in an environment, from the working folder; its output goes to the log.

    In ``tools``, nobody else may look: there lies, as long as pip runs, what holds a password.
    """
    arguments, lines = apart(arguments)
    secret = tools / "requirements"
    if lines:
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        arguments += ["-r", str(secret)]
    try:
        _install(arguments, python, log, variables=variables, working=working, quiet=quiet)
    finally:
        secret.unlink(missing_ok=True)


def _install(
    arguments: Sequence[str], python: str, log: Log, *, variables: Mapping[str, str], working: Path, quiet: bool
) -> None:
    command = [python, "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", **variables}
    run_step(
        [*command, *arguments], log, variables=settings, folder=working, what="install the job's packages", quiet=quiet
    )
