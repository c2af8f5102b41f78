"""Every operation of the stand-in is one of the SDK's, with its method, its path, and the answer that it reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.oci_place import OciPlace

pytest.importorskip("oci", reason="the oci SDK is not installed")


def theirs() -> Iterator[tuple[str, str, str, str]]:
    """Yield service, operation, method and path, with names of parameters left out, as the SDK sends them."""
    from cloudtune.clients.oci import CLIENTS

    for service, classes in CLIENTS.items():
        for module, name in classes:
            kind = getattr(import_module(f"oci.{module}"), name)
            base = re.search(r"'base_path': '([^']*)'", inspect.getsource(kind.__init__))
            assert base is not None
            for operation, method in inspect.getmembers(kind, inspect.isfunction):
                source = inspect.getsource(method)
                path = re.search(r'resource_path = "([^"]*)"', source)
                verb = re.search(r'method = "([^"]*)"', source)
                if path and verb:
                    yield service, operation, verb[1], _bare(base[1].rstrip("/") + path[1])


def _bare(template: str) -> str:
    return re.sub(r"\{\w+(\.\.\.)?\}", "{}", template).rstrip("/")


def test_operations_are_the_sdks_own(place: OciPlace) -> None:
    known = {(service, operation): (method, path) for service, operation, method, path in theirs()}
    routes = [route for part in place.cloud._parts.values() for route in part.routes()]
    served = [route for _, route in place.stage.server._listeners["oci"].service._patterns]
    assert len(served) >= 40
    assert len({(route.method, _bare(route.template)) for route in routes}) == len(routes) == len(served)
    for route in served:
        assert (route.method, _bare(route.template)) == known[route.service, route.operation], route.operation
