"""The lines of a job on Kubernetes: all of its pods merged, each line once and in order, with what becomes of the pods.

Reading is looking at the job, listing its pods, and reading what each of them wrote since a time, in turn: so pods that
come later, or again, are read too. What is found, and from when on is read next, is for
:mod:`cloudtune.backends.numbered`, which knows the agent's lines by their numbers and others by the time that the
kubelet gave them. A pod's log goes with the pod: of one that went before it was read to its end, that is said.

Times of the API (which are those of the control plane) and of logs (those of the nodes) are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from cloudtune.backends import eks_news as news
from cloudtune.backends import eks_objects as objects
from cloudtune.backends import numbered
from cloudtune.backends.eks_runs import is_finished, state_of, status_of
from cloudtune.backends.eks_words import name_of
from cloudtune.backends.numbered import Entry
from cloudtune.node.lines import parse_numbered
from cloudtune.plan import Call
from cloudtune.states import Handle, LogLine

#: Bytes of a pod's log in one reply, at first; a pod that writes more within a second is asked for more at once, up to
#: more than the size of the files that kubelets keep.
LIMIT_BYTES, MOST_BYTES = 1 << 20, 64 << 20
#: Seconds after the end of a job, or the last new line, after which a log that does not say so is taken for complete.
QUIET_S = 2.0
#: Seconds after the end of a job in which its pods' last lines are waited for.
DUE_S = 90.0
#: Seconds that somebody who does not follow waits at most for lines that are on their way.
PRESENT_S = 5.0
#: ``done`` are the logs that were read to their end, ``pods`` the names of the pods that go on, ``silent`` those of
#: them whose nodes do not answer, ``told`` what was said of pods, ``nodes`` their replicas and ``steps`` which of the
#: run's jobs they belong to, by uid.
_BEGINNING: dict[str, Any] = {
    "waits": None,
    "told": {},
    "done": [],
    "pods": {},
    "silent": [],
    "nodes": {},
    "steps": {},
    "each": [],
    "limit": LIMIT_BYTES,
    "ended": False,
}


def next_call(handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
    """Return the call that follows: a look at the job, at its pods, or into their logs."""
    cursor = cursor or {"next": "look"}
    if cursor["next"] == "look":
        return objects.get(handle, cursor=cursor)
    if cursor["next"] == "pods":
        return objects.pods(handle, cursor=cursor)
    at = cursor["lines"]["at"]
    since = {"sinceTime": _rfc3339(at)} if at >= 1 else {}
    each = [{name: value for name, value in one.items() if name != "key"} for one in cursor["each"]]
    shown = {"limitBytes": cursor["limit"], "timestamps": True, "absent": True, "follow": True}
    return objects.call("read_log", handle, each=each, cursor=cursor, **since, **shown)


def read(handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Return the lines of a reply to :func:`next_call`, and the cursor behind it."""
    before = reply["cursor"]
    now = float(reply["readAt"])
    cursor = {**_BEGINNING, "lines": numbered.beginning(0.0), "began": now, **before, "now": now}
    if before["next"] == "look":
        return (), _looked(handle, reply, cursor)
    return (_listed if before["next"] == "pods" else _searched)(handle, reply, cursor)


# --- the job and its pods


def _looked(handle: Handle, reply: Mapping[str, Any], cursor: dict[str, Any]) -> dict[str, Any]:
    """Read how the job is."""
    state = state_of(handle, reply)
    over = is_finished(handle, reply)
    reason = status_of(handle, reply).reason if over and state != "succeeded" else None
    job = {
        "finished": ((cursor.get("job") or {}).get("finished") or cursor["now"]) if over else None,
        "summary": f"Kubernetes: {state}" + (f": {reason}" if reason else ""),
        "succeeded": state == "succeeded",
        "held": objects.kind_of(handle).pods_by is not None and state == "pending",
        "layout": objects.layout(reply),
    }
    return {**cursor, "job": job, "next": "pods", "more": True, "caughtUp": False}


