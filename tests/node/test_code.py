from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from cloudtune.node import code
from cloudtune.node.archives import SUFFIXES
from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log, Redaction
from cloudtune.node.transfer import copy_tree


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", Redaction())


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_an_archive_is_unpacked_with_its_links_and_modes(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "code.tar.gz",
        (member("src/train.py"), b"print(1)"),
        (member("run.sh", mode=0o755), b"#!/bin/sh"),
        (member("src/same.py", type=tarfile.SYMTYPE, linkname="train.py"), b""),
        (member("hard.py", type=tarfile.LNKTYPE, linkname="src/train.py"), b""),
        (member("./a/../dotted.txt"), b"x"),
    )
    target = tmp_path / "work"
    code.unpack(archive, target)
    assert tree(target) == {"src/train.py", "run.sh", "src/same.py", "hard.py", "dotted.txt"}
    assert (target / "src/same.py").read_text() == (target / "hard.py").read_text() == "print(1)"
    assert os.access(target / "run.sh", os.X_OK)


@pytest.mark.parametrize(
    "members",
    [
        [(member("/etc/evil"), b"x")],
        [(member("../evil"), b"x")],
        [(member("a/../../evil"), b"x")],
        [(member("..\\evil"), b"x")],
        [(member("C:evil"), b"x")],
        [(member("link", type=tarfile.SYMTYPE, linkname="/etc"), b"")],
        [(member("a/link", type=tarfile.SYMTYPE, linkname="../../etc"), b"")],
        [(member("hard", type=tarfile.LNKTYPE, linkname="../evil"), b"")],
        [(member("in", type=tarfile.SYMTYPE, linkname="."), b""), (member("in/side"), b"x")],
        [
            (member("a/l", type=tarfile.SYMTYPE, linkname="../b"), b""),
            (member("h", type=tarfile.LNKTYPE, linkname="a/l"), b""),
        ],
        [(member("pipe", type=tarfile.FIFOTYPE), b"")],
        [(member("disk", type=tarfile.BLKTYPE), b"")],
    ],
)
def test_what_would_land_outside_is_refused_before_anything_is_written(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    archive = tar(tmp_path / "code.tar.gz", (member("good.py"), b"1"), *members)
    with pytest.raises(NodeError, match=r"code\.tar\.gz is refused"):
        code.unpack(archive, tmp_path / "work")
    assert tree(tmp_path) == {"code.tar.gz"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_zip_is_held_to_the_same(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as pack:
        pack.writestr("good.py", "1")
        pack.writestr(name, "x")
    with pytest.raises(NodeError, match="refused"):
        code.unpack(archive, tmp_path / "work")
    assert tree(tmp_path) == {"code.zip"}


def test_a_zip_is_unpacked_with_modes_and_refused_with_links(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as pack:
        entry = zipfile.ZipInfo("run.sh")
        entry.external_attr = 0o100755 << 16
        pack.writestr(entry, "#!/bin/sh")
    code.unpack(archive, tmp_path / "work")
    assert os.access(tmp_path / "work/run.sh", os.X_OK)
    with zipfile.ZipFile(archive, "a") as pack:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        pack.writestr(entry, "/etc")
    with pytest.raises(NodeError, match="is a link; use a tar archive"):
        code.unpack(archive, tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00broken"])
def test_a_broken_archive_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "code.tar.gz").write_bytes(content)
    with pytest.raises(NodeError, match=r"cannot unpack code\.tar\.gz"):
        code.unpack(tmp_path / "code.tar.gz", tmp_path / "work")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_of_every_kind_is_unpacked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"code{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("train.py", "1")
    else:
        kind = {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(suffix, "w:gz")
        with tarfile.open(path, kind) as archive:
            archive.addfile(member("train.py", size=1), io.BytesIO(b"1"))
    code.fetch_uri(str(path), tmp_path / "work", fetch)
    assert tree(tmp_path / "work") == {"train.py"}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as pack:
        pack.writestr("inside.txt", "1")
    with tarfile.open(tmp_path / "code.tar", "w") as archive:
        archive.addfile(member("train.py", size=1), io.BytesIO(b"1"))
        archive.addfile(member("data.zip", size=len(inner.getvalue())), io.BytesIO(inner.getvalue()))
    code.unpack(tmp_path / "code.tar", tmp_path / "work")
    assert tree(tmp_path / "work") == {"train.py", "data.zip"}


def fetch(uri: str, target: Path) -> None:
    copy_tree(Path(uri), target)


def test_a_uri_may_be_a_file_a_folder_or_an_archive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "source").mkdir(parents=True)
    (source / "train.py").write_text("1")
    (source / "source" / "deep.py").write_text("2")
    tar(tmp_path / "code.tar.gz", (member("packed.py"), b"3"))
    for number, (uri, files) in enumerate(
        {
            str(source / "train.py"): {"train.py"},
            str(source): {"train.py", "source/deep.py"},
            str(tmp_path / "code.tar.gz"): {"packed.py"},
        }.items()
    ):
        target = tmp_path / f"work-{number}"
        code.fetch_uri(uri, target, fetch)
        assert tree(target) == files


def git(folder: Path, *words: str) -> str:
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **names}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Return the URL of a repository and its commits: two on main, one on a branch."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commits = {}
    for name in ("first", "second"):
        (folder / "train.py").write_text(name)
        git(folder, "add", "train.py")
        git(folder, "commit", "--quiet", "-m", name)
        commits[name] = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "--quiet", "-b", "side")
    (folder / "train.py").write_text("side")
    git(folder, "commit", "--quiet", "-a", "-m", "side")
    commits["side"] = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "--quiet", "main")
    return f"file://{folder}", commits


@pytest.mark.parametrize(
    ("branch", "commit", "expected"),
    [
        (None, None, "second"),
        ("side", None, "side"),
        (None, "first", "first"),
        ("main", "side", "side"),
        (None, "short", "first"),
    ],
)
def test_git_gives_the_head_a_branch_or_a_commit(
    repository: tuple[str, dict[str, str]],
    tmp_path: Path,
    log: Log,
    branch: str | None,
    commit: str | None,
    expected: str,
) -> None:
    url, commits = repository
    wanted = commits["first"][:9] if commit == "short" else commits[commit] if commit else None
    source = {"url": url, "branch": branch, "commit": wanted}
    found = code.fetch_git(source, tmp_path / "work", log, variables=os.environ, key=None)
    assert found == commits[expected]
    assert (tmp_path / "work/train.py").read_text() == expected


def test_a_branch_is_fetched_without_its_history(
    repository: tuple[str, dict[str, str]], tmp_path: Path, log: Log
) -> None:
    code.fetch_git({"url": repository[0], "branch": "main"}, tmp_path / "work", log, variables=os.environ, key=None)
    assert git(tmp_path / "work", "rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch": "nowhere"}, "cannot fetch nowhere of file://"),
        ({"commit": "0" * 40}, "cannot check out commit 000"),
        ({"commit": "main"}, "no commit id of git"),
        ({"url": "--upload-pack=touch /tmp/evil"}, "looks like an option"),
        ({"branch": "--help"}, "looks like an option"),
        ({"url": "file:///no/such/repository"}, "cannot fetch HEAD of file:///no/such/repository"),
    ],
)
def test_what_git_cannot_do_is_said(
    repository: tuple[str, dict[str, str]], tmp_path: Path, log: Log, change: dict[str, str], message: str
) -> None:
    with pytest.raises(NodeError, match=message):
        code.fetch_git({"url": repository[0], **change}, tmp_path / "work", log, variables=os.environ, key=None)


