from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune.node import dependencies
from cloudtune.node.errors import NodeError
from tests.node.running import Job


def wheel(folder: Path, name: str, version: str, source: str, *, requires: str = "") -> Path:
    """Write a wheel of one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    facts = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": source,
        f"{facts}/METADATA": metadata,
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{facts}/entry_points.txt": f"[console_scripts]\n{name}-tool = {name}:main\n",
    }
    with zipfile.ZipFile(path, "w") as pack:
        for file, text in files.items():
            pack.writestr(file, text)
        pack.writestr(f"{facts}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{facts}/RECORD")))
    return path


def test_options_and_requirements_may_stand_anywhere(tmp_path: Path) -> None:
    found = dependencies.pip_arguments("peft 'trl>=1' --extra-index-url file:///x accelerate", tmp_path / "r.txt")
    assert found == ["peft", "trl>=1", "--extra-index-url", "file:///x", "accelerate", "-r", str(tmp_path / "r.txt")]
    assert dependencies.pip_arguments("", None) == []
    with pytest.raises(NodeError, match="No closing quotation"):
        dependencies.pip_arguments("'open", None)


def test_what_holds_a_password_goes_to_a_file() -> None:
    index, wheel_, signed = "https://me:pa55word@host/simple", "https://tok3n@host/a.whl", "https://host/x?sig=abcdef"
    words = ["peft", "-i", index, f"--find-links={signed}", f"a @ {wheel_}", "--proxy", index, "-e", f"git+{wheel_}"]
    assert dependencies.apart([*words, "-U", "https://host/plain.whl"]) == (
        ["peft", "--proxy", index, "-U", "https://host/plain.whl"],
        [f"-i {index}", f"--find-links={signed}", f"a @ {wheel_}", f"-e git+{wheel_}"],
    )
    assert dependencies.apart(["peft", "--pre"]) == (["peft", "--pre"], [])


def test_the_requirements_file_is_looked_for_in_the_working_folder_first(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "r.txt").touch()
    assert dependencies.requirements_file("r.txt", working=tmp_path / "sub", code=tmp_path) == tmp_path / "r.txt"
    (tmp_path / "sub" / "r.txt").touch()
    assert (
        dependencies.requirements_file("r.txt", working=tmp_path / "sub", code=tmp_path) == tmp_path / "sub" / "r.txt"
    )
    assert dependencies.requirements_file("", working=tmp_path, code=tmp_path) is None


def test_the_jobs_packages_beat_the_images_and_leave_them_alone(new_job: Callable[..., Job], tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    # one that needs a package of the image, and one that the image has in another version
    wheel(shelf, "tinypack", "1.5", "def main(): print('tool ran')\nX = 7", requires="attrs")
    wheel(shelf, "iniconfig", "99.0", "VERSION = 99")
    script = "import attr, tinypack, iniconfig; print(attr.__file__); print(tinypack.__file__, iniconfig.VERSION)"
    job = new_job(
        command=f'python -c "{script}" && tinypack-tool && torchrun',
        code={"kind": "archive", "path": "code.tar.gz"},
        dependencies={
            "pipPackages": f"--no-index tinypack --find-links {shelf}",
            "pipRequirements": "requirements.txt",
        },
    )
    with tarfile.open(job.folder / "code.tar.gz", "w:gz") as archive:
        for name, text in {
            "requirements.txt": b"iniconfig>=99\n",
            "torch/__init__.py": b"",
            "torch/distributed/__init__.py": b"",
            "torch/distributed/run.py": b"import tinypack; print('launcher sees', tinypack.X)",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    assert job.run(timeout_s=120) == [0], job.log()
    image_file, own_file, tool, launcher = job.texts()
    assert image_file.startswith(sys.prefix)
    assert own_file.startswith(str(job.folder / "node-0" / "venv"))
    assert own_file.endswith(" 99")
    assert (tool, launcher) == ("tool ran", "launcher sees 7")
    assert any("Successfully installed" in text and "tinypack-1.5" in text for text in job.texts(stream="agent"))
    assert not any("Successfully installed" in text and "attrs" in text for text in job.texts(stream="agent"))
    check = "import iniconfig, importlib.util as u, sys; sys.exit(u.find_spec('tinypack') is not None)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    assert not (job.folder / "node-0" / "venv").exists()


def test_what_pip_says_is_in_the_log_and_in_the_reason(new_job: Callable[..., Job], tmp_path: Path) -> None:
    job = new_job(command="echo ran", dependencies={"pipPackages": f"--no-index --find-links {tmp_path} nowhere-pack"})
    assert job.run(timeout_s=120) == [125]
    (reason,) = job.report()["reason"].splitlines()
    assert reason.startswith("cannot install the job's packages: Could not find")
    assert reason.endswith("; No matching distribution found for nowhere-pack")
    assert any("No matching distribution" in text for text in job.texts(stream="agent"))
    assert job.texts() == []


def test_without_dependencies_no_environment_is_made(new_job: Callable[..., Job]) -> None:
    job = new_job(
        command="python -c 'import sys; print(sys.prefix)'", dependencies={"pipPackages": "", "pipRequirements": ""}
    )
    assert job.run() == [0]
    assert job.texts() == [sys.prefix]
