"""Tests of missing rights, also where the tests themselves run as root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml


@contextmanager
def as_somebody_else(folder: Path) -> Iterator[None]:
    """Give up root's right to read everything, for a while; the folder and those above it are opened first."""
    if os.geteuid() != 0:
        yield
        return
    for each in (folder, *folder.parents):
        if "pytest" in each.name or each.name.startswith("popen-") or each == folder:
            each.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def on_cluster(namespace: str, *features: str) -> set[str]:
    """Return what infrastructure/eks lets people do in a namespace, as the stand-in of clusters takes it.

    Without features it is all that they may do.
    """
    path = Path(__file__).parents[1] / "infrastructure" / "eks" / "rights" / "roles.yaml"
    found = set()
    for role in filter(None, yaml.safe_load_all(path.read_text())):
        if features and role["metadata"]["name"].removeprefix("cloudtune-") not in features:
            continue
        where = f"@{namespace}" if role["kind"] == "Role" else ""
        for rule in role.get("rules", ()):
            for resource in rule["resources"]:
                plural, slash, part = resource.partition("/")
                group = f".{rule['apiGroups'][0]}" if rule["apiGroups"][0] else ""
                found |= {f"{verb} {plural}{group}{slash}{part}{where}" for verb in rule["verbs"]}
    return found
