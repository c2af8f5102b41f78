"""What travels, what stops it, and the archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import CloudtuneError, SpecError
from cloudtune.node.archives import SUFFIXES
from cloudtune.plan import File
from cloudtune.workspace import Workspace, gather, pack
from tests.rights import as_somebody_else

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3h"


@pytest.fixture(autouse=True)
def own_git_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name, value in (("NAME", "t"), ("EMAIL", "t@example.org")):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def write(root: Path, **files: str) -> None:
    """Write files named by keyword: ``__`` is a slash, ``DOT`` a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def paths(workspace: Workspace) -> list[str]:
    return [file.path for file in workspace.files]


def refusal(root: Path, **options: tuple[str, ...]) -> str:
    with pytest.raises(SpecError) as caught:
        gather(root, **options)
    return str(caught.value)


# --- what travels


def test_a_file_travels_alone(root: Path) -> None:
    write(root, trainDOTpy="print(1)\n", otherDOTpy="")
    workspace = gather(root / "train.py")
    digest = hashlib.sha256(b"print(1)\n").hexdigest()
    assert workspace.root == root
    assert workspace.files == (File(path="train.py", bytes=9, sha256=digest, source=str(root / "train.py")),)
    assert workspace.bytes == 9
    assert not workspace.is_archive


@pytest.mark.parametrize("name", ["code.TGZ", *(f"code{suffix}" for suffix in SUFFIXES)])
def test_an_archive_that_is_named_travels_as_it_is(root: Path, name: str) -> None:
    (root / name).write_bytes(b"PK\x03\x04 whatever")
    workspace = gather(root / name)
    assert workspace.is_archive
    assert workspace.files[0].sha256 == hashlib.sha256(b"PK\x03\x04 whatever").hexdigest()


def test_a_folder_with_nothing_but_an_archive_is_a_folder(root: Path) -> None:
    (root / "data.zip").write_bytes(b"PK\x03\x04 whatever")
    assert paths(gather(root)) == ["data.zip"]
    assert not gather(root).is_archive


def test_a_folder_without_a_repository_honours_both_ignore_files(root: Path) -> None:
    write(
        root,
        DOTgitignore="*.log\nout/\n",
        DOTcloudtuneignore="data/\n",
        a__xDOTpy="",
        a__xDOTlog="",
        out__y="",
        data__z="",
    )
    write(root, a__DOTgitignore="!x.log\n")
    assert paths(gather(root)) == [".cloudtuneignore", ".gitignore", "a/.gitignore", "a/x.log", "a/x.py"]


@needs_git
def test_uncommitted_untracked_and_tracked_but_ignored_files_travel_and_git_itself_does_not(root: Path) -> None:
    git(root, "init", "-q")
    write(root, tracked="old", ignoredDOTbin="old", gone="x")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    write(root, DOTgitignore="*.bin\n", tracked="new", untracked="u", otherDOTbin="")
    (root / "gone").unlink()
    workspace = gather(root)
    assert paths(workspace) == [".gitignore", "ignored.bin", "tracked", "untracked"]
    assert workspace.files[2].sha256 == hashlib.sha256(b"new").hexdigest()


@needs_git
def test_our_ignore_file_has_the_last_word_in_both_directions(root: Path) -> None:
    git(root, "init", "-q")
    write(root, DOTgitignore="data/\n*.ckpt\n", data__trainDOTjsonl="{}", data__bigDOTckpt="", notes="")
    git(root, "add", "notes")
    write(root, DOTcloudtuneignore="!data/\nnotes\n")
    assert paths(gather(root)) == [".cloudtuneignore", ".gitignore", "data/train.jsonl"]


@needs_git
def test_rules_from_above_hold_in_a_folder_of_a_repository(root: Path) -> None:
    git(root, "init", "-q")
    write(
        root,
        DOTgitignore="*.log\n/job/tmp\n",
        DOTcloudtuneignore="*.md\n",
        job__trainDOTpy="",
        job__xDOTlog="",
        job__tmp__y="",
    )
    write(root, job__readDOTmd="")
    assert paths(gather(root / "job")) == ["train.py"]


