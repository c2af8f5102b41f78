"""Monitoring: numbers that jobs post, and queries over them."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.lists import page_of
from cloudtune.rehearsal.oci.speech import moment, read_moment
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20180401"
#: Of one request; and seconds around now in which a number must lie.
MOST_STREAMS, MOST_DIMENSIONS = 50, 20
OLDEST_S, NEWEST_S = 2 * 3600.0, 600.0
_NAMESPACE = re.compile(r"[A-Za-z]\w{0,255}", re.ASCII)
_NAME = re.compile(r"[A-Za-z][\w.$-]{0,254}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,256}")
_RESERVED = ("oci_", "oracle_")
_QUERY = re.compile(
    r"\s*(?P<name>[A-Za-z][\w.$-]*)\s*\[\s*(?P<interval>\d+[smhd])\s*\]\s*(?:\{(?P<where>[^}]*)\}\s*)?"
    r"(?:\.\s*(?P<grouping>grouping|groupBy)\s*\((?P<by>[^)]*)\)\s*)?\.\s*(?P<statistic>\w+)\s*\(\s*\)\s*"
)
_FILTER = re.compile(r'\s*(?P<key>[!-~]+?)\s*(?P<sign>=~|!=|=)\s*"(?P<value>(?:[^"\\]|\\.)*)"\s*(?:,|$)')
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "avg": lambda values: sum(values) / len(values),
    "sum": sum,
    "min": min,
    "max": max,
    "count": len,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}


@attrs.frozen(kw_only=True)
class Metric:
    """One number: whose, of what, when. Numbers of equal ``stream`` belong together."""

    compartment: str
    namespace: str
    group: str | None
    name: str
    dimensions: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    time_s: float
    value: float
    count: int

    @property
    def stream(self) -> tuple[Any, ...]:
        """What tells numbers of one kind from others."""
        return self.compartment, self.namespace, self.group, self.name, self.dimensions


class Monitoring:
    """The numbers of all compartments."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self._metrics: list[Metric] = []
        self._lock = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        metrics = f"{BASE}/metrics"
        rows = (
            ("POST", metrics, "post_metric_data", self.post),
            ("POST", f"{metrics}/actions/listMetrics", "list_metrics", self.find),
            ("POST", f"{metrics}/actions/summarizeMetricsData", "summarize_metrics_data", self.summarize),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All numbers, in the order in which they came."""
        with self._lock:
            return tuple(self._metrics)

    def post(self, request: Request) -> Response:
        """Take numbers; those that cannot be are named, and with ``ATOMIC`` none is taken then."""
        given = checked_body(request, "PostMetricDataDetails", of="monitoring")
        if len({_stream_of(one) for one in given["metricData"]}) > MOST_STREAMS:
            raise Refused(400, "InvalidParameter", f"metricData: at most {MOST_STREAMS} unique metric streams")
        taken: list[Metric] = []
        failed = []
        for one in given["metricData"]:
            try:
                taken += self._checked(one)
            except Refused as why:
                failed.append({"message": why.message, "metricData": one})
        if failed and given.get("batchAtomicity") == "ATOMIC":
            raise Refused(400, "InvalidParameter", failed[0]["message"])
        with self._lock:
            self._metrics += taken
        return json_response({"failedMetricsCount": len(failed), "failedMetrics": failed})

    def find(self, request: Request) -> Response:
        """Return which metrics there are."""
        given = checked_body(request, "ListMetricsDetails", of="monitoring")
        check_query(request, ("limit", "page", "compartmentIdInSubtree"), required=("compartmentId",))
        streams = {one.stream: one for one in self._of(request, given) if given.get("name") in (None, one.name)}
        wanted = given.get("dimensionFilters", {}).items()
        shown = [_shown(one) for one in streams.values() if wanted <= dict(one.dimensions).items()]
        part, headers = page_of(request, shown)
        return json_response(part, headers=headers)

    def summarize(self, request: Request) -> Response:
        """Return numbers put together by time and, where the query groups them, by dimension."""
        given = checked_body(request, "SummarizeMetricsDataDetails", of="monitoring")
        check_query(request, ("compartmentIdInSubtree",), required=("compartmentId",))
        query = _read(given["query"])
        now_s = self.cloud.now_s()
        start_s = read_moment("startTime", given["startTime"]) if "startTime" in given else now_s - 3 * 3600
        end_s = read_moment("endTime", given["endTime"]) if "endTime" in given else now_s
        groups: defaultdict[tuple[Any, ...], list[Metric]] = defaultdict(list)
        for one in self._of(request, given):
            if start_s <= one.time_s <= end_s and query.fits(one):
                groups[query.group(one)].append(one)
        return json_response([query.summary(metrics) for metrics in groups.values()])

    def _of(self, request: Request, given: Mapping[str, Any]) -> Iterable[Metric]:
        wanted = {"compartment": request.query["compartmentId"], "namespace": given.get("namespace")}
        if "resourceGroup" in given:
            wanted["group"] = given["resourceGroup"]
        return (one for one in self.metrics if all(value in (None, getattr(one, key)) for key, value in wanted.items()))

    def _checked(self, one: Mapping[str, Any]) -> list[Metric]:
        if not _NAMESPACE.fullmatch(one["namespace"]) or one["namespace"].startswith(_RESERVED):
            raise Refused(400, "InvalidParameter", f"namespace {one['namespace']!r} is invalid or reserved")
        if not _NAME.fullmatch(one["name"]):
            raise Refused(400, "InvalidParameter", f"name {one['name']!r} is invalid")
        dimensions = one["dimensions"]
        whole = all(_KEY.fullmatch(key) and 1 <= len(value) <= 512 for key, value in dimensions.items())
        if not 1 <= len(dimensions) <= MOST_DIMENSIONS or not whole:
            raise Refused(400, "InvalidParameter", f"dimensions: 1 to {MOST_DIMENSIONS}, none empty, none too long")
        self.cloud.check_exists("compartmentId", one["compartmentId"], "compartment", "tenancy")
        now_s = self.cloud.now_s()
        common = {
            "compartment": one["compartmentId"],
            "namespace": one["namespace"],
            "group": one.get("resourceGroup"),
            "name": one["name"],
            "dimensions": tuple(sorted(dimensions.items())),
            "metadata": tuple(sorted(one.get("metadata", {}).items())),
        }
        found = []
        for point in one["datapoints"]:
            time_s = read_moment("timestamp", point["timestamp"])
            if not now_s - OLDEST_S <= time_s <= now_s + NEWEST_S:
                raise Refused(400, "InvalidParameter", f"timestamp {point['timestamp']} is too old or not yet")
            found.append(Metric(**common, time_s=time_s, value=float(point["value"]), count=point.get("count", 1)))
        return found


@attrs.frozen(kw_only=True)
class _Query:
    """A query that was understood; ``by`` is None for the metric's own dimensions, () for none."""

    name: str
    interval_s: int
    filters: tuple[tuple[str, str, str], ...]
    by: tuple[str, ...] | None
    statistic: str

    def fits(self, one: Metric) -> bool:
        dimensions = dict(one.dimensions)
        return one.name == self.name and all(
            _compare(sign, dimensions.get(key), value) for key, sign, value in self.filters
        )

    def group(self, one: Metric) -> tuple[Any, ...]:
        return one.stream if self.by is None else tuple(dict(one.dimensions).get(key) for key in self.by)

    def summary(self, metrics: Sequence[Metric]) -> dict[str, Any]:
        times: defaultdict[float, list[float]] = defaultdict(list)
        for one in sorted(metrics, key=lambda each: each.time_s):
            times[one.time_s // self.interval_s * self.interval_s] += [one.value] * one.count
        first = _shown(metrics[0])
        if self.by is not None:
            first["dimensions"] = {key: first["dimensions"][key] for key in self.by if key in first["dimensions"]}
        points = [
            {"timestamp": moment(time_s), "value": _STATISTICS[self.statistic](values)}
            for time_s, values in sorted(times.items())
        ]
        return {**first, "metadata": dict(metrics[0].metadata), "aggregatedDatapoints": points}


def _read(text: str) -> _Query:
    found = _QUERY.fullmatch(text)
    if found is None:
        raise Refused(400, "InvalidParameter", f"query: {text!r} is not METRIC[INTERVAL]{{FILTERS}}.STATISTIC()")
    if found["statistic"] not in _STATISTICS:
        known = ", ".join(_STATISTICS)
        raise Refused(400, "InvalidParameter", f"query: a rehearsed statistic is one of {known}")
    by: tuple[str, ...] | None = None
    if found["grouping"]:
        by = tuple(word.strip() for word in (found["by"] or "").split(",") if word.strip())
    return _Query(
        name=found["name"],
        interval_s=int(found["interval"][:-1]) * _SECONDS[found["interval"][-1]],
        filters=_filters(found["where"] or ""),
        by=by,
        statistic=found["statistic"],
    )


def _filters(text: str) -> tuple[tuple[str, str, str], ...]:
    found, at = [], 0
    while text[at:].strip():
        part = _FILTER.match(text, at)
        if part is None:
            raise Refused(400, "InvalidParameter", f'query: {text[at:]!r} is not DIMENSION = "VALUE"')
        found.append((part["key"], part["sign"], re.sub(r"\\(.)", r"\1", part["value"])))
        at = part.end()
    return tuple(found)


def _compare(sign: str, ours: str | None, theirs: str) -> bool:
    if sign == "=~":
        patterns = (".*".join(map(re.escape, choice.split("*"))) for choice in theirs.split("|"))
        return ours is not None and any(re.fullmatch(pattern, ours) for pattern in patterns)
    return (ours == theirs) == (sign == "=")


def _stream_of(one: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("compartmentId", "namespace", "resourceGroup", "name")
    return (*(one.get(name) for name in names), *sorted(one["dimensions"].items()))


def _shown(one: Metric) -> dict[str, Any]:
    shown = {
        "namespace": one.namespace,
        "compartmentId": one.compartment,
        "name": one.name,
        "dimensions": dict(one.dimensions),
    }
    return {**shown, "resourceGroup": one.group} if one.group else shown
