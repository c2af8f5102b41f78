"""Which run a word means, and which runs there are."""

from __future__ import annotations

from collections.abc import Collection

from cloudtune.backends import every_backend
from cloudtune.errors import CloudtuneError, MissingExtra, RunNotFound, UsageError
from cloudtune.places import client_of
from cloudtune.runs.run import Run, RunList, run_of
from cloudtune.store import Store


def get(text: str, *, store: Store | None = None) -> Run:
    """Return a run by its id, by a unique beginning of it, or by the place's own id (OCID, ARN, namespace/name)."""
    store, text = store or Store(), text.strip()
    record = store.find(text)
    if record is not None:
        return run_of(record, store)
    for backend in every_backend():
        handle = backend.recognise(text)
        if handle is not None:
            return Run(handle=handle, record=None, store=store)
    hints = ["cloudtune list shows all runs"]
    for supposing in every_backend():
        suppose = getattr(supposing, "suppose", None)
        for handle in suppose(text) if suppose is not None else ():
            try:
                client_of(supposing).read(supposing.look(handle))
            except (RunNotFound, UsageError):
                continue  # no such thing, or not even such things
            except MissingExtra:
                break
            except CloudtuneError as error:
                hints.append(f"whether {supposing.name} has one of that name could not be asked: {error.message}")
                break
            return Run(handle=handle, record=None, store=store)
    raise RunNotFound(f"there is no run {text}", hint="; ".join(hints))


def runs(
    *,
    state: Collection[str] = (),
    since: float | None = None,
    name: str | None = None,
    backend: str | None = None,
    limit: int | None = None,
    store: Store | None = None,
) -> RunList:
    """Return runs, newest first, with their states brought up to date."""
    store = store or Store()
    chosen = RunList()
    for record in store.runs():
        if (since is not None and record.created < since) or (name is not None and name not in record.name):
            continue
        if backend is not None and record.backend != backend:
            continue
        run = run_of(record, store)
        if state and run.last_state not in state:
            continue
        chosen.append(run)
        if limit is not None and len(chosen) >= limit:
            break
    return chosen