@needs_git
@pytest.mark.parametrize("rule", ["build/\n*.log\n", "*.log\n/build/job\n", "build/*\n*.log\n"])
def test_a_folder_that_is_named_travels_although_it_is_ignored(root: Path, rule: str) -> None:
    git(root, "init", "-q")
    write(root, DOTgitignore=rule, build__job__trainDOTpy="", build__job__xDOTlog="")
    assert paths(gather(root / "build/job")) == ["train.py"]


@needs_git
def test_a_script_in_an_ignored_virtual_environment_travels(root: Path) -> None:
    git(root, "init", "-q")
    write(root, DOTvenv__DOTgitignore="*\n", DOTvenv__lib__recipe__sftDOTpy="")
    assert paths(gather(root / ".venv/lib/recipe")) == ["sft.py"]


@needs_git
def test_a_repository_inside_is_listed_by_its_own_rules(root: Path) -> None:
    git(root, "init", "-q")
    write(root, DOTgitignore="*.log\n", DOTcloudtuneignore="*.md\n", a="")
    write(
        root,
        inner__DOTgitignore="*.tmp\n",
        inner__x="",
        inner__xDOTlog="",
        inner__xDOTtmp="",
        inner__xDOTmd="",
        inner__keptDOTtmp="",
    )
    git(root / "inner", "init", "-q")
    git(root / "inner", "add", "--force", "kept.tmp")
    inside = ["inner/.gitignore", "inner/kept.tmp", "inner/x", "inner/x.log"]
    assert paths(gather(root)) == [".cloudtuneignore", ".gitignore", "a", *inside]


@needs_git
def test_a_submodule_travels_whole(root: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    write(library, moduleDOTpy="x = 1")
    git(library, "init", "-q")
    git(library, "add", "-A")
    git(library, "commit", "-qm", "first")
    git(root, "init", "-q")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "vendor/library")
    write(root, DOTgitignore="vendor/\n")
    assert paths(gather(root)) == [".gitignore", ".gitmodules", "vendor/library/module.py"]


@needs_git
def test_a_linked_work_tree_reads_the_excludes_of_its_repository(root: Path, tmp_path: Path) -> None:
    git(root, "init", "-q")
    write(root, a="")
    git(root, "add", "a")
    git(root, "commit", "-qm", "first")
    (root / ".git/info/exclude").write_text("secret\n")
    git(root, "worktree", "add", "-q", str(tmp_path / "tree"))
    write(tmp_path / "tree", secret="", b="")
    assert paths(gather(tmp_path / "tree")) == ["a", "b"]


@needs_git
def test_the_users_default_excludes_hold_in_a_repository_only(root: Path, tmp_path: Path) -> None:
    write(tmp_path, settings__git__ignore="*.swp\n")
    write(root, a="", aDOTswp="")
    assert paths(gather(root)) == ["a", "a.swp"]
    git(root, "init", "-q")
    assert paths(gather(root)) == ["a"]


@needs_git
def test_a_surrounding_git_hook_does_not_mislead(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "init", "-q")
    write(root, DOTgitignore="x\n", x="", y="")
    git(root, "add", "--force", "x")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert paths(gather(root)) == [".gitignore", "x", "y"]


@needs_git
def test_without_git_the_rules_are_still_read_and_a_note_says_what_is_missing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(root, "init", "-q")
    write(root, DOTgitignore="*.bin\n", keptDOTbin="", sub__a="", b="", private="")
    git(root, "add", "--force", "kept.bin")
    (root / ".git/info/exclude").write_text("private\n")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    workspace = gather(root)
    assert paths(workspace) == [".gitignore", "b", "sub/a"]
    assert workspace.notes == (
        "files that git tracks although they are ignored stay behind, for git could not say which: git is not installed",
    )
    assert paths(gather(root / "sub")) == ["a"]


def test_a_folder_that_only_looks_like_a_repository_is_none(root: Path) -> None:
    write(root, DOTgit__HEAD="nonsense", DOTgitignore="x\n", x="", y="")
    assert paths(gather(root)) == [".gitignore", "y"]


def test_nothing_left_is_noted(root: Path) -> None:
    write(root, DOTgitignore="*\n", a="")
    workspace = gather(root)
    assert workspace.files == ()
    assert workspace.notes == (f"no file of {root} travels",)
    assert workspace.summary() == "0 files, 0 B"


def test_a_linked_ignore_file_does_not_count_as_with_git(root: Path) -> None:
    write(root, rules="*.log\n", xDOTlog="")
    (root / ".gitignore").symlink_to("rules")
    assert paths(gather(root)) == [".gitignore", "rules", "x.log"]


