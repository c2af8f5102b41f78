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


@pytest.mark.parametrize(
    "operation",
    [
        "list_jobs",
        "list_job_runs",
        "list_models",
        "list_model_version_sets",
        "list_model_deployments",
        "list_work_requests",
    ],
)
def test_lists_are_sorted_and_cut_as_the_sdk_describes(operation: str, place: OciPlace) -> None:
    import oci

    ask = getattr(place.sdk("data_science", "DataScienceClient"), operation)
    words = inspect.getdoc(ask) or ""
    sorts = re.search(r":param str sort_by:.*?Allowed values are: (.*?)\n", words, re.DOTALL)
    most = re.search(r":param int limit:.*?(\d+) is the maximum", words, re.DOTALL)
    assert sorts is not None
    assert most is not None
    for word in re.findall(r'"(\w+)"', sorts[1]):
        assert ask(place.compartment, sort_by=word, limit=int(most[1])).status == 200
    with pytest.raises(oci.exceptions.ServiceError, match="limit must be a number from 1 to"):
        ask(place.compartment, limit=int(most[1]) + 1)
