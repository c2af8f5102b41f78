"""What the plan says of a job's memory: only what is certain beyond the error band of the estimate."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from cloudtune.errors import CloudtuneError
from cloudtune.launch import Launch
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.estimate import estimate
from cloudtune.memory.families import architecture
from cloudtune.memory.fit import Fit
from cloudtune.memory.machines import GIB, Machine
from cloudtune.memory.models import known_config, local_config
from cloudtune.memory.requests import Request, request_of
from cloudtune.memory.training import Training
from cloudtune.spec.job import JobSpec

_METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
#: Rows shorter than this are not worth a word.
_SHORTEST = 64


def notices(job: JobSpec, launch: Launch) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, message) if a job needs more memory than its accelerators have; nothing if anything is unknown.

    A model is known by its config, in a folder of this machine or among those that come with cloudtune.
    """
    try:
        request = request_of(job, launch)
        config = known_config(request.model) or local_config(request.model)
        if request.machine is None or config is None:
            return
        model = architecture(config)
        message = None if model.notes else _doubt(request, model, request.machine)
    except CloudtuneError:
        # what is wrong with a job is said where it is checked; nothing is known here
        return
    if message is not None:
        yield request.path, message


def _doubt(request: Request, model: Architecture, machine: Machine) -> str | None:
    training = request.training
    what = f"{request.model}, {_METHODS[training.method]},"
    where = f"{machine.device} ({said(machine.memory)} GB)"
    least, whole = estimate(model, request.least), estimate(model, training)
    if least.least > machine.memory:
        # where rows may be short, or more is unknown, the least is what is certain
        found = whole if request.packed and request.exact else least
        ways = Fit(model=request.model, estimate=whole, machine=machine).advice()[:2]
        advice = " or ".join(f"{way.change} ({said(way.total)} GB)" for way in ways)
        text = f"{what} needs {'' if found is whole else 'at least '}{said(found.total)} GB on each {where}"
        return f"{text}: it will not fit" + (f"; it would with {advice}" if advice else "")
    if request.exact and whole.least > machine.memory:
        rows = f"{training.batch_size} rows of {training.sequence_length} tokens"
        text = f"{what} needs {said(whole.total)} GB on each {where} when it meets {rows}"
        longest = longest_rows(model, training, machine)
        return f"{text}; rows of up to about {longest} tokens fit" if longest >= _SHORTEST else text
    return None


def longest_rows(model: Architecture, training: Training, machine: Machine) -> int:
    """Return the longest rows, in tokens, with which a training fits; 0 if none do."""
    low, high = 0, training.sequence_length
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        fits = estimate(model, attrs.evolve(training, sequence_length=middle)).total <= machine.memory
        low, high = (middle, high) if fits else (low, middle)
    return low // 10 * 10


def said(size: float) -> str:
    """Return bytes as GB of 2**30, as precisely as an estimate deserves.

    >>> said(31.4 * 2**30), said(2.34 * 2**30)
    ('31', '2.3')
    """
    number = size / GIB
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
