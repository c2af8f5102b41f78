"""Carries out any plan: one step after the other, its intent journaled before it is sent and its reply after.

Killed at any moment and called again with the same journal, it neither repeats nor forgets: a step that is done is not
sent again, a step whose reply was lost is sent again with the same token, which its service takes for the same request.
A step that fails for good takes the steps before it back, and the error says what could not be taken back; killed
meanwhile, it goes on with that when it is called again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.plan import (
    OMITTED,
    Call,
    File,
    FromShell,
    IfGiven,
    Leaf,
    Masked,
    Plan,
    Ref,
    Step,
    Until,
    leaves,
    substitute,
)
from cloudtune.store import Entry

Reply = Mapping[str, Any]
#: Operations that leave nothing behind.
_READS = ("get_", "list_", "head_", "describe_", "search_")
#: Seconds without an answer after which that is said: a client tries again for minutes when a network is down.
_SILENT_S = 15.0
#: Called with a step's id and what is happening to it.
Progress = Callable[[str, str], None]


class Client(Protocol):
    """Who sends: carries out calls of one service family. The only place where an SDK may be imported.

    A client may also have ``make_ready(plan)``, called with what is left of a plan before anything of it is sent,
    ``clean_up()``, called when nothing more of it will be, and ``look_s``, the seconds between two looks at its place,
    at first and at most.
    """

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Reply:
        """Carry out a change; a second call with the same token changes nothing and gives the same reply."""
        ...

    def read(self, call: Call) -> Reply:
        """Carry out a read."""
        ...


class Journal(Protocol):
    """Where submit keeps how far it has come; on disk when a call returns.

    Of a reply it is given the fields that say something by themselves, and those that the plan refers to.
    """

    def read(self) -> Mapping[str, Entry]:
        """Return the entries by step."""
        ...

    def write(self, step: str, phase: str, reply: Reply | None = None) -> None:
        """Record a step as ``intent``, ``sent`` (replied, not settled), ``done`` or ``undone``."""
        ...


def submit(
    plan: Plan,
    client: Client,
    journal: Journal,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Reply]:
    """Carry out the plan and return the replies by step.

    Raises:
        UsageError: a variable to be read from the shell is not set; nothing was sent.
        CloudtuneError: a step failed; what was made before it has been taken back, or the message says what is left.
    """
    say = progress or (lambda _step, _what: None)
    shell = os.environ if environ is None else environ
    entries = journal.read()
    with _not_begun():
        check_shell(plan, shell)
    if any(entry.phase == "undone" for entry in entries.values()):
        _go_on_taking_back(plan, client, journal, entries, shell, say)
    try:
        with _not_begun():
            _make_ready(plan, client, entries)
        return _sent(plan, client, journal, entries, shell, say, sleep)
    finally:
        clean_up = getattr(client, "clean_up", None)
        if clean_up is not None:
            clean_up()


def _sent(
    plan: Plan,
    client: Client,
    journal: Journal,
    entries: Mapping[str, Entry],
    shell: Mapping[str, str],
    say: Progress,
    sleep: Callable[[float], None],
) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    for step in plan.steps:
        entry = entries.get(step.id)
        phase = entry.phase if entry is not None else None
        if entry is not None and phase in {"sent", "done"}:
            replies[step.id] = entry.reply or {}
        if phase == "done":
            continue
        say(step.id, f"{step.service} {step.operation}")
        try:
            if phase != "sent":
                _check_token(step, entry)
                call = _call(step, step.parameters, replies, shell)
                journal.write(step.id, "intent")
                with _told_if_silent(step, say):
                    replies[step.id] = client.send(call, token=step.token, files=step.files)
            if step.until is not None:
                journal.write(step.id, "sent", _kept(plan, step, replies[step.id]))
                _wait(step, step.until, client, replies, shell, say, sleep)
        except CloudtuneError as error:
            if isinstance(error, ServiceError) and not error.definite:
                raise  # it may have been carried out: the journal knows, and a second submit finds out
            _tell_left(error, _take_back(plan, step, client, journal, replies, shell, say, again=phase == "intent"))
            raise
        journal.write(step.id, "done", _kept(plan, step, replies[step.id]))
    return replies


@contextmanager
def _not_begun() -> Iterator[None]:
    """Let errors from inside say that nothing was sent."""
    try:
        yield
    except CloudtuneError as error:
        error.begun = False
        raise


@contextmanager
def _told_if_silent(step: Step, say: Progress) -> Iterator[None]:
    """Say it once if what is done inside takes long."""
    timer = threading.Timer(_SILENT_S, say, (step.id, f"no answer in {_SILENT_S:g} s; still trying"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_token(step: Step, entry: Entry | None) -> None:
    """Refuse to send a step again whose token the service has forgotten: it could be carried out twice."""
    if entry is None or entry.phase != "intent" or entry.at is None or step.token_s is None:
        return
    if time.time() - entry.at > step.token_s:
        hours = step.token_s / 3600
        raise UsageError(
            f"step {step.id} ({step.service} {step.operation}) was sent over {hours:g} hours ago, and nobody knows "
            "whether it was carried out: sent again, it could be carried out twice",
            hint="look in the service for what it may have made, and submit as a new run",
        )


def _make_ready(plan: Plan, client: Client, entries: Mapping[str, Entry]) -> None:
    """Let the client build and check what it uploads: nothing has been made yet that would have to be taken back."""
    make_ready = getattr(client, "make_ready", None)
    if make_ready is not None:
        left = tuple(step for step in plan.steps if step.id not in entries or entries[step.id].phase == "intent")
        make_ready(attrs.evolve(plan, steps=left))


def _kept(plan: Plan, step: Step, reply: Reply) -> Reply:
    """Return what is kept of a reply: no more than is needed, since services repeat in it what they were given."""
    kept = {name: value for name, value in reply.items() if isinstance(value, (str, int, float, bool))}
    texts = [one.until.call.parameters for one in plan.steps if one.until] + [one.parameters for one in plan.steps]
    texts += [one.undo.parameters for one in plan.steps if one.undo]
    for leaf in (leaf for parameters in texts for leaf in leaves(parameters)):
        if isinstance(leaf, Ref) and leaf.step == step.id:
            value = _given(leaf, reply)
            if value is not None:
                _put(kept, leaf.field.split("."), value)
    return kept


def _put(target: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = value


def _given(ref: Ref, reply: Reply) -> Any:
    """Return what a reply has where a reference points, None where it has nothing."""
    try:
        return ref.of(reply)
    except KeyError:
        return None


def _call(
    step: Step | Call, parameters: Mapping[str, Any], replies: Mapping[str, Reply], shell: Mapping[str, str]
) -> Call:
    return Call(
        service=step.service,
        operation=step.operation,
        parameters=substitute(parameters, lambda leaf: _resolved(leaf, replies, shell)),
        region=step.region,
    )


def check_shell(plan: Plan, shell: Mapping[str, str]) -> None:
    """Raise UsageError for variables that the plan reads from the shell and that are not set there."""
    wanted = {leaf.name for step in plan.steps for leaf in leaves(step.parameters) if isinstance(leaf, FromShell)}
    missing = sorted(name for name in wanted if name not in shell)
    if missing:
        raise UsageError(
            f"{', '.join(missing)} should be read from the shell but is not set there",
            hint=f"export {missing[0]}=..., or give the value with -e {missing[0]}=...",
        )


def _resolved(leaf: Leaf, replies: Mapping[str, Reply], shell: Mapping[str, str]) -> Any:
    if isinstance(leaf, Ref):
        return leaf.of(replies[leaf.step])
    if isinstance(leaf, IfGiven):
        chosen = leaf.otherwise if _given(leaf.ref, replies[leaf.ref.step]) in (None, "") else leaf.then
        return OMITTED if chosen is None else substitute(chosen, lambda inner: _resolved(inner, replies, shell))
    if isinstance(leaf, Masked) and leaf.value is not None:
        return leaf.value
    if leaf.name in shell:
        return shell[leaf.name]
    raise UsageError(
        f"the value of {leaf.name} is not kept with the run", hint=f"export {leaf.name}=... and resume again"
    )


def _wait(
    step: Step,
    until: Until,
    client: Client,
    replies: Mapping[str, Reply],
    shell: Mapping[str, str],
    say: Progress,
    sleep: Callable[[float], None],
) -> None:
    call = _call(until.call, until.call.parameters, replies, shell)
    deadline = time.monotonic() + until.timeout_s
    while True:
        value = _given(Ref(step.id, until.field), client.read(call))
        say(step.id, f"{until.field} is {value}")
        if value in until.done:
            return
        if value in until.failed:
            raise ServiceError(f"ended as {value}", service=call.service, operation=step.operation)
        if time.monotonic() >= deadline:
            raise ServiceError(
                f"still {value} after {until.timeout_s:g} s",
                service=call.service,
                operation=step.operation,
                definite=False,
                hint="it may still end well: continue with --resume",
            )
        sleep(until.interval_s)


def _go_on_taking_back(
    plan: Plan, client: Client, journal: Journal, entries: Mapping[str, Entry], shell: Mapping[str, str], say: Progress
) -> None:
    """Finish what a submission that had failed was about when it was cut off, and raise UsageError for it."""
    replies = {step: entry.reply or {} for step, entry in entries.items() if entry.phase in {"sent", "done"}}
    begun = [step for step in plan.steps if step.id in entries]
    error = UsageError(
        f"run {plan.run_id} could not be submitted, and was cut off while that was taken back: it is finished now",
        hint="submit it as a new run",
    )
    _tell_left(error, _take_back(plan, begun[-1], client, journal, replies, shell, say, again=False))
    raise error


def _tell_left(error: CloudtuneError, left: Sequence[str]) -> None:
    if left:
        error.left = tuple(left)
        error.hint = " ".join([*([error.hint] if error.hint else []), f"left behind: {', '.join(left)}"])


def _take_back(
    plan: Plan,
    failed: Step,
    client: Client,
    journal: Journal,
    replies: Mapping[str, Reply],
    shell: Mapping[str, str],
    say: Progress,
    *,
    again: bool,
) -> list[str]:
    """Undo the steps up to the failed one, last first; return what could not be undone.

    ``again``: the failed step had been sent before, and nobody knows what became of that.
    """
    left: list[tuple[Step, str]] = []
    sent = plan.steps[: plan.steps.index(failed) + 1]
    for step in reversed(sent):
        made = step.id in replies
        if not made and step is not failed:
            continue
        what = f"{step.id} ({step.service} {step.operation}{_name(replies.get(step.id))})"
        stays = [(step, what)] if made else [(step, f"perhaps {what}")] if again else []
        if step.undo is not None:
            say(step.id, f"taking back: {step.undo.operation}")
            try:
                client.send(_call(step.undo, step.undo.parameters, replies, shell))
                stays = []
            except (CloudtuneError, KeyError) as error:
                stays = [(step, f"{words}: {error}") if made else (step, words) for _, words in stays]
        if stays and not step.operation.startswith(_READS):
            left += stays
            continue
        undone = [step.id, *(inner.id for inner in sent if inner.within == step.id)]
        for identity in undone:
            journal.write(identity, "undone")
        left = [(inner, words) for inner, words in left if inner.id not in undone]
    return [words for _, words in left]


def _name(reply: Reply | None) -> str:
    """Return by which id somebody finds what a step has made."""
    identity = (reply or {}).get("id")
    return f" {identity}" if isinstance(identity, str) else ""
