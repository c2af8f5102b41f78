"""This machine, and machines that are made up of files."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import textwrap
from pathlib import Path

import pytest

from cloudtune.diagnosis import machine


def only(findings):
    (found,) = findings
    return found


def test_this_python_is_one_that_is_supported():
    found = only(machine.check_python())
    assert found.status == "ok"
    assert "Python 3." in found.message


def test_the_home_folder_is_made_written_and_locked(home):
    found = only(machine.check_home())
    assert (found.status, found.message) == ("ok", f"{home} can be written and locked")
    assert list(home.iterdir()) == []


def test_a_home_that_is_a_file_is_a_problem(home):
    home.write_text("")
    found = only(machine.check_home())
    assert found.status == "problem"
    assert "cannot be written" in found.message
    assert "CLOUDTUNE_HOME" in found.hint


def test_locks_that_do_nothing_are_found_out(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert machine._locks(path) is None

    class Kernel:
        """The locks of a mount without them: nobody is ever refused."""

        LOCK_EX, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB

        def flock(self, *_):
            pass

        lockf = flock

    monkeypatch.setattr(machine, "fcntl", Kernel())
    assert machine._locks(path) == "a lock that is held can be taken a second time"
    monkeypatch.setattr(Kernel, "lockf", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert machine._locks(path) == "No locks available"
    monkeypatch.setattr(machine, "fcntl", None)
    assert machine._locks(path) is None


def test_a_network_file_system_is_named(tmp_path):
    mounts = tmp_path / "mounts"
    place = os.path.realpath(tmp_path)
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/x {place} nfs4 rw 0 0\nserver:/y {place}/deeper ext4 rw 0 0\n")
    assert machine._file_system(tmp_path, mounts) == "nfs4"
    assert machine._file_system(tmp_path / "deeper", mounts) is None
    assert machine._file_system(Path("/elsewhere"), mounts) is None
    assert machine._file_system(tmp_path, tmp_path / "nothing") is None


def test_little_room_is_a_warning_and_none_a_problem(monkeypatch):
    usage = shutil.disk_usage(tempfile.gettempdir())
    for free, status in ((10**11, "ok"), (10**9, "warning"), (10**7, "problem")):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert {one.status for one in machine.check_disk()} == {status}


def test_git_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = only(machine.check_git())
    assert (found.status, found.message) == ("warning", "git is not installed")


def test_proxies_are_told_without_their_passwords(tmp_path):
    environ = {"HTTPS_PROXY": "http://me:secret@proxy:3128", "no_proxy": "localhost"}
    found = only(machine.check_proxies(environ))
    assert found.message == "requests go by a proxy: HTTPS_PROXY=http://***@proxy:3128, no_proxy=localhost"
    found = only(machine.check_proxies({"ALL_PROXY": "me:secret@proxy:3128"}))
    assert found.message == "requests go by a proxy: ALL_PROXY=***@proxy:3128"
    two = list(machine.check_proxies({**environ, "https_proxy": "http://other:1"}))
    assert [one.status for one in two] == ["warning", "ok"]
    assert list(machine.check_proxies({"NO_PROXY": "x", "PATH": "/bin"})) == []
    wrong = only(machine.check_proxies({"REQUESTS_CA_BUNDLE": str(tmp_path / "none")}))
    assert wrong.status == "problem"


def torch_at(folder, text):
    """Return a finder of packages that finds a torch whose version.py is this."""
    folder.mkdir(exist_ok=True)
    (folder / "version.py").write_text(textwrap.dedent(text))

    class Spec:
        submodule_search_locations = (str(folder),)

    return lambda _: Spec()


CUDA = """
    from typing import Optional

    __all__ = ['__version__', 'debug', 'cuda']
    __version__ = '2.13.0+cu130'
    debug = False
    cuda: Optional[str] = '13.0'
    hip: Optional[str] = None
"""


def test_what_torch_was_built_for_is_read_without_importing_it(tmp_path):
    build = machine.torch_build(torch_at(tmp_path / "torch", CUDA))
    assert (build["__version__"], build["cuda"], build["hip"]) == ("2.13.0+cu130", "13.0", None)
    assert machine.torch_build(lambda _: None) is None


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Return a deed that puts an nvidia-smi of this CUDA first on the path."""

    def put(cuda: str) -> None:
        tool = tmp_path / "nvidia-smi"
        table = f"| NVIDIA-SMI 550.1   Driver Version: 550.1   CUDA Version: {cuda} |"
        tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA A10 (UUID: x)" || echo "{table}"\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


@pytest.mark.parametrize(
    ("cuda", "text", "status", "said"),
    [
        ("13.1", CUDA, "ok", "torch 2.13.0+cu130 for CUDA 13.0; 1 x NVIDIA A10"),
        ("12.4", CUDA, "problem", "whose driver knows CUDA 12.4 at most"),
        ("13.1", "__version__ = '2.13.0+cpu'\ncuda = None\n", "warning", "which this build cannot use"),
        ("13.1", "__version__ = '2.13.0'\nhip = '7.0'\n", "warning", "for ROCm 7.0"),
    ],
)
def test_torch_and_gpus_must_fit_together(gpus, tmp_path, cuda, text, status, said):
    gpus(cuda)
    found = only(machine.check_accelerators(torch_at(tmp_path / "torch", text)))
    assert (found.status, said in found.message) == (status, True), found


def test_without_torch_and_without_gpus_nothing_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = only(machine.check_accelerators(lambda _: None))
    assert found.status == "ok"
    assert "torch is not installed" in found.message
    found = only(machine.check_accelerators(torch_at(tmp_path / "torch", CUDA)))
    assert found.status == "ok"