def test_a_password_in_a_url_is_not_shown(tmp_path: Path, log: Log) -> None:
    with pytest.raises(NodeError) as caught:
        code.fetch_git({"url": "file://me:geheim@/nowhere"}, tmp_path / "work", log, variables=os.environ, key=None)
    assert "file://***@/nowhere" in str(caught.value)


@pytest.mark.parametrize(("refused", "first"), [("never", "accept-new"), ("accept-new", "no")])
def test_an_ssh_key_is_used_and_nothing_else_is(tmp_path: Path, log: Log, refused: str, first: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    old = f'case "$*" in *={refused}*) exit 255;; *-G*) exit 0;; esac'
    (tools / "ssh").write_text(f'#!/bin/sh\n{old}\necho "$@" >> {tmp_path}/ssh-words\nexit 1\n')
    (tools / "ssh").chmod(0o755)
    variables = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    key = tmp_path / "a key"
    with pytest.raises(NodeError, match="cannot fetch HEAD of git@host:repository"):
        code.fetch_git({"url": "git@host:repository"}, tmp_path / "work", log, variables=variables, key=key)
    words = (tmp_path / "ssh-words").read_text()
    assert f"-i {key} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking={first} " in words
    assert f"-o UserKnownHostsFile={key.with_name('known_hosts')} " in words


def test_without_git_the_image_is_blamed(tmp_path: Path, log: Log) -> None:
    with pytest.raises(NodeError, match="git is not installed on this node"):
        code.fetch_git({"url": "file:///x"}, tmp_path / "work", log, variables={"PATH": str(tmp_path)}, key=None)
