"""The verb ``doctor``: everything that can be looked at before a job runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtune.diagnosis.checks import Check
    from cloudtune.diagnosis.findings import Report


def doctor(
    file: str | os.PathLike[str] | None = None,
    *,
    set: Sequence[str] = (),  # noqa: A002 - the command line's own word
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    write: bool = False,
) -> Report:
    """Look at this machine and, with a file, at the job and what it needs where it goes, with the user's own rights.

    Nothing is changed, and no secret's value is read; with ``write`` an object is put into each bucket that outputs go
    to, and removed again. Without a file nothing is asked over the network; with one, what cannot be reached is
    unknown within seconds.

    >>> "python" in {finding.check for finding in doctor().findings}
    True
    """
    from cloudtune.diagnosis import credentials, document, hub, places
    from cloudtune.diagnosis.checks import Surroundings, carried_out
    from cloudtune.diagnosis.findings import Report

    if file is None:
        return Report(findings=carried_out(general(os.environ)))
    found = document.read(file, set=set, env=env, infrastructure=infrastructure, environ=os.environ)
    there = places.checks(found.subjects, Surroundings(environ=os.environ, write=write))
    kinds = {credentials.wanted_by(subject.job.infrastructure) for subject in found.subjects}
    asked = (*general(os.environ, kinds), *hub.checks(found, os.environ), *there)
    return Report(findings=(*found.findings, *carried_out(asked)))


def general(environ: Mapping[str, str], wanted: Collection[str] = ()) -> tuple[Check, ...]:
    """Return the checks that need neither a file nor the network; ``wanted`` are the types of places jobs go to."""
    from cloudtune.diagnosis import credentials, machine, packages
    from cloudtune.diagnosis.checks import Check

    return (
        Check(name="python", look=machine.check_python),
        Check(name="packages", look=packages.check_packages),
        Check(name="home", look=machine.check_home),
        Check(name="disk", look=machine.check_disk),
        Check(name="git", look=machine.check_git),
        Check(name="torch", look=machine.check_accelerators, limit_s=30.0),
        Check(name="credentials", look=partial(credentials.check_credentials, environ, wanted=wanted)),
        Check(name="proxy", look=partial(machine.check_proxies, environ)),
    )
