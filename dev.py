#!/usr/bin/env python3
"""Set up a working copy of cloudtune and do one thing in it, with Python's standard library alone.

    python3 dev.py quickstart      install what the quickstart needs and fine-tune a small model on this machine
    python3 dev.py test            install what the tests need and run every check
    python3 dev.py run CMD...      run a command inside the environment, e.g. `python3 dev.py run cloudtune --help`
    python3 dev.py specs           renew specs/ from the specs that travel in the package

Everything lands in .venv beside this file. Packages come from wherever pip is configured to look for them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 10), (3, 13)
#: What each command needs: extras, then dependency groups. The first set is a part of the second.
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "local": ("local", ()),
    "test": ("local,notebooks", ("test", "lint")),
}
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)
#: Free space that an installation with a CPU build of PyTorch takes, with some to spare.
SPACE_NEEDED_BYTES = 3 * 1024**3


class Stop(Exception):
    """Ends the program: what is wrong and what to do."""


def say(text: str) -> None:
    """Print a line of our own, apart from the output of the commands."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def version_text(version: tuple[int, int]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of an interpreter, or None where it does not run."""
    probe = "import sys; print(*sys.version_info[:2])"
    try:
        found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True, timeout=30)
        major, minor = found.stdout.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return int(major), int(minor)


def interpreter(wanted: str | None) -> str:
    """Return the Python that the environment is made from: the one asked for, this one, or a fitting one on PATH."""
    span = f"{version_text(OLDEST)} to {version_text(NEWEST)}"
    if wanted:
        version = version_of(wanted)
        if version is None:
            raise Stop(f"{wanted} does not run; give --python the path of a Python {span}")
        if not OLDEST <= version <= NEWEST:
            raise Stop(f"{wanted} is Python {version_text(version)}; cloudtune needs Python {span}")
        return wanted
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other and version_of(other) == (3, minor):
            say(f"this is Python {version_text(sys.version_info[:2])}; going on with {other}")
            return other
    raise Stop(
        f"cloudtune needs Python {span}, this is {version_text(sys.version_info[:2])} and no other is on PATH\n"
        "  install one (Debian and Ubuntu: apt-get install python3 python3-venv) or name one with --python"
    )


def command_path(name: str) -> str:
    """Return the path of a command inside the environment."""
    folder, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
    return str(VENV / folder / f"{name}{suffix}")


def call(argv: list[str], problem: str) -> None:
    """Run a command to its end; ``problem`` is said when it fails, with the disk's state where that is the cause."""
    code = subprocess.run(argv, cwd=ROOT, check=False).returncode
    if code:
        free = shutil.disk_usage(ROOT).free
        if free < SPACE_NEEDED_BYTES // 10:
            problem += f"\n  only {free / 1024**2:.0f} MB are free below {ROOT}: make room and run this again"
        raise Stop(problem)


def make_environment(python: str) -> None:
    """Create .venv, or leave it where it works already."""
    ready = Path(command_path("python"))
    if ready.exists() and version_of(str(ready)) == version_of(python):
        return
    major_minor = version_text(version_of(python) or OLDEST)
    missing = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
    if missing:
        raise Stop(
            f"{python} cannot make virtual environments\n"
            f"  Debian and Ubuntu: apt-get install python3-venv   (or python{major_minor}-venv); then run this again"
        )
    say(f"making .venv with Python {major_minor}")
    call([python, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made (see above)")


def fingerprint() -> str:
    """Return a digest of everything that decides what is installed."""
    digest = hashlib.sha256(sys.platform.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def install(need: str, python: str) -> None:
    """Install what ``need`` asks for, unless a stamp in the environment says that it is all there."""
    make_environment(python)
    print_of_now = fingerprint()
    stamps = {name: VENV / f"cloudtune-{name}.stamp" for name in NEEDS}
    enough = ("test",) if need == "test" else ("test", "local")
    if any(stamps[name].is_file() and stamps[name].read_text() == print_of_now for name in enough):
        return
    free = shutil.disk_usage(ROOT).free
    if free < SPACE_NEEDED_BYTES:
        say(f"only {free / 1024**3:.1f} GB are free below {ROOT}; an installation with PyTorch takes 2 GB or more")
    pip = [command_path("python"), "-m", "pip", "install", "--disable-pip-version-check"]
    extras, groups = NEEDS[need]
    if groups:
        # dependency groups are known to pip since 25.1
        call([*pip, "--quiet", "pip>=25.1"], "pip could not be renewed; is the package index reachable?")
    say(f"installing cloudtune[{extras}]" + "".join(f" + {group}" for group in groups) + " (minutes, the first time)")
    wanted = ["--constraint", "constraints.txt", "--editable", f".[{extras}]"]
    wanted += [item for group in groups for item in ("--group", group)]
    call([*pip, *wanted], "the installation failed (see pip's words above); the same command goes on where it stopped")
    stamps[need].write_text(print_of_now)


def run_inside(argv: list[str], folder: Path = ROOT) -> int:
    """Run a command in a folder with the environment's commands first on PATH and return its exit code."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
    environment["PATH"] = str(Path(command_path("python")).parent) + os.pathsep + environment.get("PATH", "")
    program = shutil.which(argv[0], path=environment["PATH"])
    if program is None:
        raise Stop(f"no command {argv[0]} in .venv or on PATH")
    return subprocess.run([program, *argv[1:]], cwd=folder, env=environment, check=False).returncode


def check_all(heavy: bool, extra: list[str]) -> int:
    """Run every check and return 0 where all of them pass; a failing one does not hide the others."""
    # most tests wait for processes: two files at a time take little more than half as long
    tests = ["pytest", "-n", "2", "--dist", "loadfile", *([] if heavy else ["-m", "not heavy"]), *extra]
    failed = []
    for argv in (*map(list, CHECKS), tests):
        say(" ".join(argv))
        if run_inside(argv):
            failed.append(argv[0] if argv[0] != "ruff" else " ".join(argv[:2]))
    say("failed: " + ", ".join(failed) if failed else "all checks passed")
    return 1 if failed else 0


def renew_specs() -> None:
    """Make specs/ equal to the specs in the package, which are the source."""
    source, target = ROOT / "cloudtune" / "examples", ROOT / "specs"
    for file in sorted(target.rglob("*")):
        if file.is_file() and file.name != "job.schema.json" and not (source / file.relative_to(target)).is_file():
            file.unlink()
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.py"))


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", metavar="PATH", help="interpreter for .venv (default: this one, or one on PATH)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("quickstart", help="install and fine-tune a small model on this machine")
    test = verbs.add_parser("test", help="install and run every check")
    test.add_argument("--no-heavy", action="store_true", help="leave out the tests that really train or serve")
    test.add_argument("pytest", nargs="*", help="arguments for pytest")
    run = verbs.add_parser("run", help="run a command inside .venv")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    verbs.add_parser("specs", help="renew specs/ from the package")
    options, rest = parser.parse_known_args()
    if rest and options.verb != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if options.verb == "specs":
        renew_specs()
        return 0
    python = interpreter(options.python)
    if options.verb == "quickstart":
        install("local", python)
        code = run_inside(["cloudtune", "run", "-f", "specs/quickstart.yaml"])
        say("the command cloudtune is in .venv: first `. .venv/bin/activate`")
        return code
    if options.verb == "test":
        install("test", python)
        return check_all(not options.no_heavy, [*options.pytest, *rest])
    if not options.argv:
        parser.error("run needs a command, e.g. `python3 dev.py run cloudtune --help`")
    install("local", python)
    return run_inside(options.argv, Path.cwd())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        say(str(stop))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
