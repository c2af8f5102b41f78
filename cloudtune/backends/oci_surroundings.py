"""What a job on OCI takes from where it is submitted: a notebook session or a job run has a compartment and a project.

The service tells them by variables, which are read as the code is read: the plan shows what was found. What only a
look-up can tell (the session's subnet) is a reference to a first step, which makes the look-up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import attrs

from cloudtune.plan import Leaf, Ref, Step
from cloudtune.spec.oci import DataScienceJob

#: Variables of a notebook session, a job run and a step of a pipeline, in the order of Oracle ADS.
COMPARTMENTS = (
    "NB_SESSION_COMPARTMENT_OCID",
    "PROJECT_COMPARTMENT_OCID",
    "JOB_RUN_COMPARTMENT_OCID",
    "PIPELINE_RUN_COMPARTMENT_OCID",
)
PROJECTS = ("PROJECT_OCID", "PIPELINE_PROJECT_OCID")
SESSION = "NB_SESSION_OCID"
_LOOK_UP = "session"
#: The service has two names for what a session was made with; one may be absent (Oracle ADS looks at both, too).
_SUBNET = "notebookSessionConfigDetails|notebookSessionConfigurationDetails.subnetId"


@attrs.frozen(kw_only=True)
class Surroundings:
    """Whose a job is and in which network its nodes are: from the spec, else from where the plan is made.

    ``subnet`` may be a reference to what the session has, which may be nothing; ``found`` says what was found where,
    by key of the spec.
    """

    compartment: str | Leaf | None
    project: str | Leaf | None
    subnet: str | Ref | None
    look_up: Step | None = None
    found: Mapping[str, str] = attrs.field(factory=dict)


def surroundings(place: DataScienceJob, environ: Mapping[str, str] | None = None) -> Surroundings:
    """Return the spec's values, and where it has none, those of the session or job run that this process is in."""
    known = os.environ if environ is None else environ
    session = known.get(SESSION)
    found: dict[str, str] = {}
    compartment = place.compartment_id or _of(known, COMPARTMENTS, "compartmentId", found)
    project = place.project_id or _of(known, PROJECTS, "projectId", found)
    subnet: str | Ref | None = place.subnet_id
    references = {
        "compartmentId": Ref(_LOOK_UP, "compartmentId"),
        "projectId": Ref(_LOOK_UP, "projectId"),
        "subnetId": Ref(_LOOK_UP, _SUBNET),
    }
    wanted = set(_lacking(compartment, project, place)) if session else set()
    found |= dict.fromkeys(wanted, SESSION)
    return Surroundings(
        compartment=references["compartmentId"] if "compartmentId" in wanted else compartment,
        project=references["projectId"] if "projectId" in wanted else project,
        subnet=references["subnetId"] if "subnetId" in wanted else subnet,
        look_up=_step(session, place) if session and wanted else None,
        found=found,
    )


def _of(known: Mapping[str, str], names: tuple[str, ...], key: str, found: dict[str, str]) -> str | None:
    for name in names:
        if known.get(name):
            found[key] = name
            return known[name]
    return None


def _lacking(compartment: str | None, project: str | None, place: DataScienceJob) -> Iterator[str]:
    if not compartment:
        yield "compartmentId"
    if not project:
        yield "projectId"
    # the user may ask for the service's own network
    if not place.subnet_id and place.job_infrastructure_type != "ME_STANDALONE":
        yield "subnetId"


def _step(session: str, place: DataScienceJob) -> Step:
    region = {"region": place.region} if place.region else {}
    parameters = {"notebookSessionId": session, **region}
    return Step(id=_LOOK_UP, service="oci.data_science", operation="get_notebook_session", parameters=parameters)
