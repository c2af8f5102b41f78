"""OCI Data Science as a place for jobs: what a job names is looked for with the user's own rights, and must fit it.

Only questions are asked. What the nodes themselves may do, as the principal of their job run, cannot be seen from
here: infrastructure/oci grants it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from cloudtune.backends.oci_wire import region_of
from cloudtune.clients.oci import OciClient
from cloudtune.clients.oci_auth import identity
from cloudtune.diagnosis import oci_network, oci_objects, oci_resources
from cloudtune.diagnosis.checks import Check, Surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.oci_questions import OciQuestions
from cloudtune.diagnosis.oci_session import at_home
from cloudtune.diagnosis.oci_wanted import Wanted, filled_in, regions_in, wanted_by
from cloudtune.diagnosis.questions import clocks, looked_at
from cloudtune.errors import CloudtuneError

_LIMIT_S = 45.0
#: What is looked at, one after the other; each may be refused by itself.
Look = Callable[[Wanted, OciQuestions, Surroundings], Iterator[Finding]]
LOOKS: tuple[Look, ...] = (
    oci_resources.compartment,
    oci_resources.project,
    oci_resources.shape,
    oci_resources.limits,
    oci_network.subnet,
    oci_resources.logs,
    oci_objects.buckets,
    oci_objects.inputs,
    oci_objects.conda,
    oci_resources.secrets,
    oci_resources.image,
)


def checks(subjects: Sequence[Subject], surroundings: Surroundings) -> tuple[Check, ...]:
    """Return one check over all jobs that go to OCI: what they share is asked for once."""
    return (Check(name="oci", look=partial(look, subjects, surroundings), limit_s=_LIMIT_S),)


def look(subjects: Sequence[Subject], surroundings: Surroundings) -> Iterator[Finding]:
    """Look at everything that the jobs name."""
    for subject in subjects:
        yield from _offline(subject)
    try:
        who = identity(surroundings.environ)
    except CloudtuneError as error:
        yield Finding(check="oci", status="problem", message=error.message, hint=error.hint or "")
        return
    ways = {"api_key": "an API key", "session": "a session token"}
    said = f"you ask with {ways.get(who.kind, f'a {who.kind} principal')}, region {who.region or 'not named'}"
    yield Finding(check="oci", status="ok", message=said)
    client = OciClient(surroundings.environ, hasty=True)
    questions = OciQuestions(client)
    for subject in subjects:
        place, found = at_home(subject, questions, surroundings.environ)
        yield from found
        wanted = wanted_by(subject, place)
        questions.turn_to(wanted.facts, wanted.region or who.region)
        yield from looked_at(LOOKS, wanted, questions, surroundings)
    yield from clocks(client.skew_s, questions.cloud)


def _offline(subject: Subject) -> Iterator[Finding]:
    """Look at what the OCIDs themselves say of regions; of what each is, the plan says."""
    place = filled_in(subject.job.infrastructure)
    regions = regions_in(place)
    named = region_of(place)
    if len({*regions.values(), *([named] if named else [])}) > 1:
        said = ", ".join(f"{key} is of {region}" for key, region in regions.items())
        message = f"{said}; the job's region is {named}: all must be in one"
        where = subject.at("infrastructure.spec")
        yield Finding(check="oci", status="problem", message=message, hint="take OCIDs of one region", where=where)
