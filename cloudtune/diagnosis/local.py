"""This machine as a place for jobs: the packages of their recipes, and as many accelerators as they count on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from cloudtune.diagnosis.checks import Check, Surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.packages import lacking
from cloudtune.node.accelerators import look as find_accelerators


def checks(subjects: Sequence[Subject], surroundings: Surroundings) -> tuple[Check, ...]:
    """Return the checks of jobs that run here."""
    return tuple(Check(name="local", look=partial(look, subject, surroundings.environ)) for subject in subjects)


def look(subject: Subject, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at one job."""
    runtime, launch = subject.job.runtime, subject.launch
    if sys.platform == "win32":
        hint = "use WSL, or run the job in a cloud"
        yield Finding(check="local", status="problem", message="jobs run here on Linux and macOS only", hint=hint)
    if runtime is not None and runtime.recipe is not None and runtime.dependencies is None:
        yield _packages(subject)
    for variable in runtime.env if runtime is not None else ():
        reference = variable.secret or ""
        name = reference.removeprefix("env:")
        if reference.startswith("env:") and name not in environ:
            message = f"secret {variable.name} comes from the variable {name}, which is not set here"
            where = subject.at("runtime.spec.env")
            yield Finding(check="local", status="problem", message=message, hint=f"export {name}=...", where=where)
    if launch is not None and launch.accelerator is not None:
        found, count = find_accelerators(launch.accelerator), launch.accelerators_per_node
        status = "ok" if found.number >= count else "problem"
        hint = "" if status == "ok" else "lower processesPerNode, or run the job where there are more"
        message = f"{count} x {launch.accelerator} are wanted, and {found.number} are seen here ({found.source})"
        yield Finding(check="local", status=status, message=message, hint=hint)


def _packages(subject: Subject) -> Finding:
    where, missing = subject.at("runtime.spec.recipe"), lacking("local")
    python = Path(sys.executable)
    if missing:
        message = f"recipes need {', '.join(missing)}, which {python} does not have"
        hint = 'pip install "cloudtune[local]"'
        return Finding(check="local", status="problem", message=message, hint=hint, where=where)
    return Finding(check="local", status="ok", message="the packages that recipes need are installed", where=where)
