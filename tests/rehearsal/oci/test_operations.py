"""Every operation of the stand-in is one of the SDK's, with its method, its path, and the answer that it reads."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

from tests.oci_place import OciPlace

pytest.importorskip("oci", reason="the oci SDK is not installed")


def theirs(service: str, operation: str) -> tuple[str, str]:
    """Return method and path of an operation, with names of parameters left out, as the SDK sends them."""
    from cloudtune.clients.oci import CLIENTS

    for module, name in CLIENTS[service]:
        kind = getattr(import_module(f"oci.{module}"), name)
        if not hasattr(kind, operation):
            continue
        base = re.search(r"'base_path': '([^']*)'", inspect.getsource(kind.__init__))
        source = inspect.getsource(getattr(kind, operation))
        path, verb = (re.search(rf'{word} = "([^"]*)"', source) for word in ("resource_path", "method"))
        assert base is not None
        assert path is not None
        assert verb is not None
        return verb[1], _bare(base[1].rstrip("/") + path[1])
    raise AssertionError(f"the SDK has no {service} {operation}")


def _bare(template: str) -> str:
    return re.sub(r"\{\w+(\.\.\.)?\}", "{}", template).rstrip("/")


def test_operations_are_the_sdks_own(place: OciPlace) -> None:
    routes = [route for part in place.cloud._parts.values() for route in part.routes()]
    served = [route for _, route in place.stage.server._listeners["oci"].service._patterns]
    assert len(served) >= 40
    assert len({(route.method, _bare(route.template)) for route in routes}) == len(routes) == len(served)
    # what answers where a model is deployed is the model's own server, which the SDK does not know
    others = {"oci.model_deployment", "oci.auth"}
    for route in (route for route in served if route.service not in others):
        assert (route.method, _bare(route.template)) == theirs(route.service, route.operation)
