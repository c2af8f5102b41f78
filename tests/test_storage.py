"""One suite that storage at any URI must pass; here on this machine's files and in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from cloudtune import storage
from cloudtune.errors import CloudtuneError, MissingExtra, NotAllowed, ServiceError, UsageError
from cloudtune.storage import Entry
from tests.rights import as_somebody_else

TREE = {
    "a.txt": b"alpha",
    "sub/b.bin": bytes(range(256)) * 5000,
    "sub/deep/c d ü.json": b"{}",
    "empty": b"",
    "[x]*?": b"magic",
}


def write_tree(folder: Path, tree: dict[str, bytes] = TREE) -> Path:
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(uri: str) -> dict[str, bytes]:
    found = {}
    for entry in storage.listing(uri):
        files, path = url_to_fs(storage.join(uri, entry.path))
        found[entry.path] = files.cat_file(path)
    return found


class Chatty(AsyncFileSystem):
    """An object store with concurrent transfers and part-wise progress, as the clouds' have, over a dictionary."""

    protocol = "chatty"
    cachable = False
    objects: dict[str, bytes] = {}  # noqa: RUF012 - one store for all instances

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if "forbidden" in path:
            raise PermissionError(path)
        if path in self.objects:
            return [await self._info(path)]
        below = {
            f"{path}/{name[len(path) + 1 :].split('/')[0]}" for name in self.objects if name.startswith(f"{path}/")
        }
        if not below:
            raise FileNotFoundError(path)
        return [await self._info(name) for name in sorted(below)]

    async def _put_file(self, local: str, remote: str, callback: Any = None, **options: Any) -> None:
        content = Path(local).read_bytes()
        callback.set_size(len(content))
        for first in range(0, len(content), 1000):
            callback.relative_update(len(content[first : first + 1000]))
        self.objects[remote] = content

    async def _get_file(self, remote: str, local: str, callback: Any = None, **options: Any) -> None:
        if "broken" in remote:
            Path(local).write_bytes(b"half of it")
            raise ConnectionError("the line went dead")
        Path(local).write_bytes(self.objects[remote])
        callback.absolute_update(len(self.objects[remote]))

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return self.objects[self._strip_protocol(path)][start:end]

    async def _rm_file(self, path: str, **options: Any) -> None:
        self.objects.pop(path, None)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        from io import BytesIO

        if path not in self.objects:
            raise FileNotFoundError(path)
        return BytesIO(self.objects[path])