NASTY = [" ", "a b", "'q\"", "new\nline", "tab\t", "-rf", "ünï", "\udcff\udc80", "*", "$(x)", "\\", "日本", "a" * 200]


def test_nasty_names_survive_the_way_there_and_back(root: Path, tmp_path: Path) -> None:
    for index, name in enumerate(NASTY):
        (root / name).mkdir()
        (root / name / name).write_text(str(index))
    workspace = gather(root)
    assert sorted(paths(workspace)) == sorted(f"{name}/{name}" for name in NASTY)
    pack(workspace, tmp_path / "code.tar.gz")
    unpack(tmp_path / "code.tar.gz", tmp_path / "there")
    for index, name in enumerate(NASTY):
        assert (tmp_path / "there" / name / name).read_text() == str(index)
    assert "\n" not in workspace.summary()
    workspace.summary().encode()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_no_file_is_noted_and_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, a="", DOTgitignore="ignored\n")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "ignored")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("door")
    workspace = gather(root)
    assert paths(workspace) == [".gitignore", "a"]
    assert sorted(workspace.notes) == ["door does not travel: it is a socket", "pipe does not travel: it is a FIFO"]


# --- links


def test_links_inside_travel_as_links(root: Path) -> None:
    write(root, data__v2__x="1", code__trainDOTpy="")
    (root / "data/latest").symlink_to("v2")
    (root / "code/x").symlink_to("../data/latest/x")
    (root / "code/all").symlink_to(root / "data")
    (root / "self").symlink_to(".")
    (root / "there-and-back").symlink_to(f"../{root.name}/code")
    links = {file.path: file.link for file in gather(root).files if file.link is not None}
    assert links == {
        "data/latest": "v2",
        "code/x": "../data/latest/x",
        "code/all": "../data",
        "self": ".",
        "there-and-back": "code",
    }


def test_links_that_lead_nowhere_on_a_node_are_all_told_at_once(root: Path, tmp_path: Path) -> None:
    write(root, DOTgitignore="cache/\n", cache__x="", a="")
    (root / "out").symlink_to(tmp_path)
    (root / "up").symlink_to("../elsewhere")
    (root / "dangling").symlink_to("nothing")
    (root / "round").symlink_to("round")
    (root / "ignored").symlink_to("cache/x")
    (root / "through-a-file").symlink_to("a/b")
    message = refusal(root)
    hint = "(put what it leads to in its place, or name the link in .cloudtuneignore)"
    assert message.splitlines() == [
        f"dangling: is a link to nothing, which does not exist {hint}",
        f"ignored: is a link to cache/x, which does not travel {hint}",
        f"out: is a link that leads out of the folder, to {tmp_path} {hint}",
        f"round: is a link to round, which does not exist {hint}",
        f"through-a-file: is a link to a/b, which does not exist {hint}",
        f"up: is a link to ../elsewhere, which does not exist {hint}",
    ]
    write(root, DOTcloudtuneignore="/out\n/up\n/dangling\n/round\n/ignored\n/through-a-file\n")
    assert paths(gather(root)) == [".cloudtuneignore", ".gitignore", "a"]


def test_a_folder_named_through_a_link_is_the_folder(root: Path, tmp_path: Path) -> None:
    write(root, a="1")
    (tmp_path / "alias").symlink_to(root)
    assert gather(tmp_path / "alias") == gather(root)
    (root / "alias.py").symlink_to("a")
    assert paths(gather(root / "alias.py")) == ["alias.py"]
    assert gather(root / "alias.py").files[0].link is None


# --- credentials


def test_everything_that_looks_like_a_credential_is_told_at_once_and_no_value_is_shown(root: Path) -> None:
    write(
        root,
        DOTenv=f"HF_TOKEN={TOKEN}\n",
        trainDOTpy=f"login('{TOKEN}')\n",
        keys__id_rsa="x",
        fineDOTpy="token = '<your token>'\n",
    )
    message = refusal(root)
    assert [line.partition(" (")[0] for line in message.splitlines()] == [
        ".env: looks like a file of environment variables, where secrets are kept",
        "keys/id_rsa: looks like an SSH private key",
        "train.py: looks like a Hugging Face token",
    ]
    assert "(name it in .cloudtuneignore, or let it travel with --allow-file keys/id_rsa)" in message
    assert TOKEN not in message
    assert TOKEN[4:12] not in message


