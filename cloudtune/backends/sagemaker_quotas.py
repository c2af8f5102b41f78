"""How many instances of a type an account may train on at a time, as Service Quotas tells it.

A quota is found by its name: its code is known to the service alone. Source: Service Quotas' pages on Amazon SageMaker,
``ml.g5.12xlarge for training job usage``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.errors import NoCapacity
from cloudtune.plan import Call, Plan, Step

SERVICE = "aws.service_quotas"
#: Pages of quotas that are read at most, with a hundred each.
PAGES = 40


@attrs.frozen(kw_only=True)
class Quota:
    """A quota that is there: its name, its code, and what it allows."""

    name: str
    code: str
    value: float

    @property
    def hint(self) -> str:
        """What to do about one that is too small."""
        return f"ask for more in the console: Service Quotas, Amazon SageMaker, {self.name} ({self.code})"


def quota_name(kind: str, *, spot: bool) -> str:
    """Return what the quota of an instance type is called."""
    return f"{kind} for {'spot ' if spot else ''}training job usage"


def asking(*, region: str | None = None, pages: int = PAGES, token: str | None = None) -> Call:
    """Return the call that asks for quotas, from the first one on or from where a reply has ended."""
    parameters: dict[str, Any] = {"ServiceCode": "sagemaker", "MaxResults": 100, "pages": pages}
    if token:
        parameters["NextToken"] = token
    return Call(service=SERVICE, operation="list_service_quotas", parameters=parameters, region=region)


def quota_of(name: str, replies: Sequence[Mapping[str, Any]]) -> Quota | None:
    """Return the quota of a name, None if no reply has it."""
    for reply in replies:
        for row in reply.get("Quotas") or ():
            if row.get("QuotaName") == name and row.get("Value") is not None:
                return Quota(name=name, code=str(row.get("QuotaCode")), value=float(row["Value"]))
    return None


def beforehand(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that tells whether the plan's instances are allowed, None if that is known or not to be."""
    wanted = dict(_wanted(plan))
    if not wanted or len(replies) >= PAGES or all(quota_of(name, replies) for name in wanted):
        return None
    token = replies[-1].get("NextToken") if replies else None
    if replies and not token:
        return None
    # of a thousand names only one is looked for: no page is read behind it
    return asking(region=_job_of(plan).region, pages=1, token=token)


def refusal(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> NoCapacity | None:
    """Return the error of a plan that takes more instances than the account may have, None also if nobody knows."""
    for name, count in _wanted(plan):
        quota = quota_of(name, replies)
        if quota is not None and quota.value < count:
            message = f"the job takes {count} x {name.partition(' ')[0]}, and the quota {name!r} ({quota.code}) is"
            return NoCapacity(f"{message} {quota.value:g}", hint=quota.hint)
    return None


def _wanted(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield the names of the quotas that the plan's job counts against, and how much of them it takes."""
    request = _job_of(plan).parameters
    machines = request.get("ResourceConfig") or {}
    spot = request.get("EnableManagedSpotTraining") is True
    counts: Counter[str] = Counter()
    for group in machines.get("InstanceGroups") or [machines]:
        kind, count = group.get("InstanceType"), group.get("InstanceCount")
        if isinstance(kind, str) and isinstance(count, int):
            counts[kind] += count
    yield from ((quota_name(kind, spot=spot), count) for kind, count in counts.items())


def _job_of(plan: Plan) -> Step:
    return next(step for step in plan.steps if step.operation == "create_training_job")
