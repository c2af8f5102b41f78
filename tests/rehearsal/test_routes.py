"""Which request is which operation."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message

import pytest

from cloudtune.rehearsal.messages import Body, Refused, Request, Response
from cloudtune.rehearsal.routes import Route, Service

TEMPLATES = {
    "get_bucket": "/n/{namespace}/b/{bucket}",
    "get_object": "/n/{namespace}/b/{bucket}/o/{name...}",
    "list_objects": "/n/{namespace}/b/{bucket}/o",
    "get_job": "/20190101/jobs/{id}",
    "list_shapes": "/20190101/jobs/shapes",
    "cancel": "/20190101/jobs/{id}/actions/cancel",
    "dotted": "/v1.0/x",
}


def route(operation: str, template: str, method: str = "GET") -> Route:
    return Route(method=method, template=template, operation=operation, handler=lambda _: Response())


def request(target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Request:
    message = Message()
    for name, value in (headers or {}).items():
        message[name] = value
    return Request(method=method, target=target, headers=message, body=Body(lambda _: b""))


@pytest.mark.parametrize(
    ("target", "operation", "params"),
    [
        ("/n/ns/b/bucket", "get_bucket", {"namespace": "ns", "bucket": "bucket"}),
        ("/n/ns/b/bucket/o?prefix=a/b", "list_objects", {"namespace": "ns", "bucket": "bucket"}),
        ("/n/ns/b/b/o/a/b%2Fc%20d/", "get_object", {"namespace": "ns", "bucket": "b", "name": "a/b/c d/"}),
        ("/20190101/jobs/shapes", "list_shapes", {}),
        ("/20190101/jobs/ocid1.x%2Fy", "get_job", {"id": "ocid1.x/y"}),
        ("/20190101/jobs/a/actions/cancel", "cancel", {"id": "a"}),
        ("/v1.0/x", "dotted", {}),
    ],
)
def test_a_request_finds_its_route(target: str, operation: str, params: dict[str, str]) -> None:
    asked = request(target)
    found = Service("all", [route(*each) for each in TEMPLATES.items()]).find(asked)
    assert (found.operation, asked.params) == (operation, params)


@pytest.mark.parametrize("target", ["/v1x0/x", "/n/ns/b/", "/20190101/jobs", "/"])
def test_a_request_without_a_route_is_refused(target: str) -> None:
    with pytest.raises(Refused) as caught:
        Service("all", [route(*each) for each in TEMPLATES.items()]).find(request(target))
    assert caught.value.status == 404


def test_one_operation_may_have_several_paths() -> None:
    both = Service("pods", [route("list", "/pods"), route("list", "/namespaces/{namespace}/pods")])
    assert [both.find(request(path)).template for path in ("/pods", "/namespaces/a/pods")] == [
        "/pods",
        "/namespaces/{namespace}/pods",
    ]


def test_a_header_may_name_the_operation() -> None:
    def choose(asked: Request, routes: Mapping[str, Route]) -> Route | None:
        return routes.get(asked.header("X-Amz-Target").partition(".")[2])

    service = Service("sagemaker", [route("CreateTrainingJob", "/", "POST")], choose=choose)
    target = {"x-amz-target": "SageMaker.CreateTrainingJob"}
    assert service.find(request("/", method="POST", headers=target)).operation == "CreateTrainingJob"
    with pytest.raises(Refused):
        service.find(request("/", method="POST"))


def test_a_query_is_read() -> None:
    asked = request("/x?a=1&a=2&b=&c=%2F+")
    assert asked.query == {"a": "2", "b": "", "c": "/ "}
    assert asked.queries == (("a", "1"), ("a", "2"), ("b", ""), ("c", "/ "))
    assert (asked.path, asked.header("none", "default")) == ("/x", "default")