def test_a_file_that_is_allowed_by_name_travels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, a__DOTenv="X=1\n", DOTenv="X=1\n")
    assert refusal(root, allow=(".env",)).startswith("a/.env: ")
    assert refusal(root, allow=("a/.env",)).startswith(".env: ")
    both = [".env", "a/.env"]
    assert paths(gather(root, allow=both)) == both
    assert paths(gather(root, allow=["./.env", str(root / "a/.env")])) == both
    monkeypatch.chdir(root.parent)
    assert paths(gather(root, allow=["project/.env", "project/a/../a/.env"])) == both
    assert paths(gather(root / ".env", allow=[".env"])) == [".env"]


def test_a_credential_that_does_not_travel_stops_nothing(root: Path) -> None:
    write(root, DOTenv="X=1\n", DOTgitignore=".env\n", keyDOTpem="x", DOTcloudtuneignore="*.pem\n")
    assert paths(gather(root)) == [".cloudtuneignore", ".gitignore"]


def test_one_file_is_looked_at_too_with_its_folder(tmp_path: Path) -> None:
    write(tmp_path, DOTaws__credentials="[default]\n")
    assert "AWS credentials" in refusal(tmp_path / ".aws/credentials")
    assert "AWS credentials" in refusal(tmp_path / ".aws")
    assert "AWS credentials" in refusal(tmp_path)


def test_large_files_are_judged_by_name(root: Path) -> None:
    write(root, bigDOTjsonl=f"{TOKEN}\n" + "x" * (1 << 20))
    (root / "big.p12").write_bytes(bytes(3 << 20))
    assert [line.partition(":")[0] for line in refusal(root).splitlines()] == ["big.p12"]
    assert gather(root, allow=["big.p12"]).bytes == (3 << 20) + (1 << 20) + len(TOKEN) + 1


