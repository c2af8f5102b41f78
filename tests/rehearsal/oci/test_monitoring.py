"""Numbers that jobs post, through the SDK."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.oci_place import OciPlace
from tests.rehearsal.oci.science import refused

pytest.importorskip("oci", reason="the oci SDK is not installed")
NOW = dt.datetime.now(dt.timezone.utc).replace(second=0, microsecond=0)


class Numbers:
    """The SDK's client, and a body of numbers."""

    def __init__(self, place: OciPlace) -> None:
        self.place, self.client = place, place.sdk("monitoring", "MonitoringClient")

    def series(self, *values: float, name: str = "gpu.utilization", **changes: Any) -> dict[str, Any]:
        points = [
            {"timestamp": (NOW + dt.timedelta(seconds=20 * at)).isoformat(), "value": value}
            for at, value in enumerate(values)
        ]
        one = {"namespace": "cloudtune", "compartmentId": self.place.compartment, "name": name, "datapoints": points}
        return {**one, "dimensions": {"gpu": "0", "node": "a"}, **changes}

    def post(self, *series: dict[str, Any], **more: Any) -> Any:
        return self.client.post_metric_data({"metricData": [*series], **more}).data

    def ask(self, query: str, **more: Any) -> list[Any]:
        asked = {"namespace": "cloudtune", "query": query, "endTime": (NOW + dt.timedelta(hours=1)).isoformat(), **more}
        found: list[Any] = self.client.summarize_metrics_data(self.place.compartment, asked).data
        return found

    def values(self, query: str) -> list[list[float]]:
        return [[point.value for point in one.aggregated_datapoints] for one in self.ask(query)]


@pytest.fixture
def numbers(place: OciPlace) -> Numbers:
    return Numbers(place)


def test_numbers_are_put_together_by_time_and_dimension(numbers: Numbers) -> None:
    other = numbers.series(9, dimensions={"gpu": "1", "node": "a"}, metadata={"unit": "percent"})
    assert numbers.post(numbers.series(1, 2, 3, 10), other).failed_metrics_count == 0
    assert numbers.values("gpu.utilization[1m].mean()") == [[2, 10], [9]]
    assert numbers.values('gpu.utilization[1m]{gpu = "1"}.max()') == [[9]]
    assert numbers.values('gpu.utilization[1m]{gpu != "1", node =~ "a|b*"}.sum()') == [[6, 10]]
    assert numbers.values("gpu.utilization[1h].groupBy(node).count()")[0][0] in (4, 5)
    assert numbers.values("gpu.utilization[1m].grouping().max()") == [[9, 10]]
    assert numbers.values("other[1m].max()") == []
    assert [one.metadata for one in numbers.ask('gpu.utilization[1m]{gpu = "1"}.last()')] == [{"unit": "percent"}]
    found = numbers.client.list_metrics(
        numbers.place.compartment, {"namespace": "cloudtune", "dimensionFilters": {"gpu": "1"}}
    )
    assert [(one.name, one.dimensions) for one in found.data] == [("gpu.utilization", {"gpu": "1", "node": "a"})]


def test_what_the_service_does_not_take_is_named(numbers: Numbers) -> None:
    old = numbers.series(1)
    old["datapoints"][0]["timestamp"] = (NOW - dt.timedelta(hours=3)).isoformat()
    bad = [old, numbers.series(1, namespace="oci_gpu"), numbers.series(1, name="1x"), numbers.series(1, dimensions={})]
    answer = numbers.post(numbers.series(1), *bad)
    assert answer.failed_metrics_count == 4
    assert [one.message.split()[0] for one in answer.failed_metrics] == [
        "timestamp",
        "namespace",
        "name",
        "dimensions:",
    ]
    assert numbers.values("gpu.utilization[1m].max()") == [[1]]
    with refused(400, "InvalidParameter"):
        numbers.post(numbers.series(2), *bad, batchAtomicity="ATOMIC")
    assert numbers.values("gpu.utilization[1m].max()") == [[1]]
    with refused(400, "InvalidParameter"):
        numbers.post(*(numbers.series(1, dimensions={"gpu": str(number)}) for number in range(51)))
    for query in ("gpu.utilization.mean()", "gpu.utilization[1m].mode()", "gpu.utilization[1m]{gpu}.mean()"):
        with refused(400, "InvalidParameter"):
            numbers.ask(query)
