"""A password or token in a URI does its work and is seen nowhere: no command line, no log, no file that stays."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtune.node import code
from cloudtune.node.launchers import Paths, environment
from cloudtune.node.log import Log, Redaction
from cloudtune.node.order import parse_order
from cloudtune.node.ranks import Place
from cloudtune.node.transfer import Courier, fetch_input
from tests.node.running import Job
from tests.node.test_dependencies import wheel

PASSWORD = "pa55/word"
QUOTED = "me:pa55%2Fword"


class Guarded(http.server.SimpleHTTPRequestHandler):
    """Serves files to whoever has the password; a path below /away leads to another server."""

    away = ""
    seen: list[tuple[str, str | None]] = []  # noqa: RUF012
    shown: list[bytes] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.shown.extend(line for line in command_lines() if b"pa55" in line)
        given = self.headers.get("Authorization")
        self.seen.append((self.path, given))
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", self.away + self.path.removeprefix("/away"))
            self.end_headers()
        elif given == "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode():
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def command_lines() -> Iterator[bytes]:
    """Yield the command lines of all processes that can be seen (Linux)."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """Return host and port of a server of ``tmp_path / "served"`` that wants a password."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "data.txt").write_text("data")
    handler = functools.partial(Guarded, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def commit(tmp_path: Path, place: str) -> str:
    """Return the commit of a repository that the server has as ``/repo.git``."""
    work = tmp_path / "repository"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch", "main")
    (work / "train.py").write_text("print(1)")
    git(work, "add", "train.py")
    git(work, "commit", "--quiet", "-m", "one")
    git(work, "clone", "--quiet", "--bare", ".", str(tmp_path / "served" / "repo.git"))
    git(tmp_path / "served" / "repo.git", "update-server-info")
    return git(work, "rev-parse", "HEAD")


def watched_git(folder: Path) -> tuple[dict[str, str], Path]:
    """Return variables with a git on PATH that writes down its command lines, and the file."""
    folder.mkdir()
    words = folder / "words"
    (folder / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {words}\nexec {shutil.which("git")} "$@"\n')
    (folder / "git").chmod(0o755)
    home = folder / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f"[credential]\nhelper = store --file={folder}/stored\n")
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(home)}, words


def test_git_gets_a_password_that_no_command_line_shows(tmp_path: Path, place: str, commit: str) -> None:
    variables, words = watched_git(tmp_path / "bin")
    log = Log(tmp_path / "log", Redaction())
    url = f"http://{QUOTED}@{place}/repo.git"
    found = code.fetch_git({"url": url, "commit": commit}, tmp_path / "work", log, variables=variables, key=None)
    assert found == commit
    assert (tmp_path / "work" / "train.py").read_text() == "print(1)"
    assert "fetch" in words.read_text()
    config = (tmp_path / "work" / ".git" / "config").read_text()
    for text in (words.read_text(), config, (tmp_path / "log").read_text()):
        assert PASSWORD not in text
        assert QUOTED not in text
    assert not (tmp_path / "bin" / "stored").exists()


def test_a_wrong_password_is_refused_and_not_shown(tmp_path: Path, place: str, commit: str) -> None:
    variables, _ = watched_git(tmp_path / "bin")
    log = Log(tmp_path / "log", Redaction())
    source = {"url": f"http://me:wr0ng@{place}/repo.git", "commit": commit}
    with pytest.raises(code.NodeError, match=r"cannot fetch http://\*\*\*@127") as caught:
        code.fetch_git(source, tmp_path / "work", log, variables=variables, key=None)
    assert "wr0ng" not in str(caught.value)


def test_a_download_signs_in_and_tells_no_other_server(agent: Path, tmp_path: Path, place: str) -> None:
    Guarded.seen.clear()
    Guarded.away = f"http://localhost:{place.rpartition(':')[2]}"
    courier = Courier(
        lambda scheme: sys.executable, archive=str(agent), variables=dict(os.environ), errors=tmp_path / "errors"
    )
    try:
        fetch_input(f"http://{QUOTED}@{place}/data.txt", tmp_path / "here", lambda: courier)
        assert (tmp_path / "here").read_text() == "data"
        with pytest.raises(code.NodeError, match="401"):
            fetch_input(f"http://{QUOTED}@{place}/away/data.txt", tmp_path / "there", lambda: courier)
    finally:
        courier.close()
    assert [given is not None for path, given in Guarded.seen] == [True, True, False]


def test_parts_of_uris_are_redacted_by_themselves() -> None:
    redaction = Redaction()
    redaction.add_variables(
        {
            "CLOUDTUNE_URI_00000000_SECRET": QUOTED,
            "CLOUDTUNE_URI_00000001_SECRET": "X-Amz-Date=20260101T000000Z&X-Amz-Signature=0123456789abcdef0123%2F",
        }
    )
    assert redaction(f"a {PASSWORD} b pa55%2Fword c {QUOTED}") == "a *** b *** c ***"
    assert redaction("0123456789abcdef0123%2F 0123456789abcdef0123/ 20260101T000000Z") == "*** *** 20260101T000000Z"


def test_the_command_does_not_see_them() -> None:
    order = parse_order({"runId": "r", "command": "true", "inherited": ["CLOUDTUNE_URI_00000000_SECRET"]})
    paths = Paths(python="p", scripts=(), tools="t", code="c", working="w", outputs="o")
    place = Place("local", 0, 1, "127.0.0.1", 1)
    surroundings = {"CLOUDTUNE_URI_00000000_SECRET": "me:pw", "HF_TOKEN": "x"}
    found = environment(order, place, paths, surroundings=surroundings, secrets={})
    assert "HF_TOKEN" in found
    assert not [name for name in found if name.startswith("CLOUDTUNE_URI_")]


def test_a_node_fills_them_in(new_job: Callable[..., Job], tmp_path: Path, place: str, commit: str) -> None:
    name, other = "CLOUDTUNE_URI_0000000A_SECRET", "CLOUDTUNE_URI_0000000B_SECRET"
    kept = tmp_path / "kept $HOME x"
    job = new_job(
        command="cat data.txt train.py; echo [$" + name + "]; cp train.py $CLOUDTUNE_OUTPUT_DIR/",
        inherited=[name, other],
        code={"kind": "git", "url": f"http://${{{name}}}@{place}/repo.git", "commit": commit},
        inputs={f"http://${{{other}}}@{place}/data.txt": "data.txt"},
        outputs={"uri": str(kept), "expand": False},
    )
    assert job.run(**{name: QUOTED, other: QUOTED}) == [0], job.log()
    assert job.texts() == ["dataprint(1)[]"]
    assert (kept / "train.py").is_file()
    for file in (path for path in job.folder.rglob("*") if path.is_file()):
        assert b"pa55" not in file.read_bytes(), file


def test_pip_gets_a_password_that_no_command_line_shows(
    new_job: Callable[..., Job], tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "CLOUDTUNE_URI_0000000A_SECRET"
    shown: list[bytes] = []
    monkeypatch.setattr(Guarded, "shown", shown)
    wheel(tmp_path / "served", "tinypack", "1.0", "X = 7")
    packages = f"tinypack --no-index --find-links http://${{{name}}}@{place}/"
    job = new_job(
        command='python -c "import tinypack; print(tinypack.X)"',
        inherited=[name],
        dependencies={"pipPackages": packages},
    )
    assert job.run(**{name: QUOTED}) == [0], job.log()
    assert job.texts() == ["7"]
    assert shown == []
    for file in (path for path in job.folder.rglob("*") if path.is_file()):
        assert b"pa55" not in file.read_bytes(), file
