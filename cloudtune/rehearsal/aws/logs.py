"""CloudWatch Logs: groups, streams and events; what jobs write can be read a little later.

Source: the service's API reference. A stream's end is known by a token that repeats; a page may be empty though more
follows; events of a stream are in the order of their times.
"""

from __future__ import annotations

import base64
import json
import random
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.rehearsal.aws.speech import invalid, page
from cloudtune.rehearsal.messages import Refused

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

#: Where SageMaker writes what its training jobs say.
TRAINING_GROUP = "/aws/sagemaker/TrainingJobs"
#: What one reply may have: events, and bytes with 26 for each event.
_MOST_EVENTS = 10_000
_MOST_BYTES = 1 << 20
_EVENT_BYTES = 26
#: A longer line is cut, as the nodes' log driver does.
_LINE_BYTES = 256 * 1024 - _EVENT_BYTES
#: Every so many pages of a stream one is empty.
_EMPTY = 5


@attrs.frozen
class _Event:
    """One event; times in milliseconds, ``shown_s`` by the stage's clock."""

    id: int
    time: int
    taken: int
    shown_s: float
    text: str


@attrs.define(kw_only=True)
class _Stream:
    """A stream of a group."""

    name: str
    created: int
    events: list[_Event] = attrs.field(factory=list)
    pages: int = 0

    def shown(self, now_s: float) -> int:
        """Return how many of its events can be read: they come in order."""
        count = len(self.events)
        while count and self.events[count - 1].shown_s > now_s:
            count -= 1
        return count


