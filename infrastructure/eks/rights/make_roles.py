"""Write roles.yaml from the table of rights: ``python infrastructure/eks/rights/make_roles.py``.

The rights are those of cloudtune/rights/kubernetes.json, by which errors and doctor name what is missing. A feature is
a Role in the namespace of the jobs, and a ClusterRole where some of it is of no namespace; a group has them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cloudtune.rights import Right, rights

PATH = Path(__file__).with_name("roles.yaml")
HEAD = """# What people who run jobs may do: a Role a feature, ClusterRoles for what is of no namespace, all of group
# cloudtune-users. Written by make_roles.py from cloudtune/rights/kubernetes.json; a test keeps it fresh.
"""
GROUP, NAMESPACE = "cloudtune-users", "training"
#: The secret that the examples name; add those of your jobs.
SECRET = "huggingface"  # noqa: S105 - its name
API = "rbac.authorization.k8s.io"


def rule(right: Right) -> dict[str, Any]:
    """Return a right as a rule of a role."""
    names = {"resourceNames": [name.replace("{secret}", SECRET) for name in right.names]} if right.names else {}
    return {**right.rule(), **names}


def roles() -> list[dict[str, Any]]:
    """Return the roles, and who has them."""
    found = [right for right in rights("kubernetes").values() if right.verbs and right.who == "users"]
    features = dict.fromkeys(right.feature for right in found)
    made: list[dict[str, Any]] = []
    for feature in features:
        for everywhere in (False, True):
            theirs = [right for right in found if right.feature == feature and right.cluster is everywhere]
            if theirs:
                made += [_role(feature, theirs, everywhere=everywhere), _binding(feature, everywhere=everywhere)]
    return made


def _metadata(feature: str, *, everywhere: bool) -> dict[str, Any]:
    place = {} if everywhere else {"namespace": NAMESPACE}
    return {"name": f"cloudtune-{feature}", **place, "labels": {"app.kubernetes.io/part-of": "cloudtune"}}


def _role(feature: str, theirs: list[Right], *, everywhere: bool) -> dict[str, Any]:
    return {
        "apiVersion": f"{API}/v1",
        "kind": "ClusterRole" if everywhere else "Role",
        "metadata": _metadata(feature, everywhere=everywhere),
        "rules": [rule(right) for right in theirs],
    }


def _binding(feature: str, *, everywhere: bool) -> dict[str, Any]:
    kind = "ClusterRole" if everywhere else "Role"
    return {
        "apiVersion": f"{API}/v1",
        "kind": f"{kind}Binding",
        "metadata": _metadata(feature, everywhere=everywhere),
        "roleRef": {"apiGroup": API, "kind": kind, "name": f"cloudtune-{feature}"},
        "subjects": [{"apiGroup": API, "kind": "Group", "name": GROUP}],
    }


def text() -> str:
    """Return the file."""
    return HEAD + yaml.safe_dump_all(roles(), sort_keys=False, default_flow_style=None, width=120, explicit_start=True)


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
