"""The verb ``build``: an image of a folder with a Dockerfile, in a registry, by the Docker or Podman of this machine.

Nothing here signs in: that is ``docker login``'s, and its credentials are never seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from cloudtune.errors import CloudtuneError, UsageError

#: What can build, the first that there is.
TOOLS = ("docker", "podman")
#: Where clouds run images; one that is built on a laptop with another processor would not start there.
PLATFORM = "linux/amd64"
_LAST_LINES = 15
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+|[a-z0-9][a-z0-9._-]*")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_CHUNK = 1 << 20


@attrs.frozen(kw_only=True)
class Built:
    """An image: its name with the tag, its digest in the registry once it is there, and the commands that made it."""

    image: str
    digest: str | None
    commands: tuple[tuple[str, ...], ...]


def build(
    directory: str | os.PathLike[str],
    *,
    push: str | None = None,
    context: str | os.PathLike[str] | None = None,
    build_arg: Sequence[str] = (),
    platform: str = PLATFORM,
    tool: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Built:
    """Build the image of a folder with a Dockerfile, and push it to a repository, ``HOST/PATH[:TAG]``.

    Without a tag it is told by what the folder holds, so that another content is another image. ``context`` is the
    folder that COPY sees, by default the same; ``build_arg`` has ``NAME=VALUE`` of the Dockerfile's arguments.

    Raises:
        UsageError: there is no Dockerfile, or something that is named cannot be a name.
        CloudtuneError: there is no Docker and no Podman, or it fails; the message has its last lines.
    """
    directory, say = Path(directory), progress or str
    dockerfile = directory / "Dockerfile"
    if not dockerfile.is_file():
        raise UsageError(f"{directory} has no Dockerfile", hint="name a folder that has one, such as runtimes/vllm")
    image = _image(push, directory)
    program = _tool(tool, needed=not dry_run)
    words = [word for one in build_arg for word in ("--build-arg", _argument(one))]
    made = ("build", "--platform", platform, "--tag", image, "--file", str(dockerfile), *words)
    commands = [(program, *made, os.fspath(context or directory))]
    if push is not None:
        commands.append((program, "push", image))
    built = Built(image=image, digest=None, commands=tuple(commands))
    if dry_run:
        return built
    for command in commands:
        say(shlex.join(command))
        _carry_out(command, say)
    return attrs.evolve(built, digest=_digest(program, image) if push is not None else None)


def _image(push: str | None, directory: Path) -> str:
    """Return the name of the image; the tag is of what the folder holds, unless one is given."""
    named = push or f"cloudtune-{re.sub(r'[^a-z0-9._-]', '-', directory.absolute().name.lower())}"
    last = named.rpartition("/")[2]
    repository, tag = (named.rpartition(":")[0], last.partition(":")[2]) if ":" in last else (named, "")
    if not _REPOSITORY.fullmatch(repository) or (tag and not _TAG.fullmatch(tag)):
        hint = "write HOST/PATH or HOST/PATH:TAG in small letters, e.g. iad.ocir.io/NAMESPACE/vllm"
        raise UsageError(f"{named!r} names no image", hint=hint)
    return f"{repository}:{tag or _content(directory)}"


def _content(directory: Path) -> str:
    """Return twelve letters that tell one content of a folder from another."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(directory).as_posix()}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
        total.update(b"\0")
    return total.hexdigest()[:12]


def _tool(tool: str | None, *, needed: bool) -> str:
    if tool is not None and tool not in TOOLS:
        raise UsageError(f"{tool} is not known to build images", hint=f"one of {', '.join(TOOLS)}")
    found = next((name for name in (TOOLS if tool is None else (tool,)) if shutil.which(name)), None)
    if found is None and needed:
        hint = "install Docker or Podman; --dry-run shows the commands for a machine that has one"
        raise CloudtuneError(f"there is no {tool or ' and no '.join(TOOLS)} on this machine", hint=hint)
    return found or tool or TOOLS[0]


def _argument(text: str) -> str:
    if not re.match(r"\w+=", text):
        raise UsageError(f"{text!r} is no argument of a build", hint="write NAME=VALUE")
    return text


def _carry_out(command: Sequence[str], progress: Callable[[str], object]) -> None:
    """Run one command, telling what it says.

    Raises:
        CloudtuneError: it failed; the message has its last lines.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in _lines(process):
                last.append(line)
                progress(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        said = "\n".join(f"  {line}" for line in last)
        what = " ".join(command[:2])
        message = f"`{what}` ended with exit code {process.returncode}:\n{said}"
        raise CloudtuneError(message, hint=_next(command, "\n".join(last).lower()))


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()


def _next(command: Sequence[str], said: str) -> str:
    """Return what to do after a failure."""
    program, verb = command[0], command[1]
    if "cannot connect" in said or "connection refused" in said:
        return f"is {program} running? {program} info"
    if verb != "push":
        return "mend what its last lines name, and build again: what is done already is not done twice"
    host = command[2].partition("/")[0]
    if ".ocir." in host or host.startswith("ocir."):
        return (
            f"{program} login {host}, as TENANCY_NAMESPACE/USER with an auth token for a password; may you push there?"
        )
    if ".dkr.ecr." in host:
        region = host.split(".")[3]
        login = f"{program} login --username AWS --password-stdin {host}"
        return f"aws ecr get-login-password --region {region} | {login}; is there such a repository?"
    return f"{program} login {host}; may you push there?"


def _digest(program: str, image: str) -> str | None:
    """Return the digest that the registry knows an image by; None where the tool does not tell."""
    command = (program, "image", "inspect", "--format", "{{json .RepoDigests}}", image)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        rows = json.loads(done.stdout)
    except ValueError:
        return None
    repository = image.rpartition(":")[0]
    return next((one.rpartition("@")[2] for one in rows or () if one.partition("@")[0] == repository), None)