@pytest.fixture(params=["file", "plain path", "memory", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield a URI with nothing at it."""
    fsspec.register_implementation("chatty", Chatty, clobber=True)
    if request.param == "memory":
        yield f"memory://{tmp_path.name}/place"
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
    elif request.param == "object store":
        yield "chatty://bucket/place"
        Chatty.objects.clear()
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/storage/place"


def test_a_folder_goes_up_and_comes_back_the_same(place: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source")
    sent = storage.upload(source, place)
    assert {entry.path: entry.bytes for entry in sent} == {name: len(content) for name, content in TREE.items()}
    assert contents(place) == TREE
    got = storage.download(place, tmp_path / "back")
    assert read_tree(tmp_path / "back") == TREE
    assert [entry.path for entry in got] == sorted(TREE)


@pytest.mark.parametrize("slash", ["", "/"])
def test_doing_it_again_nests_nothing(place: str, tmp_path: Path, slash: str) -> None:
    source = write_tree(tmp_path / "source")
    for _ in range(3):
        storage.upload(source, place + slash)
        storage.download(place + slash, tmp_path / "back")
    assert contents(place) == TREE
    assert read_tree(tmp_path / "back") == TREE


def test_what_else_lies_there_stays(place: str, tmp_path: Path) -> None:
    storage.upload(write_tree(tmp_path / "one", {"x/1": b"1", "both": b"old"}), place)
    storage.upload(write_tree(tmp_path / "two", {"x/2": b"2", "both": b"new"}), place)
    assert contents(place) == {"x/1": b"1", "x/2": b"2", "both": b"new"}
    write_tree(tmp_path / "back", {"mine": b"m", "both": b"mine"})
    storage.download(place, tmp_path / "back")
    assert read_tree(tmp_path / "back") == {"x/1": b"1", "x/2": b"2", "both": b"new", "mine": b"m"}


def test_a_file_goes_to_the_uri_or_below_it_with_a_slash(place: str, tmp_path: Path) -> None:
    file = write_tree(tmp_path / "source") / "a.txt"
    storage.upload(file, f"{place}/renamed")
    storage.upload(file, f"{place}/folder/")
    assert contents(place) == {"renamed": b"alpha", "folder/a.txt": b"alpha"}
    assert contents(f"{place}/renamed") == {"": b"alpha"}
    storage.download(f"{place}/renamed", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"alpha"
    (tmp_path / "into").mkdir()
    storage.download(f"{place}/renamed", tmp_path / "into")
    assert (tmp_path / "into/renamed").read_bytes() == b"alpha"


def test_listing_knows_sizes_and_neighbours_with_the_same_beginning_are_no_part_of_it(
    place: str, tmp_path: Path
) -> None:
    storage.upload(write_tree(tmp_path / "source"), place)
    storage.upload(tmp_path / "source", f"{place}-2")
    found = storage.listing(place)
    assert {entry.path: entry.bytes for entry in found} == {name: len(content) for name, content in TREE.items()}
    assert [entry.path for entry in found] == sorted(TREE)
    assert {entry.path for entry in storage.listing(f"{place}/sub")} == {"b.bin", "deep/c d ü.json"}
    if "chatty" not in place:
        assert all(entry.modified is not None and entry.modified > 1.6e9 for entry in found)
    storage.remove(place)
    assert storage.listing(place) == ()
    assert len(storage.listing(f"{place}-2")) == len(TREE)


def test_what_is_not_there_lists_as_nothing_and_is_an_error_to_read(place: str, tmp_path: Path) -> None:
    assert storage.listing(place) == ()
    assert not storage.exists(place)
    storage.remove(place)
    with pytest.raises(ServiceError, match="there is nothing at") as caught:
        storage.download(place, tmp_path / "x")
    assert place in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_existence(place: str, tmp_path: Path) -> None:
    storage.upload(write_tree(tmp_path / "source"), place)
    for below in ("", "/", "/a.txt", "/sub", "/[x]*?"):
        assert storage.exists(place + below)
    for below in ("/nothing", "/a.txt/x", "/su"):
        assert not storage.exists(place + below)


def test_removal_takes_exactly_what_is_named(place: str, tmp_path: Path) -> None:
    tree = {"a*/1": b"", "ab/1": b"", "f?": b"", "fg": b"", "sub/x": b""}
    storage.upload(write_tree(tmp_path / "source", tree), place)
    storage.remove(f"{place}/f?")
    storage.remove(f"{place}/a*")
    assert set(contents(place)) == {"ab/1", "fg", "sub/x"}
    storage.remove(f"{place}/sub/")
    storage.remove(f"{place}/sub")
    assert set(contents(place)) == {"ab/1", "fg"}


def test_a_file_where_a_folder_is_needed_is_named(place: str, tmp_path: Path) -> None:
    storage.upload(write_tree(tmp_path / "source"), place)
    file = tmp_path / "target"
    file.touch()
    for target in (file, file / "deeper"):
        with pytest.raises(UsageError, match="target is a file, and a folder is needed") as caught:
            storage.download(place, target)
        assert "Errno" not in str(caught.value)
        assert caught.value.exit_code == 2


def test_progress_grows_to_the_whole_and_no_further(place: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source")
    total = sum(map(len, TREE.values()))
    for move in (
        lambda note: storage.upload(source, place, progress=note),
        lambda note: storage.download(place, tmp_path / "x", progress=note),
    ):
        seen: list[tuple[int, int]] = []
        move(lambda done, of: seen.append((done, of)))  # noqa: B023 - called before the next round
        assert seen == sorted(seen)
        assert seen[-1] == (total, total)
        assert {of for _, of in seen} == {total}


def test_links_are_followed_but_not_round_in_a_circle(place: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"real/x": b"1"})
    write_tree(tmp_path / "elsewhere", {"y": b"2"})
    (source / "file").symlink_to("real/x")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "real/up").symlink_to("..")
    (source / "dangling").symlink_to("nothing")
    storage.upload(source, place)
    assert contents(place) == {"real/x": b"1", "file": b"1", "folder/y": b"2"}


def test_a_source_that_is_not_there_is_the_callers(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file or folder"):
        storage.upload(tmp_path / "nothing", place)
    assert not storage.exists(place)


def test_an_empty_folder_is_nothing(place: str, tmp_path: Path) -> None:
    (tmp_path / "source/sub").mkdir(parents=True)
    assert storage.upload(tmp_path / "source", place) == ()
    assert storage.listing(place) == ()


# --- this machine


def test_a_local_write_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tree(tmp_path / "source", {"a": b"new"})
    target = write_tree(tmp_path / "target", {"a": b"old"})
    seen = []
    replace = Path.replace

    def watched(partial: Path, goal: Path) -> Path:
        seen.append(
            (partial.parent == goal.parent, partial.read_bytes(), goal.read_bytes(), storage.listing(str(target)))
        )
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", watched)
    with pytest.raises(ServiceError, match="No space left on device"):
        storage.upload(source, str(target))
    monkeypatch.setattr(Path, "replace", replace)
    [(beside, partial, before, entries)] = seen
    assert (beside, partial, before) == (True, b"new", b"old")
    assert [entry.path for entry in entries] == ["a"]
    assert read_tree(target) == {"a": b"old"}


def test_a_download_that_breaks_off_leaves_nothing_half_done(tmp_path: Path) -> None:
    fsspec.register_implementation("chatty", Chatty, clobber=True)
    Chatty.objects.update({"bucket/p/broken": b"x" * 100})
    write_tree(tmp_path / "target", {"broken": b"of an earlier time"})
    with pytest.raises(ServiceError, match=r"storage\.download: chatty://bucket/p: the line went dead"):
        storage.download("chatty://bucket/p", tmp_path / "target")
    Chatty.objects.clear()
    assert read_tree(tmp_path / "target") == {"broken": b"of an earlier time"}


def test_a_relative_path_starts_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.upload(write_tree(tmp_path / "source"), "out/put")
    assert read_tree(tmp_path / "out/put") == TREE
    assert storage.exists("out")


def test_a_file_over_a_folder_says_how_it_is_meant(tmp_path: Path) -> None:
    file = write_tree(tmp_path / "source") / "a.txt"
    with pytest.raises(ServiceError, match="end the URI with a slash"):
        storage.upload(file, str(tmp_path / "source/sub"))


@pytest.mark.parametrize("what", ["/", "~", ".", "..", ""])
def test_the_ground_one_stands_on_is_not_removed(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here/below").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here/below")
    with pytest.raises(UsageError, match="is not removed"):
        storage.remove(what)
    assert (tmp_path / "here/below").is_dir()


def test_the_ground_one_stands_on_is_known_by_another_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/here").mkdir(parents=True)
    (tmp_path / "other").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real/here")
    with pytest.raises(UsageError, match="is not removed"):
        storage.remove(str(tmp_path / "other/here"))
    assert (tmp_path / "real/here").is_dir()


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    write_tree(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    storage.remove(str(tmp_path / "link"))
    assert read_tree(tmp_path / "real") == TREE
    assert not (tmp_path / "link").is_symlink()


# --- what goes wrong elsewhere


def test_a_whole_bucket_is_not_removed() -> None:
    fsspec.register_implementation("chatty", Chatty, clobber=True)
    for uri in ("chatty://bucket", "chatty://bucket/", "memory://"):
        with pytest.raises(UsageError, match="is a whole bucket"):
            storage.remove(uri)


def test_a_right_that_is_missing_is_told_and_not_taken_for_nothing() -> None:
    fsspec.register_implementation("chatty", Chatty, clobber=True)
    with pytest.raises(NotAllowed, match="you may not list chatty://bucket/forbidden"):
        storage.listing("chatty://bucket/forbidden")


@pytest.mark.parametrize(
    ("start", "name", "path"),
    [
        ("bucket/p", "bucket@namespace/p/a/b", "a/b"),
        ("bucket", "bucket@namespace/a", "a"),
        ("bucket@namespace/p", "bucket@namespace/p/a", "a"),
        ("bucket/p/a", "bucket@namespace/p/a", ""),
        ("bucket/p", "bucket@namespace/p2/a", None),
        ("bucket/p", "bucket/p/folder/", None),
    ],
)
def test_a_store_may_answer_with_a_longer_name_of_the_same_bucket(start: str, name: str, path: str | None) -> None:
    entry = storage._entry(start, name, {"size": 3, "type": "file"})
    assert (entry and entry.path) == path


def test_a_bucket_that_is_not_there_has_no_place_for_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("chatty", Chatty, clobber=True)

    async def refuse(self: Chatty, local: str, remote: str, **options: Any) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(Chatty, "_put_file", refuse)
    with pytest.raises(ServiceError, match="there is no place for chatty://nowhere/x\n  hint: create its bucket"):
        storage.upload(write_tree(tmp_path / "source"), "chatty://nowhere/x")


def test_a_source_that_goes_away_is_named(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": b"1", "b": b"2"})

    def lose(done: int, total: int) -> None:
        for path in source.iterdir():
            path.unlink()

    with pytest.raises(ServiceError, match=r"source/[ab] went away while it was copied"):
        storage.upload(source, str(tmp_path / "target"), progress=lose)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "./x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "listing", lambda uri: (Entry(path="fine", bytes=1), Entry(path=name, bytes=1)))
    with pytest.raises(ServiceError, match="cannot be a file's name here"):
        storage.download("memory://p", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(("uri", "extra"), [("s3://bucket/key", "aws"), ("oci://bucket@namespace/key", "oci")])
def test_a_package_that_is_missing_names_the_extra(
    uri: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "ocifs", None)
    for scheme in ("s3", "oci"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(MissingExtra) as caught:
        storage.listing(uri)
    assert caught.value.extra == extra
    assert (
        str(caught.value)
        == f'to list {uri} needs packages that are not installed\n  hint: pip install "cloudtune[{extra}]"'
    )


class Failing(MemoryFileSystem):
    """Raises, on every question, the error that was put here."""

    protocol = "failing"
    cachable = False
    error: Exception = OSError("nothing yet")

    def find(self, *words: Any, **options: Any) -> Any:
        raise self.error


class NoCredentialsError(Exception):
    """Named as the one of the AWS SDK."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ValueError("odd"), ServiceError, "storage.list: failing://***@h/k: odd"),
        (TimeoutError(), ServiceError, "TimeoutError"),
        (RuntimeError("GET https://h/k?X-Amz-Signature=abc\nmore"), ServiceError, "GET https://h/k?***"),
        (PermissionError("Access Denied"), NotAllowed, "you may not list failing://***@h/k: Access Denied"),
        (NoCredentialsError("Unable to locate credentials"), NotAllowed, "no credentials to list failing://***@h/k"),
        (ImportError("no such module"), CloudtuneError, "install that package beside cloudtune"),
    ],
)
def test_errors_of_any_kind_name_the_uri_without_its_secrets(
    error: Exception, kind: type[CloudtuneError], words: str
) -> None:
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.error = error
    with pytest.raises(kind) as caught:
        storage.listing("failing://me:hunter2@h/k")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_a_kind_of_storage_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="nope:// is no kind of storage"):
        storage.exists("nope://x/y")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no modes")
def test_a_local_right_that_is_missing(tmp_path: Path) -> None:
    write_tree(tmp_path / "locked", {"a": b""})
    (tmp_path / "locked").chmod(0)
    with as_somebody_else(tmp_path):
        for refused in (
            lambda: storage.listing(str(tmp_path / "locked")),
            lambda: storage.upload(tmp_path / "locked", "memory://x"),
            lambda: storage.remove(str(tmp_path / "locked")),
        ):
            with pytest.raises(NotAllowed, match=r"you may not .*Permission denied"):
                refused()
    (tmp_path / "locked").chmod(0o755)


def test_a_password_that_a_record_left_out_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CLOUDTUNE_URI_0000000A_SECRET"
    (tmp_path / "a").write_text("a")
    with pytest.raises(UsageError, match="not kept with the run") as caught:
        storage.listing(f"memory://${{{name}}}/x")
    assert f"export {name}=" in str(caught.value.hint)
    monkeypatch.setenv(name, "hidden-place")
    storage.upload(tmp_path / "a", f"memory://${{{name}}}/x")
    assert [entry.bytes for entry in storage.listing("memory://hidden-place/x")] == [1]
