"""Logging Search: what was written to logs, as the service gives it: late, some of it twice, in no order of arrival."""

from __future__ import annotations

import bisect
import json
import random
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.nodes import Line
from cloudtune.rehearsal.oci.lists import page_asked_for, page_of
from cloudtune.rehearsal.oci.log_query import Path, Query, read_query
from cloudtune.rehearsal.oci.logs import GROUP, LOG
from cloudtune.rehearsal.oci.speech import moment, read_moment
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20190909"
#: Results on a page at most, and where the client does not say.
MOST, USUAL = 1000, 100
#: A page that would be longer is refused; the service does so too, at a size that it does not tell.
MOST_BYTES = 10 << 20
WINDOW_S = 14 * 24 * 3600.0
_TYPE = "com.oraclecloud.datascience.jobrun"


@attrs.frozen(kw_only=True)
class Entry:
    """One entry of a log: what was written, when, and from when on it can be found.

    ``time_ms`` is since 1970; ``number`` is the entry's id, which its second copy has too; ``lot`` decides about the
    order of entries of the same moment.
    """

    time_ms: int
    stream: str
    text: str
    source: str
    number: int
    found_s: float
    lot: float

    def data(self, about: Mapping[str, str]) -> dict[str, Any]:
        """Return the entry as the service gives it; ``about`` are the log and what it is in."""
        content = {
            "data": {"message": self.text},
            "id": str(uuid.UUID(int=self.number, version=4)),
            "oracle": {**about, "ingestedtime": moment(self.time_ms / 1000 + 1)},
            "source": self.source,
            "specversion": "1.0",
            "time": moment(self.time_ms / 1000),
            "type": f"{_TYPE}.{self.stream}",
        }
        return {"datetime": self.time_ms, "logContent": content}

    def look(self, about: Mapping[str, str], path: Path) -> Any:
        """Return a field; those that are asked for of every entry at once."""
        if path == ("datetime",):
            return self.time_ms
        if path == ("source",):
            return self.source
        if path == ("data", "message"):
            return self.text
        data = self.data(about)
        value: Any = data if path[0] == "logContent" else data["logContent"]
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


_OLDEST_FIRST = ((("datetime",), False),)
#: Entries, each with what is said of its log.
Found = list[tuple[Entry, Mapping[str, str]]]


class LogSearch:
    """What is in the logs, and searching it."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self._entries: dict[str, list[Entry]] = {}  # of each log, by time; of a moment by lot
        self._chance = random.Random(cloud.delivery.seed)  # noqa: S311 - a rehearsal that can be repeated
        self._lock = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operation."""
        return [Route(method="POST", template=f"{BASE}/search", operation="search_logs", handler=self.search)]

    def write(self, log_id: str, source: str, lines: Sequence[Line]) -> None:
        """Write lines of a job run to a log."""
        how, chance, now = self.cloud.delivery, self._chance, self.cloud.stage.clock.time_s()
        with self._lock:
            kept = self._entries.setdefault(log_id, [])
            for line in lines:
                number = chance.getrandbits(128)
                for _ in range(2 if chance.random() < how.twice else 1):
                    entry = Entry(
                        time_ms=int(line.time_s * 1000),
                        stream=line.stream,
                        text=line.text,
                        source=source,
                        number=number,
                        found_s=now + chance.uniform(how.least_s, how.most_s),
                        lot=chance.random(),
                    )
                    bisect.insort(kept, entry, key=_place)

    def search(self, request: Request) -> Response:
        """Return a page of what can be found by now."""
        check_query(request, ("limit", "page"))
        details = checked_body(request, "SearchLogsDetails", of="loggingsearch")
        start = read_moment("timeStart", details["timeStart"])
        end = read_moment("timeEnd", details["timeEnd"])
        if end - start < 0.001:
            raise Refused(400, "InvalidParameter", "timeEnd must be later than timeStart")
        if end - start > WINDOW_S:
            raise Refused(400, "InvalidParameter", "timeStart must be within 14 days of timeEnd")
        about = json.dumps([details["searchQuery"], details["timeStart"], details["timeEnd"]])
        _, last = page_asked_for(request, most=MOST, usual=USUAL, about=about)
        entries = self._found(details["searchQuery"], start, end, most=last + 1)
        page, headers = page_of(request, entries, most=MOST, usual=USUAL, about=about)
        results = [{"data": entry.data(place)} for entry, place in page]
        summary = {"resultCount": len(results), "fieldCount": 0}
        answer = json_response({"results": results, "fields": [], "summary": summary}, headers=headers)
        if isinstance(answer.body, bytes) and len(answer.body) > MOST_BYTES:
            raise Refused(400, "InvalidParameter", "search result is too large: ask for less, or for a shorter time")
        return answer

    def _found(self, text: str, start: float, end: float, *, most: int) -> Found:
        """Return what fits, in the query's order, ``most`` at least if there are so many; of a moment in any order."""
        query, now = read_query(text), self.cloud.stage.clock.time_s()
        logs, found = self._logs(query), Found()
        ready = query.order == _OLDEST_FIRST and len(logs) == 1  # as the entries are kept
        for log in logs:
            about = {
                "compartmentid": log.data["compartmentId"],
                "loggroupid": log.data["logGroupId"],
                "logid": log.id,
                "tenantid": self.cloud.principals.tenancy,
            }
            with self._lock:
                kept = self._entries.get(log.id, [])
                edges = (round(time_s * 1000, 2) for time_s in (start, end))
                first, last = (bisect.bisect_left(kept, edge, key=_time_ms) for edge in edges)
                among = kept[first:last]
            fits = (entry for entry in among if entry.found_s <= now and query.test(partial(entry.look, about)))
            found += [(entry, about) for entry in islice(fits, most if ready else None)]
        if not ready:
            _sort(found, query)
        return found

    def _logs(self, query: Query) -> list[Resource]:
        """Return the logs of the query's streams; groups and logs may be named by OCID or by name."""
        store = self.cloud.stage.store
        groups = {group.id: group.data for group in store.all(GROUP)}
        found = []
        for log in store.all(LOG):
            group = groups[log.data["logGroupId"]]
            names = ((group["compartmentId"],), (group["id"], group["displayName"]), (log.id, log.data["displayName"]))
            for stream in query.streams:
                if all(part in known for part, known in zip(stream, names, strict=False)):
                    found.append(log)
                    break
        return found


def _time_ms(entry: Entry) -> int:
    return entry.time_ms


def _place(entry: Entry) -> tuple[int, float]:
    return entry.time_ms, entry.lot


def _sort(found: Found, query: Query) -> None:
    if len(query.order) == 1 and query.order[0][0] == ("datetime",):
        found.sort(key=lambda pair: (pair[0].time_ms, pair[0].lot), reverse=query.order[0][1])
        return
    found.sort(key=lambda pair: pair[0].lot)
    for path, greatest_first in reversed(query.order):
        found.sort(key=partial(_key, path), reverse=greatest_first)


def _key(path: Path, pair: tuple[Entry, Mapping[str, str]]) -> tuple[int, float, str]:
    return _sortable(pair[0].look(pair[1], path))


def _sortable(value: Any) -> tuple[int, float, str]:
    """Return a key by which values of any kind can be compared; null comes first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    return (2, 0.0, str(value))
