"""Brings the job's code to the node: an archive, a git repository, or a URI."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from cloudtune.node.archives import is_archive, last_part
from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log
from cloudtune.node.masks import shown
from cloudtune.node.steps import run_step, try_step

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_FIRST_KEY = "accept-new"
#: Answers git's question for user and password from the environment, which other users of this machine cannot read.
_ANSWER = """!f() { if [ "$1" = get ]; then
printf 'username=%s\\npassword=%s\\n' "$CLOUDTUNE_GIT_USER" "$CLOUDTUNE_GIT_PASSWORD"; fi; }; f"""

#: Fetches a URI to a local path: a file to that path, a folder's content below it.
Fetch = Callable[[str, Path], None]


def unpack(archive: Path, target: Path) -> None:
    """Extract a tar or zip archive; raises NodeError for members that would land outside the target."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        # a tar that ends with a zip looks like one
        if not tarfile.is_tarfile(archive) and zipfile.is_zipfile(archive):
            _unpack_zip(archive, target)
        else:
            _unpack_tar(archive, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise NodeError(f"cannot unpack {archive.name}: {error}") from error


def _unpack_tar(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        links: set[PurePosixPath] = set()
        for member in members:
            path = _inside(archive.name, member.name)
            if any(parent in links for parent in path.parents):
                raise NodeError(f"{archive.name} is refused: {member.name!r} lies below a link")
            if member.issym():
                _inside(archive.name, str(path.parent / member.linkname), absolute=member.linkname.startswith("/"))
                links.add(path)
            elif member.islnk() and _inside(archive.name, member.linkname) in links:
                raise NodeError(f"{archive.name} is refused: {member.name!r} is a link to a link")
            elif not (member.isfile() or member.isdir() or member.islnk()):
                raise NodeError(f"{archive.name} is refused: {member.name!r} is neither file, folder nor link")
            member.name = str(path)
            member.uid = member.gid = os.getuid()
            member.uname = member.gname = ""
            member.mode = (member.mode & 0o755) | (0o700 if member.isdir() else 0o600)
        if hasattr(tarfile, "fully_trusted_filter"):  # every member has been looked at; older releases have no filters
            tar.extraction_filter = tarfile.fully_trusted_filter
        tar.extractall(target, members)  # noqa: S202


def _unpack_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as pack:
        for entry in pack.infolist():
            _inside(archive.name, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise NodeError(f"{archive.name} is refused: {entry.filename!r} is a link; use a tar archive")
        for entry in pack.infolist():
            path = Path(pack.extract(entry, target))
            mode = (entry.external_attr >> 16) & 0o755
            if mode and not entry.is_dir():
                path.chmod(mode | 0o600)


def _inside(archive: str, name: str, *, absolute: bool = False) -> PurePosixPath:
    """Return a member's path without dots; raises NodeError if it leaves the target."""
    parts: list[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            if not parts:
                absolute = True
                break
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if absolute or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise NodeError(f"{archive} is refused: {name!r} would land outside the job's folder")
    return PurePosixPath(*parts)


def fetch_uri(uri: str, target: Path, fetch: Fetch) -> None:
    """Fetch a file, a notebook, an archive (which is unpacked) or a folder into the target."""
    name = last_part(uri) or "code"
    arrival = target / ".arrival"
    arrival.mkdir(parents=True, exist_ok=True)
    path = arrival / name
    fetch(uri, path)
    if path.is_dir():
        for child in path.iterdir():
            shutil.move(str(child), str(target / child.name))
    elif is_archive(name):
        unpack(path, target)
    else:
        path.replace(target / name)
    shutil.rmtree(arrival)


def fetch_git(
    source: Mapping[str, Any], target: Path, log: Log, *, variables: Mapping[str, str], key: Path | None
) -> str:
    """Check out a repository at its branch or commit, shallow where the server allows it; return the commit's id.

    ``key`` is a file with the ssh key. User and password in the URL go to git by its environment alone.
    """
    url, branch, commit = source["url"], source.get("branch"), source.get("commit")
    for word in (url, branch, commit):
        if word and word.startswith("-"):
            raise NodeError(f"git cannot fetch {word!r}: it looks like an option")
    if commit and not _COMMIT.fullmatch(commit):
        raise NodeError(f"{commit!r} is no commit id of git: 7 to 40 hexadecimal digits; a name goes into `branch`")
    target.mkdir(parents=True, exist_ok=True)
    settings = {**variables, "GIT_TERMINAL_PROMPT": "0", "GIT_ADVICE": "0"}
    if key is not None or not url.lower().startswith(("http://", "https://", "file:", "/")):
        ask = ["ssh", "-o", f"StrictHostKeyChecking={_FIRST_KEY}", "-G", "localhost"]
        code, _ = try_step(ask, log, variables=settings, folder=target, quiet=True)
        # OpenSSH before 7.6, as in Oracle Linux 7, has no word for that; with a file of its own, "no" says the same
        settings["GIT_SSH_COMMAND"] = _ssh(settings, key, _FIRST_KEY if code == 0 else "no")
    else:
        settings["GIT_SSH_COMMAND"] = _ssh(settings, None, _FIRST_KEY)  # for modules of the repository

    seen = shown(url)
    url, options = _signed_in(url, settings)

    def git(*words: str, what: str) -> None:
        run_step(["git", *options, *words], log, variables=settings, folder=target, what=what, quiet=True)

    git("init", "--quiet", what=f"prepare a folder for {seen}")
    git("remote", "add", "origin", url, what=f"prepare a folder for {seen}")
    wanted = commit or branch or "HEAD"
    shallow = ["git", *options, "fetch", "--quiet", "--depth", "1", "origin", wanted]
    code, lines = try_step(shallow, log, variables=settings, folder=target, quiet=True)
    if code == 0:
        git("checkout", "--quiet", "--detach", "FETCH_HEAD", what=f"check out {wanted} of {seen}")
    elif commit:
        # a short id, or a server that hands out branches only: fetch all of them
        git("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*", what=f"fetch {seen}")
        git("checkout", "--quiet", "--detach", commit, what=f"check out commit {commit} of {seen}")
    else:
        raise NodeError(f"cannot fetch {wanted} of {seen}: git ended with code {code}: " + "\n".join(lines))
    if (target / ".gitmodules").exists():
        git("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1", what=f"fetch modules of {seen}")
    _, lines = try_step(["git", "rev-parse", "HEAD"], log, variables=settings, folder=target, quiet=True)
    return lines[-1] if lines else wanted


def _ssh(settings: Mapping[str, str], key: Path | None, first: str) -> str:
    """Return the command by which git reaches a server: a node knows none yet, and takes the first key it is shown."""
    options = f"-o BatchMode=yes -o StrictHostKeyChecking={first}"
    if key is None:
        return settings.get("GIT_SSH_COMMAND") or f"ssh {options}"
    hosts = _quoted(key.with_name("known_hosts"))
    return f"ssh -i {_quoted(key)} -o IdentitiesOnly=yes {options} -o UserKnownHostsFile={hosts}"


def _signed_in(url: str, settings: dict[str, str]) -> tuple[str, list[str]]:
    """Return a URL without a password and git's options beside it; user and password go into the settings."""
    scheme, slashes, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    name, colon, password = user.partition(":")
    if not slashes or not at:
        return url, []
    if scheme.lower() not in ("http", "https"):
        return (f"{scheme}://{name}@{host}{slash}{path}" if colon else url), []
    settings["CLOUDTUNE_GIT_USER"], settings["CLOUDTUNE_GIT_PASSWORD"] = unquote(name), unquote(password)
    # only for that server, and no helper of the machine is to keep them
    options = ["-c", "credential.helper=", "-c", f"credential.{scheme}://{host}.helper={_ANSWER}"]
    return f"{scheme}://{host}{slash}{path}", options


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
