from __future__ import annotations

import http.client
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.node import courier as carrying
from cloudtune.node import transfer
from cloudtune.node.errors import NodeError
from cloudtune.node.transfer import Courier, copy_file, expand, fetch_input, requirements
from cloudtune.node.uris import local_path, scheme_of


@pytest.fixture
def courier(agent: Path, tmp_path: Path) -> Iterator[Courier]:
    """Return a courier that runs in this interpreter, which has fsspec."""
    one = Courier(
        lambda scheme: sys.executable, archive=str(agent), variables=dict(os.environ), errors=tmp_path / "courier.log"
    )
    yield one
    one.close()


def no_courier() -> Courier:
    raise AssertionError("local files need no courier")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Return the address of a server with one file, one that breaks off, and one that fails twice."""
    failures = iter((503, 503))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = 200
            if self.path.startswith("/missing"):
                status = 404
            elif self.path.startswith("/shaky"):
                status = next(failures, 200)
            self.send_response(status)
            self.send_header("Content-Length", "9" if self.path.startswith("/short") else "4")
            self.end_headers()
            self.wfile.write(b"data")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_schemes_and_local_paths() -> None:
    assert [scheme_of(uri) for uri in ("/a", "a/b", "file:///a", "S3://b/k", "oci://b@n/k")] == [
        *("file", "file", "file", "s3", "oci")
    ]
    assert local_path("file:///a/b") == local_path("file://localhost/a/b") == local_path("/a/b") == Path("/a/b")
    assert local_path("s3://b/k") is None
    assert local_path("file:///no%20such") == Path("/no%20such")


def test_variables_in_uris_are_filled_in_if_they_are_known() -> None:
    found = expand("s3://$BUCKET/${RUN}/$UNKNOWN/${OTHER}/$", {"BUCKET": "b", "RUN": "r"})
    assert found == "s3://b/r/$UNKNOWN/${OTHER}/$"
    assert expand("a$$BUCKET$$$BUCKET", {"BUCKET": "$RUN", "RUN": "r"}) == "a$BUCKET$$RUN"


def test_old_pythons_get_old_drivers() -> None:
    assert requirements("s3", (3, 9)) == (("fsspec", "s3fs"), ("fsspec>=2024.6,<2026", "s3fs>=2025.3,<2026"))
    assert requirements("s3", (3, 12)) == (("fsspec", "s3fs"), ("fsspec>=2024.6", "s3fs>=2025.3"))
    assert requirements("oci", (3, 9)) == (("fsspec", "ocifs"), ("fsspec>=2024.6,<2026", "ocifs>=1.3"))
    assert requirements("sftp", (3, 13)) == (("fsspec",), ("fsspec>=2024.6",))


def test_a_copy_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o640)
    target = tmp_path / "deep" / "er" / "model.bin"
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode == source.stat().st_mode
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    source.write_bytes(b"")
    copy_file(source, target)
    assert target.read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "nothing", target)
    assert [path.name for path in target.parent.iterdir()] == ["model.bin"]


def test_files_of_the_kernel_that_say_they_are_empty_are_copied(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    copy_file(Path("/proc/version"), tmp_path / "version")
    assert (tmp_path / "version").read_text() == Path("/proc/version").read_text()


def test_local_inputs_files_and_folders(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.txt").write_text("b")
    for _ in range(2):  # a second time changes nothing, and nests nothing
        fetch_input(str(source), tmp_path / "all", no_courier)
        assert sorted(p.relative_to(tmp_path / "all").as_posix() for p in (tmp_path / "all").rglob("*.txt")) == [
            "a.txt",
            "sub/b.txt",
        ]
    fetch_input(f"file://{source}/a.txt", tmp_path / "renamed.txt", no_courier)
    fetch_input(f"file://{source}/a.txt", tmp_path / "all" / "sub", no_courier)
    assert (tmp_path / "renamed.txt").read_text() == (tmp_path / "all/sub/a.txt").read_text() == "a"


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"cannot fetch /no/such to .*: there is no such file or folder on this node"):
        fetch_input("/no/such", tmp_path / "x", no_courier)


def test_no_error_shows_a_password(courier: Courier, tmp_path: Path) -> None:
    for uri in ("ftp://me:geheim@127.0.0.1:1/x", "nosuch://me:geheim@host/x", "http://127.0.0.1:1/x?sig=geheim"):
        with pytest.raises(NodeError, match="cannot fetch") as caught:
            fetch_input(uri, tmp_path / "x", lambda: courier)
        assert "geheim" not in str(caught.value)


def test_http_by_the_standard_library(courier: Courier, tmp_path: Path, web: str) -> None:
    fetch_input(f"{web}/file.bin?version=2", tmp_path / "file", lambda: courier)
    folder = tmp_path / "folder"
    folder.mkdir()
    fetch_input(f"{web}/file.bin?version=2", folder, lambda: courier)
    assert (tmp_path / "file").read_bytes() == (folder / "file.bin").read_bytes() == b"data"
    fetch_input(f"{web}/shaky", tmp_path / "shaky", lambda: courier)
    assert (tmp_path / "shaky").read_bytes() == b"data"


def test_http_errors_leave_no_half_file(courier: Courier, tmp_path: Path, web: str) -> None:
    with pytest.raises(NodeError, match="HTTP Error 404"):
        fetch_input(f"{web}/missing", tmp_path / "x", lambda: courier)
    with pytest.raises(NodeError, match="not written there"):
        courier.ask("http", do="put", uri=f"{web}/x", **{"from": __file__})
    assert not [path for path in tmp_path.iterdir() if "x" in path.name.partition("courier")[0]]


def test_any_scheme_of_fsspec_there_and_back(courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sub").mkdir()
    names = {"one.txt", "sub/two.txt", "sub/three.txt"}
    for name in names:
        (tmp_path / "in" / name).write_text(name)
        # a cache before files takes the way of a remote scheme
        courier.ask(
            "simplecache",
            do="put",
            uri=f"simplecache::file://{tmp_path}/far/{name}",
            **{"from": str(tmp_path / "in" / name)},
        )
    assert {path.relative_to(tmp_path / "far").as_posix() for path in (tmp_path / "far").rglob("*.txt")} == names
    for _ in range(2):
        fetch_input(f"simplecache::file://{tmp_path}/far", tmp_path / "back", lambda: courier)
        found = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.txt")}
        assert found == names
    fetch_input(f"simplecache::file://{tmp_path}/far/one.txt", tmp_path / "single", lambda: courier)
    assert (tmp_path / "single").read_text() == "one.txt"
    courier.ask("simplecache", do="remove", uri=f"simplecache::file://{tmp_path}/far/one.txt")
    assert not (tmp_path / "far" / "one.txt").exists()
    with pytest.raises(NodeError, match=r"cannot fetch simplecache:.*: FileNotFoundError"):
        fetch_input(f"simplecache::file://{tmp_path}/far/one.txt", tmp_path / "gone", lambda: courier)


def test_objects_arrive_whole_without_a_second_name(courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    for name in ("x", "deep/y"):
        courier.ask("memory", do="put", uri=f"memory://bucket/{name}", **{"from": str(tmp_path / "a")})
    fetch_input("memory://bucket/", tmp_path / "back", lambda: courier)
    found = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*")}
    assert found == {"x", "deep", "deep/y"}
    with pytest.raises(NodeError, match="nothing is at memory://bucket/none"):
        fetch_input("memory://bucket/none", tmp_path / "none", lambda: courier)


@pytest.mark.parametrize(
    ("driver", "place", "advice"),
    [
        ("s3fs", "local", "NoCredentialsError.*sign in to AWS on this machine: aws configure, or aws sso login"),
        ("s3fs", "kubernetes", "NoCredentialsError.*serviceAccount"),
        ("ocifs", "local", "ConfigFileNotFound.*sign in to OCI on this machine: oci setup config"),
        ("ocifs", "sagemaker", "ConfigFileNotFound.*use storage of the place that the job runs in"),
    ],
)
def test_who_has_no_keys_is_told_where_they_come_from(
    agent: Path, tmp_path: Path, driver: str, place: str, advice: str
) -> None:
    pytest.importorskip(driver, reason=f"{driver} is not installed")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OCI"))}
    variables |= {"CLOUDTUNE_PLACE": place, "HOME": str(tmp_path)}
    # nothing is asked beyond this machine
    variables |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    one = Courier(
        lambda scheme: sys.executable, archive=str(agent), variables=variables, errors=tmp_path / "courier.log"
    )
    try:
        uri = "s3://bucket/rows" if driver == "s3fs" else "oci://bucket@namespace/rows"
        with pytest.raises(NodeError, match=f"cannot fetch {uri}.*{advice}"):
            fetch_input(uri, tmp_path / "rows", lambda: one)
    finally:
        one.close()


def test_a_courier_that_died_is_replaced(courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    def put() -> None:
        courier.ask(
            "simplecache", do="put", uri=f"simplecache::file://{tmp_path}/far/a", **{"from": str(tmp_path / "a")}
        )

    put()
    (pid,) = courier.pids()
    os.kill(pid, 9)
    put()
    assert courier.pids() != {pid}


def test_a_courier_that_cannot_live_says_why(tmp_path: Path) -> None:
    archive = tmp_path / "no.pyz"
    one = Courier(lambda scheme: sys.executable, archive=str(archive), variables={}, errors=tmp_path / "courier.log")
    with pytest.raises(NodeError, match=r"the process that carries files died: .*no\.pyz"):
        one.ask("s3", do="get", uri="s3://b/k", to="x")
    one.close()


def test_an_image_is_asked_for_modules_without_importing_them(tmp_path: Path) -> None:
    assert transfer.image_has(sys.executable, ["fsspec", "json"], os.environ)
    assert not transfer.image_has(sys.executable, ["fsspec", "no_such_module"], os.environ)
    assert not transfer.image_has(str(tmp_path / "python"), ["json"], os.environ)
    assert transfer.python_version(sys.executable) == sys.version_info[:2]


def test_a_download_that_breaks_off_is_no_file(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "FIRST_PAUSE_S", 0.01)
    with pytest.raises((OSError, http.client.HTTPException), match="4"):
        carrying.carry_out({"do": "get", "uri": f"{web}/short", "to": str(tmp_path / "short")})
    assert list(tmp_path.glob("*short*")) == []
