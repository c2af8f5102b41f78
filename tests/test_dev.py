"""dev.py: finds a Python, says what is missing, and installs only when something has changed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def dev(tmp_path, monkeypatch):
    """Return dev.py as a module whose environment lies in a scratch folder and whose commands are only noted."""
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    called = []
    monkeypatch.setattr(module, "VENV", tmp_path / "venv")
    monkeypatch.setattr(module, "call", lambda argv, problem: called.append(argv))
    monkeypatch.setattr(module, "make_environment", lambda python: (tmp_path / "venv").mkdir(exist_ok=True))
    module.called = called
    return module


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_this_python_is_taken_where_it_fits(dev):
    assert dev.interpreter(None) == sys.executable


def test_another_python_on_path_is_taken_where_this_one_does_not_fit(dev, monkeypatch, tmp_path):
    other = script(tmp_path / "python3.12", "echo 3 12")
    monkeypatch.setattr(dev, "OLDEST", (3, 12))
    monkeypatch.setattr(dev, "NEWEST", (3, 12))
    monkeypatch.setattr(dev.sys, "version_info", (3, 9, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dev.interpreter(None) == other


def test_no_fitting_python_is_said_with_what_to_do(dev, monkeypatch, tmp_path):
    monkeypatch.setattr(dev.sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dev.Stop, match=r"needs Python 3.10 to 3.13, this is 3.14.*\n.*--python"):
        dev.interpreter(None)


def test_a_wrong_python_asked_for_is_refused(dev, tmp_path):
    old = script(tmp_path / "old", "echo 3 8")
    with pytest.raises(dev.Stop, match=r"is Python 3.8; cloudtune needs Python 3.10 to 3.13"):
        dev.interpreter(old)
    with pytest.raises(dev.Stop, match="does not run"):
        dev.interpreter(str(tmp_path / "none"))


def test_a_python_without_venv_names_the_package(tmp_path):
    python = script(tmp_path / "python", 'case "$2" in "import sys"*) echo 3 11 ;; *) exit 1 ;; esac')
    code = (
        "import dev, pathlib, sys\n"
        "dev.VENV = pathlib.Path(sys.argv[1]) / 'venv'\n"
        "try: dev.make_environment(sys.argv[2])\n"
        "except dev.Stop as stop: print(stop)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), python], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "apt-get install python3-venv   (or python3.11-venv)" in done.stdout


def test_installing_twice_installs_once(dev):
    dev.install("local", sys.executable)
    (argv,) = dev.called
    assert argv[-1] == ".[local]"
    assert "constraints.txt" in argv
    dev.install("local", sys.executable)
    assert len(dev.called) == 1


def test_what_the_tests_need_holds_what_the_quickstart_needs(dev):
    dev.install("test", sys.executable)
    assert dev.called[-1][-4:] == ["--group", "test", "--group", "lint"]
    before = len(dev.called)
    dev.install("local", sys.executable)
    assert len(dev.called) == before


def test_a_changed_requirement_installs_again(dev, monkeypatch):
    dev.install("local", sys.executable)
    monkeypatch.setattr(dev, "fingerprint", lambda: "another")
    dev.install("local", sys.executable)
    assert len(dev.called) == 2


def test_a_failed_command_ends_with_advice(tmp_path):
    done = subprocess.run(
        [sys.executable, "dev.py", "--python", str(tmp_path / "none"), "run", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "give --python the path of a Python 3.10 to 3.13" in done.stderr
    assert "Traceback" not in done.stderr
