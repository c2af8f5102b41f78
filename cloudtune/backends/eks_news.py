"""What becomes of a run's pods, told between its lines: what they wait for, how they end, which went unread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudtune.backends import eks_words
from cloudtune.backends.eks_objects import conditions
from cloudtune.backends.eks_words import main_status, name_of


def uid_of(pod: Mapping[str, Any]) -> str:
    """Return what tells a pod from another of its name."""
    return str(pod["metadata"].get("uid") or name_of(pod))


def waits(pods: Iterable[Mapping[str, Any]], known: str | None, *, held: bool) -> tuple[str | None, str | None]:
    """Return why pods do not run, and what is to be said of that: None if it is ``known`` already.

    ``held`` is a job that has no pods because somebody holds it back.
    """
    word = "the job is suspended: a queue or somebody holds it back" if held else eks_words.together(pods)
    return word, word if word != known else None


def ends(pods: Iterable[Mapping[str, Any]], known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a pod's uid and how it ended, or its container before that, of those of which that is not ``known``."""
    for pod in pods:
        end, again = eks_words.ending(pod), eks_words.restarted(pod)
        words = end.words if end is not None else None
        if words is None and is_silent(pod):
            words = "is on a node that does not answer any more"
        if words is None and again is not None:
            count = (main_status(pod) or {}).get("restartCount")
            words = f"{again.words}; its container was started again ({count})"
        if words is not None and known.get(uid_of(pod)) != words:
            yield uid_of(pod), f"pod {name_of(pod)} {words}"


def logs_of(pod: Mapping[str, Any], done: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the logs of a pod that are to be read: of each container that has started, and of the start before it.

    ``key`` tells a start from others; ``whole`` says that nothing will be added to it.
    """
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        name, state = str(status.get("name")), status.get("state") or {}
        count = int(status.get("restartCount") or 0)
        tries = [(count, False, "terminated" in state)] if "waiting" not in state else []
        if (status.get("lastState") or {}).get("terminated"):
            tries.insert(0, (count - 1, True, True))
        for number, previous, whole in tries:
            key = f"{uid_of(pod)}/{name}/{number}"
            if key not in done:
                which = {"name": name_of(pod), "uid": uid_of(pod), "container": name, "previous": previous}
                yield {"key": key, **which, "start": number, "whole": whole, "gone": False}


def is_going(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has begun and not ended."""
    return main_status(pod) is not None and not eks_words.is_over(pod)


def is_silent(pod: Mapping[str, Any]) -> bool:
    """Return whether the node of a pod does not answer any more."""
    return any(one.get("type") == "Ready" and one.get("reason") == "NodeNotReady" for one in conditions(pod))
