"""OCI's language of policies, as far as cloudtune's statements use it: a statement is read, or refused with a reason.

https://docs.oracle.com/en-us/iaas/Content/Identity/Concepts/policysyntax.htm
"""

from __future__ import annotations

import re
from typing import NamedTuple

VERBS = ("inspect", "read", "use", "manage")
#: Resource types by the service's page of the policy reference, with the variables that its conditions may use.
RESOURCES = {
    "data-science-projects": (),
    "data-science-jobs": (),
    "data-science-job-runs": (),
    "data-science-models": (),
    "data-science-modelversionsets": (),
    "data-science-model-deployments": (),
    "data-science-work-requests": (),
    "data-science-notebook-sessions": (),
    "virtual-network-family": (),
    "log-groups": ("target.loggroup.id",),
    "log-content": ("target.loggroup.id",),
    "buckets": ("target.bucket.name",),
    "objects": ("target.bucket.name", "target.object.name"),
    "object-family": ("target.bucket.name", "target.object.name"),
    "secrets": ("target.secret.id", "target.secret.name"),
    "secret-bundles": ("target.secret.id", "target.secret.name"),
    "metrics": ("target.metrics.namespace",),
    "repos": ("target.repo.name",),
    "compartments": (),
    "file-family": (),
    "resource-availability": (),
}
_NAME = r"(?:'[^']+'/)?'[^']+'|[\w.-]+"
_OCID = r"ocid1\.[a-z0-9]+\.oc\d+\.[a-z0-9-]*\.[a-z0-9]+"
_SUBJECT = rf"any-user|service [a-z0-9-]+|(?:dynamic-)?group (?:id {_OCID}|{_NAME})"
_STATEMENT = re.compile(
    rf"(?i:allow) (?P<subject>{_SUBJECT}) to (?P<verb>\w+) (?P<resource>[a-z-]+)"
    rf" in (?P<place>tenancy|compartment id {_OCID}|compartment [\w:-]+)(?: where (?P<condition>.+))?"
)
_CONDITION = re.compile(r"(?P<variable>[a-z]+(?:\.[a-z-]+)+) ?!?= ?'[^']+'")


class Statement(NamedTuple):
    """The parts of a statement."""

    subject: str
    verb: str
    resource: str
    place: str
    variables: tuple[str, ...]


def read(text: str) -> Statement:
    """Return the parts of a statement; raises ValueError for one that OCI would refuse."""
    found = _STATEMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"no statement: {text}")
    verb, resource = found["verb"], found["resource"]
    if verb not in VERBS:
        raise ValueError(f"no verb: {verb}")
    if resource not in RESOURCES:
        raise ValueError(f"no resource type: {resource}")
    variables = _variables(found["condition"])
    unknown = set(variables) - set(RESOURCES[resource])
    if unknown:
        raise ValueError(f"{resource} has no {', '.join(sorted(unknown))}")
    return Statement(found["subject"], verb, resource, found["place"], variables)


def _variables(condition: str | None) -> tuple[str, ...]:
    if condition is None:
        return ()
    several = re.fullmatch(r"(?i:any|all) ?\{(.+)\}", condition)
    parts = several[1].split(",") if several else [condition]
    found = [_CONDITION.fullmatch(part.strip()) for part in parts]
    if not all(found):
        raise ValueError(f"no condition: {condition}")
    return tuple(one["variable"] for one in found if one)