def _listed(
    handle: Handle, reply: Mapping[str, Any], cursor: dict[str, Any]
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Read which pods there are, what has become of them, and which logs are to be read."""
    job, now = cursor["job"], cursor["now"]
    there = {news.uid_of(pod): pod for pod in reply.get("items") or ()}
    held = job["held"] and not there
    waits, said = news.waits(there.values(), cursor["waits"], held=held)
    texts = [f"Kubernetes: {said}"] if said else []
    ends = dict(news.ends(there.values(), cursor["told"]))
    texts += ends.values()
    if job["finished"] is None:
        went = (name for uid, name in cursor["pods"].items() if uid not in there)
        texts += (f"pod {name} went while it ran: its node was lost, or somebody deleted it" for name in went)
    lost = [
        {**one, "gone": True, "whole": True}
        for one in cursor["each"]
        if one["uid"] not in there and not one["previous"] and one["key"] not in cursor["done"]
    ]
    words = {uid: text.split(" ", 2)[2] for uid, text in ends.items()}
    here = {*there, *(one["uid"] for one in lost)}
    done = [key for key in cursor["done"] if key.partition("/")[0] in here]
    state = {
        "waits": waits,
        "told": {uid: word for uid, word in {**cursor["told"], **words}.items() if uid in there},
        "done": done,
        "pods": {uid: name_of(pod) for uid, pod in there.items() if news.is_going(pod)},
        "silent": [uid for uid, pod in there.items() if news.is_silent(pod)],
        "nodes": {
            **{one["uid"]: cursor["nodes"].get(one["uid"]) for one in lost},
            **{uid: objects.replica_of(pod, job["layout"]) for uid, pod in there.items()},
        },
        "steps": {
            **{uid: step for uid, step in cursor["steps"].items() if uid in {one["uid"] for one in lost}},
            **{uid: step for uid, pod in there.items() if (step := objects.part_of(pod, job["layout"]))},
        },
        "each": [*lost, *(one for pod in there.values() for one in news.logs_of(pod, done))],
    }
    told = tuple(_own(now, text) for text in texts)
    cursor = {**cursor, **state, "next": "read", "more": True, "caughtUp": False}
    if state["each"]:
        return told, cursor
    found, cursor = _told(handle, [], cursor)
    return (*told, *found), cursor


def _own(time_s: float, text: str) -> LogLine:
    return LogLine(time=time_s, replica=None, rank=None, stream="agent", text=text)


# --- its lines


def _searched(
    handle: Handle, reply: Mapping[str, Any], cursor: dict[str, Any]
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Read what the pods wrote, as far as all of them were read."""
    own = objects.has_agent(handle) or bool(cursor["lines"]["of"])
    at, limit = float(cursor["lines"]["at"]), int(cursor["limit"])
    entries: list[Entry] = []
    cuts: list[float] = []
    closed: dict[str, int] = {}
    whole, missing = [], []
    answers = reply.get("replies") or ()
    for one, answer in zip(cursor["each"], answers, strict=False):
        text = str(answer.get("text") or "")
        is_cut = len(text) * 4 >= limit and len(text.encode(errors="replace")) >= limit
        of = {"replica": cursor["nodes"].get(one["uid"]), "step": cursor["steps"].get(one["uid"])}
        found = _entries(one, text, {"stream": "agent" if own else "stdout", **of}, is_cut=is_cut)
        if is_cut:
            cuts.append(found[-1].at if found else at)
        elif one["whole"]:
            whole.append(one["key"])
            if one["gone"] and not answer.get("whole"):
                missing.append(one)
            else:
                closed |= _last_number(found)
        entries += (entry for entry in found if entry.at >= at)
    cut = min(cuts, default=None)
    if cut is not None and int(cut) <= int(at) and limit < MOST_BYTES:
        # times are asked for in whole seconds: the rest of this one is not in such a piece
        return (), {**cursor, "limit": limit * 2, "next": "read", "more": True, "caughtUp": False}
    told, cursor = _told(handle, entries, {**cursor, "limit": LIMIT_BYTES}, cut=cut, closed=closed)
    if cut is None and not cursor["lines"]["waiting"]:
        cursor["done"] = [*cursor["done"], *whole]
        notes = [_own(cursor["now"], note) for note in _lost(missing, cursor)]
        return (*told, *notes), cursor
    return told, cursor


def _lost(missing: Sequence[Mapping[str, Any]], cursor: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is lost with pods that went before the end of their logs was read."""
    streams = cursor["lines"]["streams"]
    for one in missing:
        node = str(cursor["nodes"].get(one["uid"]))
        newest = max((name for name in streams if name.partition("@")[0] == node), default=None)
        if newest is None or not numbered.is_ended(cursor["lines"], newest):
            yield f"pod {one['name']} is gone and the end of its log with it: the agent keeps its own with the outputs"


def _told(
    handle: Handle,
    entries: list[Entry],
    cursor: dict[str, Any],
    *,
    cut: float | None = None,
    closed: Mapping[str, int] | None = None,
) -> tuple[tuple[LogLine, ...], dict[str, Any]]:
    """Return the lines that can be told of what was read, up to ``cut`` where a reply was, and what comes next."""
    job, now = cursor["job"], cursor["now"]
    if cut is not None:
        entries = [entry for entry in entries if entry.at <= cut]
    told, lines = numbered.take(
        entries, cursor["lines"], now=now, more=cut is not None, over=job["finished"], closed=closed
    )
    # where nothing was told of a piece, its lines have to wait a little
    again = lines["at"] > cursor["lines"]["at"] if cut is not None else bool(lines["again"])
    cursor = {**cursor, "lines": lines, "next": "read" if again else "look", "more": again}
    cursor["soon"] = job["finished"] is not None
    if again or cut is not None:
        return told, {**cursor, "caughtUp": False}
    if job["finished"] is None:
        present = not lines["waiting"] or now - cursor["began"] > PRESENT_S
        return told, {**cursor, "caughtUp": present}
    if not (cursor["ended"] or _is_over(cursor)):
        return told, {**cursor, "caughtUp": False}
    last = () if cursor["ended"] else (*_lacking(handle, cursor), _own(now, job["summary"]))
    return (*told, *last), {**cursor, "caughtUp": True, "ended": True}


def _is_over(cursor: Mapping[str, Any]) -> bool:
    """Whether nothing more will come: all nodes have said so, or no pod is left that could write."""
    job, lines, now = cursor["job"], cursor["lines"], cursor["now"]
    if numbered.ended(lines):
        return True
    since = now - job["finished"]
    if since <= DUE_S and (lines["waiting"] or cursor["pods"].keys() - set(cursor["silent"])):
        return False
    return bool(since > DUE_S or now - max(job["finished"], lines["news"]) >= QUIET_S)


def _lacking(handle: Handle, cursor: Mapping[str, Any]) -> Iterator[LogLine]:
    """Yield what is to be said of a log that is not known to be whole."""
    lines, now = cursor["lines"], cursor["now"]
    if numbered.ended(lines) or not objects.has_agent(handle):
        return
    if not lines["of"] and not cursor["nodes"]:
        yield _own(
            now, "this run's pods are gone, and their logs with them; the agent keeps its own beside the outputs"
        )
    elif cursor["job"]["succeeded"] and lines["of"]:
        yield _own(now, "the end of this log is missing: a pod went before its last lines were read")


def _entries(one: Mapping[str, Any], text: str, of: Mapping[str, Any], *, is_cut: bool) -> list[Entry]:
    """Return the lines of a container's log, each ``of`` its replica; the last of one that was cut may be a piece."""
    rows = text.split("\n")
    rows = rows[:-1] if is_cut or not rows[-1] else rows
    found: list[Entry] = []
    at, last = 0.0, ""
    start = one["key"].rpartition("/")[0]
    same: Counter[str] = Counter()  # lines of one moment need not follow each other
    for row in rows:
        stamp, _, words = row.partition(" ")
        time_s = objects.moment(stamp)
        if time_s is None:  # the kubelet's own words, of a log that it cannot read
            stamp, words = last, row
        else:
            at = time_s
        last = stamp
        found.append(Entry(id=f"{start}/{stamp}#{same[stamp]}", at=at, text=words, **of))
        same[stamp] += 1
    return found


def _last_number(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the number of an agent's last line, by the name of its stream: a container that ended says no more."""
    for entry in reversed(entries):
        line = parse_numbered(entry.text)
        if line is not None:
            return {numbered.stream_name(line): line.number}
    return {}


def _rfc3339(time_s: float) -> str:
    """Return a time in whole seconds, which is all that the API takes."""
    return datetime.fromtimestamp(int(time_s), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
