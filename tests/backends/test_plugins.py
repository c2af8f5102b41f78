"""Backends and infrastructures of other distributions: found by name, imported when asked for, blamed when broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune import runs
from cloudtune.backends import backend_named, backend_of, every_backend
from cloudtune.errors import CloudtuneError, RunNotFound, SpecError, UsageError
from cloudtune.spec.document import load

Install = Callable[..., Path]
GOOD = """
from cloudtune.backends.local import LocalBackend
from cloudtune.spec.infrastructure import LocalJob
class Place(LocalJob):
    type = "moonJob"
class Backend(LocalBackend):
    name = "moon"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a distribution of one module that adds types of infrastructure."""
    place = tmp_path / "packages"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=":")

    def made(name: str, source: str, *types: str) -> Path:
        module = name.replace("-", "_")
        (place / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = place / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        groups = {"backends": "Backend", "infrastructures": "Place"}
        lines = [
            f"[cloudtune.{group}]\n" + "".join(f"{each} = {module}:{cls}\n" for each in types)
            for group, cls in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        return place

    return made


def job(infrastructure_type: str) -> str:
    return f"""
kind: job
spec:
  name: x
  infrastructure: {{kind: infrastructure, type: {infrastructure_type}, spec: {{}}}}
  runtime: {{kind: runtime, type: script, spec: {{scriptPathURI: x.py}}}}
"""


def test_a_backend_of_another_distribution_is_found(install: Install) -> None:
    install("moon-base", GOOD, "moonJob")
    assert backend_of("moonJob").name == "moon"
    assert type(backend_named("moon")) is type(backend_of("moonJob"))
    assert [backend.name for backend in every_backend()][-1] == "moon"
    with pytest.raises(UsageError, match="known types: dataScienceJob, eksJob, local, moonJob, sageMaker"):
        backend_of("marsJob")


@pytest.mark.parametrize(
    "source",
    ["import nothing_of_that_name", "def broken(", "Backend = Place = None", "def Backend(): raise ValueError('no')"],
)
def test_one_that_is_broken_is_blamed_and_the_others_go_on(source: str, install: Install, tmp_path: Path) -> None:
    install("broken-base", source, "aJob")
    install("moon-base", GOOD, "moonJob")
    assert backend_of("local").name == "local"
    assert backend_named("oci").name == "oci"
    assert backend_named("moon").name == "moon"
    (tmp_path / "abcdefgh").mkdir()
    (tmp_path / "abcdefgh" / "run.json").write_text("{}")
    assert runs.get(str(tmp_path / "abcdefgh")).id == "abcdefgh"
    for ask in (
        lambda: backend_of("aJob"),
        lambda: backend_named("nobody"),
        lambda: runs.get("zzzzzzzz"),
    ):
        with pytest.raises(CloudtuneError) as caught:
            ask()
        assert not isinstance(caught.value, RunNotFound)
        assert "'aJob', which the package broken-base adds to cloudtune.backends, is broken" in str(caught.value)
        assert "pip uninstall broken-base" in str(caught.value)


def test_the_command_line_says_it_without_a_traceback(install: Install) -> None:
    install("broken-base", "import nothing_of_that_name", "aJob")
    command = [sys.executable, "-m", "cloudtune", "status", "zzzzzzzz"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert "pip uninstall broken-base" in told.stderr
    assert "Traceback" not in told.stderr
    assert "fault of cloudtune" not in told.stderr


def test_two_that_add_the_same_type_are_named(install: Install) -> None:
    install("moon-base", GOOD, "moonJob")
    install("other-base", GOOD, "moonJob", "local")
    assert backend_of("local").__class__.__module__ == "cloudtune.backends.local"
    with pytest.raises(CloudtuneError, match="both moon-base and other-base"):
        backend_of("moonJob")
    with pytest.raises(CloudtuneError, match=r"'local', which the package other-base adds"):
        list(every_backend())


def test_a_type_of_another_distribution_can_be_written_and_is_suggested(install: Install) -> None:
    install("moon-base", GOOD, "moonJob")
    install("broken-base", "import nothing_of_that_name", "brokenJob")
    loaded = load(job("moonJob"))
    assert type(loaded.infrastructure).__module__ == "moon_base"  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="did you mean 'moonJob'"):
        load(job("moonJobb"))
    with pytest.raises(SpecError, match=r"known: .*eksJob, brokenJob, moonJob"):
        load(job("qqqqqqqqqq"))
    with pytest.raises(SpecError, match="did you mean 'brokenJob'"):
        load(job("brokenJobb"))
    with pytest.raises(CloudtuneError, match="pip uninstall broken-base"):
        load(job("brokenJob"))
