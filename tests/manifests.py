"""Whether manifests are what the API takes: the checker and the published schemas beside the checkout."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stdout
from functools import cache
from typing import Any

from cloudtune.plan import Plan
from tests.conftest import SHARED

#: The kinds of jobs that a spec may ask for.
KINDS = ("job", "pyTorchJob", "trainJob", "jobSet")


def manifests(plan: Plan) -> list[dict[str, Any]]:
    """Return the objects of a plan, as its JSON shows them."""
    return [step["parameters"] for step in plan.to_dict()["steps"] if step["service"] == "kubernetes"]


def check(found: list[dict[str, Any]]) -> list[str]:
    """Return what the checker says of objects; the test that calls it skips where ``shared`` is absent."""
    module, table = _checker()
    return [f"{one['kind']}: {error}" for one in found for error in module.check(one, table)]


@cache
def _checker() -> tuple[Any, Any]:
    path = SHARED / "tools" / "check_manifests.py"
    spec = importlib.util.spec_from_file_location("check_manifests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with redirect_stdout(io.StringIO()):
        return module, module.load_schemas()