class Logs:
    """The service's operations, and how the rest of the stand-in writes to it."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self._chance = random.Random(cloud.delivery.seed)  # noqa: S311 - the same each time is the point
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], dict[str, _Stream]] = {}
        self._made: dict[tuple[str, str], int] = {}
        self._unseen: set[tuple[str, str]] = set()  # made by writing, with nothing in them that can be read yet
        self._next = 1
        self.operations: Mapping[str, Deed] = {
            "CreateLogGroup": self.create_group,
            "CreateLogStream": self.create_stream,
            "DeleteLogGroup": self.delete_group,
            "DeleteLogStream": self.delete_stream,
            "DescribeLogGroups": self.describe_groups,
            "DescribeLogStreams": self.describe_streams,
            "FilterLogEvents": self.filter_events,
            "GetLogEvents": self.get_events,
            "PutLogEvents": self.put_events,
        }

    def write(self, region: str, group: str, stream: str, lines: Iterable[tuple[float, str]]) -> None:
        """Write lines, each with its time in seconds, to a stream; it and its group are made as they are needed."""
        with self._lock:
            if (region, group) not in self._groups:
                self._unseen.add((region, group))
            streams = self._group_made(region, group)
            if stream not in streams:
                streams[stream] = _Stream(name=stream, created=self._now())
            self._add(streams[stream], ((int(time_s * 1000), text) for time_s, text in lines))

    def create_group(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Make a group."""
        with self._lock:
            if (asked.region, given["logGroupName"]) in self._groups:
                raise Refused(400, "ResourceAlreadyExistsException", "The specified log group already exists")
            self._group_made(asked.region, given["logGroupName"])

    def create_stream(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Make a stream."""
        with self._lock:
            streams = self._group(asked.region, given)
            if given["logStreamName"] in streams:
                raise Refused(400, "ResourceAlreadyExistsException", "The specified log stream already exists")
            streams[given["logStreamName"]] = _Stream(name=given["logStreamName"], created=self._now())

    def delete_group(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Delete a group and all that is in it."""
        with self._lock:
            self._group(asked.region, given)
            del self._groups[asked.region, given["logGroupName"]]

    def delete_stream(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Delete a stream."""
        with self._lock:
            self._stream(asked.region, given)
            del self._group(asked.region, given)[given["logStreamName"]]

    def put_events(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Write events, which must be in the order of their times."""
        events = [(int(one["timestamp"]), str(one["message"])) for one in given["logEvents"]]
        if events != sorted(events, key=lambda one: one[0]):
            message = "Log events in a single PutLogEvents request must be in chronological order."
            raise Refused(400, "InvalidParameterException", message)
        with self._lock:
            self._add(self._stream(asked.region, given), events)
        return {"nextSequenceToken": str(self._next)}

    def describe_groups(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return groups by the beginning of their names."""
        prefix = given.get("logGroupNamePrefix", "")
        with self._lock:
            names = sorted(name for where, name in self._groups if where == asked.region and name.startswith(prefix))
        rows = [
            {"logGroupName": name, "arn": self._arn(asked.region, name), "creationTime": self._made[asked.region, name]}
            for name in names
        ]
        return _page("logGroups", rows, given)

    def describe_streams(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a group's streams by the beginning of their names, or the latest first."""
        prefix, order = given.get("logStreamNamePrefix", ""), given.get("orderBy", "LogStreamName")
        if order == "LastEventTime" and prefix:
            message = "Cannot order by LastEventTime with a logStreamNamePrefix."
            raise Refused(400, "InvalidParameterException", message)
        now_s = self.cloud.stage.clock.time_s()
        with self._lock:
            streams = self._group(asked.region, given).values()
            found = [(one, one.shown(now_s)) for one in streams if one.name.startswith(prefix)]
            rows = [self._told(asked.region, given, one, count) for one, count in found if count or not one.events]
        key = "lastEventTimestamp" if order == "LastEventTime" else "logStreamName"
        rows.sort(key=lambda row: row.get(key, 0), reverse=bool(given.get("descending")))
        return _page("logStreams", rows, given)

    def get_events(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of a stream, from its end unless ``startFromHead``, or where a token says."""
        with self._lock:
            stream = self._stream(asked.region, given)
            shown = stream.shown(self.cloud.stage.clock.time_s())
            stream.pages += 1
            empty = self.cloud.delivery.empty_pages and stream.pages % _EMPTY == 0
            events = stream.events[:shown]
        limit = int(given.get("limit", _MOST_EVENTS))
        token = given.get("nextToken")
        direction, position = _read_token(token) if token else ("f" if given.get("startFromHead") else "b", None)
        if position is None:
            position = 0 if direction == "f" else shown
        position = min(position, shown)
        step = 1 if direction == "f" else -1
        low, high = given.get("startTime", 0), given.get("endTime", 1 << 62)
        rows: list[_Event] = []
        size, at = 0, position
        while not empty and 0 <= (index := at if step > 0 else at - 1) < shown and len(rows) < limit:
            event = events[index]
            size += len(event.text.encode()) + _EVENT_BYTES
            if rows and size > _MOST_BYTES:
                break
            if low <= event.time < high:
                rows.append(event)
            at += step
        more = empty and (position < shown if step > 0 else position > 0)
        start, end = sorted((position, at))
        # the end of a stream is where the token that was given comes back; that of an empty page is another one
        forward = _token("f", end, stream.pages if more and step > 0 else 0)
        backward = _token("b", start, stream.pages if more and step < 0 else 0)
        ordered = rows if step > 0 else rows[::-1]
        if token and not rows and not more:
            forward, backward = (token, backward) if step > 0 else (forward, token)
        shape = [{"timestamp": one.time, "message": one.text, "ingestionTime": one.taken} for one in ordered]
        return {"events": shape, "nextForwardToken": forward, "nextBackwardToken": backward}

    def filter_events(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return events of many streams in the order of their times, those with all words of the pattern."""
        names, prefix = given.get("logStreamNames"), given.get("logStreamNamePrefix", "")
        if names and prefix:
            raise Refused(400, "InvalidParameterException", "logStreamNames and logStreamNamePrefix exclude each other")
        low, high, words = given.get("startTime", 0), given.get("endTime", 1 << 62), _words(given)
        now_s = self.cloud.stage.clock.time_s()
        with self._lock:
            streams = [one for one in self._group(asked.region, given).values() if one.name.startswith(prefix)]
            chosen = [one for one in streams if names is None or one.name in names]
            found = [
                (event.time, event.id, one.name, event)
                for one in chosen
                # a stream is in the order of its times: what is before is not looked at
                for event in one.events[bisect_left(one.events, low, key=_time) : one.shown(now_s)]
                if low <= event.time < high and all(word in event.text for word in words)
            ]
        found.sort(key=lambda row: row[:2])
        after = _read_place(given["nextToken"]) if "nextToken" in given else (-1, -1)
        rest = [row for row in found if row[:2] > after]
        rows: list[dict[str, Any]] = []
        size = 0
        for time, number, name, event in rest[: int(given.get("limit", _MOST_EVENTS))]:
            size += len(event.text.encode()) + _EVENT_BYTES
            if rows and size > _MOST_BYTES:
                break
            row = {"logStreamName": name, "timestamp": time, "message": event.text, "ingestionTime": event.taken}
            rows.append({**row, "eventId": f"{number:056d}"})
        out: dict[str, Any] = {"events": rows, "searchedLogStreams": []}
        if len(rows) < len(rest):
            last = rest[len(rows) - 1]
            out["nextToken"] = base64.urlsafe_b64encode(json.dumps(last[:2]).encode()).decode()
        return out

    def _add(self, stream: _Stream, events: Iterable[tuple[int, str]]) -> None:
        delivery, clock = self.cloud.delivery, self.cloud.stage.clock
        taken = self._now()
        shown_s = clock.time_s() + self._chance.uniform(delivery.least_s, delivery.most_s)
        if stream.events:
            shown_s = max(shown_s, stream.events[-1].shown_s)
        for time, text in events:
            kept = text.encode()[:_LINE_BYTES].decode(errors="ignore")
            if not kept:
                continue  # an event is never empty: the nodes' log driver leaves such lines out
            stream.events.append(_Event(self._next, time, taken, shown_s, kept))
            self._next += 1

    def _group_made(self, region: str, name: str) -> dict[str, _Stream]:
        if (region, name) not in self._groups:
            self._groups[region, name] = {}
            self._made[region, name] = self._now()
        return self._groups[region, name]

    def _group(self, region: str, given: Mapping[str, Any]) -> dict[str, _Stream]:
        name = given.get("logGroupName") or str(given.get("logGroupIdentifier", "")).partition(":log-group:")[2]
        streams, now_s = self._groups.get((region, name)), self.cloud.stage.clock.time_s()
        if streams is not None and (region, name) in self._unseen and any(one.shown(now_s) for one in streams.values()):
            self._unseen.discard((region, name))
        if streams is None or (region, name) in self._unseen:
            raise Refused(400, "ResourceNotFoundException", "The specified log group does not exist.")
        return streams

    def _stream(self, region: str, given: Mapping[str, Any]) -> _Stream:
        found = self._group(region, given).get(given["logStreamName"])
        if found is None or (found.events and not found.shown(self.cloud.stage.clock.time_s())):
            raise Refused(400, "ResourceNotFoundException", "The specified log stream does not exist.")
        return found

    def _told(self, region: str, given: Mapping[str, Any], stream: _Stream, count: int) -> dict[str, Any]:
        group = given.get("logGroupName") or given["logGroupIdentifier"]
        arn = f"{self._arn(region, group).removesuffix(':*')}:log-stream:{stream.name}"
        row: dict[str, Any] = {"logStreamName": stream.name, "creationTime": stream.created, "arn": arn}
        if count:
            last = stream.events[count - 1]
            times = {"firstEventTimestamp": stream.events[0].time, "lastEventTimestamp": last.time}
            row |= {**times, "lastIngestionTime": last.taken, "uploadSequenceToken": str(last.id)}
        return {**row, "storedBytes": 0}

    def _arn(self, region: str, group: str) -> str:
        return f"arn:aws:logs:{region}:{self.cloud.account}:log-group:{group}:*"

    def _now(self) -> int:
        return int(self.cloud.now_s() * 1000)


def _page(name: str, rows: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    rows, more = page(rows, given, usual=50, names=("limit", "nextToken"), code="InvalidParameterException")
    return {name: rows, **more}


def _time(event: _Event) -> int:
    return event.time


def _token(direction: str, position: int, nonce: int) -> str:
    return f"{direction}/{position:056d}/{nonce or 's'}"


def _read_token(token: str) -> tuple[str, int]:
    found = re.fullmatch(r"([fb])/(\d{56})/(?:\d+|s)", token)
    if found is None:
        raise Refused(400, "InvalidParameterException", "The specified nextToken is invalid.")
    return found[1], int(found[2])


def _read_place(token: str) -> tuple[int, int]:
    try:
        time, number = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise Refused(400, "InvalidParameterException", "The specified nextToken is invalid.") from None
    return int(time), int(number)


def _words(given: Mapping[str, Any]) -> list[str]:
    """Return the words of a filter pattern; of its language the stand-in knows words and quoted texts alone."""
    pattern = given.get("filterPattern", "").strip()
    if pattern.startswith(("{", "[", "%", "?", "-")):
        raise invalid(f"rehearsed CloudWatch Logs knows no such pattern: {pattern}")
    return [one.strip('"') for one in re.findall(r'"[^"]*"|\S+', pattern)]
