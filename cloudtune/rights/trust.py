"""Whom the trust policy of a role in AWS lets take it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ACTIONS = frozenset({"sts:assumerole", "sts:*", "*"})


def trusts(policy: Mapping[str, Any], service: str) -> bool:
    """Whether a trust policy lets a service take on its role; what a condition asks besides is not looked at.

    >>> trusts({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:*"}}, "bedrock.amazonaws.com")
    True
    """
    return any(
        one.get("Effect") == "Allow"
        and service in _services(one.get("Principal"), service)
        and _ACTIONS & {str(action).lower() for action in _listed(one.get("Action", []))}
        for one in _listed(policy.get("Statement", []))
    )


def _services(principal: Any, service: str) -> list[Any]:
    """Return the services that a statement names; everybody is the one that is asked for, too."""
    if isinstance(principal, Mapping):
        return _listed(principal.get("Service", []))
    return [service] if principal == "*" else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