# --- what cannot be read


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "there is no file or folder" in refusal(tmp_path / "nothing")


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="this system has no /dev/null")
def test_a_device_is_no_code() -> None:
    assert "neither a file nor a folder" in refusal(Path("/dev/null"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no modes")
def test_what_cannot_be_read_is_told_at_once(root: Path, tmp_path: Path) -> None:
    write(root, shut="x", locked__a="", fine="", b__DOTgitignore="x")
    for name in ("shut", "b/.gitignore", "locked"):
        (root / name).chmod(0)
    with as_somebody_else(tmp_path):
        message = refusal(root)
    (root / "locked").chmod(0o755)
    assert message.splitlines() == [
        f"{name}: cannot be read: Permission denied (make it readable, or name it in .cloudtuneignore)"
        for name in ("b/.gitignore", "locked", "shut")
    ]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system has no /proc")
def test_a_file_with_other_contents_than_its_size_says_is_changing() -> None:
    assert "status: changed while it was read (wait until nothing writes to it" in refusal(Path("/proc/self/status"))


# --- digest and summary


def test_the_digest_is_that_of_paths_contents_bits_and_links(root: Path, tmp_path: Path) -> None:
    write(root, a="1", b="2")
    (root / "c").symlink_to("a")
    digest = gather(root).digest
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    assert gather(tmp_path / "copy").digest == digest

    seen = {digest}
    for change in (
        lambda: (root / "a").chmod(0o755),
        lambda: (root / "a").write_text("2"),
        lambda: (root / "b").rename(root / "b2"),
        lambda: ((root / "c").unlink(), (root / "c").symlink_to("b2")),
        lambda: ((root / "c").unlink(), (root / "c").write_text("b2")),
    ):
        change()
        now = gather(root).digest
        assert now not in seen
        seen.add(now)


def test_the_summary_names_the_largest_five(root: Path) -> None:
    for index in range(7):
        (root / f"f{index}").write_bytes(b"x" * (1 << index * 4))
    sizes = "f6 16.0 MiB, f5 1.0 MiB, f4 64.0 KiB, f3 4.0 KiB, f2 256 B"
    assert gather(root).summary() == f"7 files, 17.1 MiB (largest: {sizes})"
    assert gather(root / "f1").summary() == "1 file, 16 B"


# --- the archive


def unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive, encoding="utf-8", errors="surrogateescape") as opened:
        if hasattr(tarfile, "data_filter"):
            opened.extractall(target, filter="data")
        else:
            opened.extractall(target)


def sample(root: Path) -> Workspace:
    write(root, trainDOTpy="import torch\n" * 50, data__rowsDOTjsonl="{}\n" * 1000, runDOTsh="#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "data/same.jsonl").symlink_to("rows.jsonl")
    return gather(root)


def test_the_archive_holds_the_files_with_their_bits_and_links(root: Path, tmp_path: Path) -> None:
    workspace = sample(root)
    file = pack(workspace, tmp_path / "code.tar.gz")
    written = (tmp_path / "code.tar.gz").read_bytes()
    assert file == File(
        path="code.tar.gz",
        bytes=len(written),
        sha256=hashlib.sha256(written).hexdigest(),
        source=str(tmp_path / "code.tar.gz"),
    )
    unpack(tmp_path / "code.tar.gz", tmp_path / "there")
    again = gather(tmp_path / "there")
    assert again.digest == workspace.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.tar.gz", "project", "there"]


def test_the_same_files_give_the_same_bytes_whatever_their_dates_and_owners(root: Path, tmp_path: Path) -> None:
    workspace = sample(root)
    first, second = io.BytesIO(), io.BytesIO()
    pack(workspace, first)
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    os.utime(tmp_path / "copy/train.py", (1, 1))
    (tmp_path / "copy/train.py").chmod(0o600)
    copied = gather(tmp_path / "copy")
    pack(reversed(copied.files), second)
    assert first.getvalue() == second.getvalue()
    # the layers below the compression are the same on every Python and zlib
    assert first.getvalue()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    plain = gzip.decompress(first.getvalue())
    assert hashlib.sha256(plain).hexdigest() == "316fbb9c52a62cf879c19eb39612ae90f747c4217d7b4e4654cf5e2f7f7f6793"
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in archive} == {
            (0, 0, 0, "", "")
        }
        assert [(entry.name, entry.mode) for entry in archive] == [
            ("data/rows.jsonl", 0o644), ("data/same.jsonl", 0o777), ("run.sh", 0o755), ("train.py", 0o644),
        ]  # fmt: skip


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_a_file_that_changed_since_stops_the_packing_and_leaves_nothing(
    root: Path, tmp_path: Path, change: str
) -> None:
    workspace = sample(root)
    file = root / "train.py"
    text = file.read_text()
    file.write_text({"longer": text + "x", "shorter": text[:-1], "other": text.upper()}.get(change, ""))
    if change == "gone":
        file.unlink()
    (tmp_path / "code.tar.gz").write_text("of an earlier run")
    with pytest.raises(CloudtuneError, match=r"train\.py (changed after it was listed|cannot be read any more)"):
        pack(workspace, tmp_path / "code.tar.gz")
    assert (tmp_path / "code.tar.gz").read_text() == "of an earlier run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.tar.gz", "project"]


def test_a_planned_file_without_a_source_cannot_be_packed() -> None:
    file = File(path="a", bytes=0, sha256=hashlib.sha256().hexdigest())
    with pytest.raises(CloudtuneError, match="a has no source to read"):
        pack([file], io.BytesIO())


def test_a_disk_that_is_full_is_no_changed_file(root: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        pack(sample(root), Full())


@settings(deadline=None, max_examples=40)
@given(
    files=st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
            lambda name: name not in {".", ".."} and len(name.encode()) < 250
        ),
        st.tuples(st.binary(max_size=3000), st.booleans()),
        max_size=6,
    )
)
def test_whatever_is_packed_is_what_was_gathered(
    files: dict[str, tuple[bytes, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("any")
    planned = []
    for index, (name, (content, executable)) in enumerate(files.items()):
        (top / str(index)).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        planned.append(
            File(path=name, bytes=len(content), sha256=digest, source=str(top / str(index)), executable=executable)
        )
    pack(planned, top / "code.tar.gz")
    with tarfile.open(top / "code.tar.gz", encoding="utf-8") as archive:
        found = {entry.name: (archive.extractfile(entry).read(), entry.mode == 0o755) for entry in archive}
    assert found == files


def test_a_workspace_is_a_frozen_value(root: Path) -> None:
    write(root, a="")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        gather(root).files = ()
