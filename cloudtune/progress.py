"""How far a training is, read from the ordinary log lines of transformers, TRL and tqdm; no callback is needed."""

from __future__ import annotations

import re

import attrs

from cloudtune.states import LogLine

#: ``{'loss': 2.1, 'epoch': 0.5}``; transformers 5 writes the numbers as text.
_PAIR = re.compile(r"['\"]([\w/]+)['\"]: ['\"]?(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)['\"]?")
#: ``12/60 [00:05<00:20, 2.41it/s]`` of a progress bar.
_BAR = re.compile(r"(\d+)/(\d+) \[(?:\d+:)?\d+:\d+<((?:\d+:)?\d+:\d+)")


@attrs.frozen(kw_only=True)
class Progress:
    """What is known of a training: step of ``steps``, loss, tokens a second, seconds left. None: not known yet."""

    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    left_s: float | None = None
    #: where the rate is measured from: time and step of the first report
    since: tuple[float, int] | None = None

    def after(self, line: LogLine) -> Progress:
        """Return what is known after one more line; a line that tells nothing gives the same value."""
        text = line.text
        if "loss" in text and "{" in text:
            return self._after_report(dict(_PAIR.findall(text)), line.time)
        bar = _BAR.search(text)
        if bar is None:
            return self
        # other bars (loading, mapping) come before training and are replaced by its first report
        return attrs.evolve(self, step=int(bar[1]), steps=int(bar[2]), left_s=_seconds(bar[3]))

    def _after_report(self, pairs: dict[str, str], time: float) -> Progress:
        if "loss" not in pairs:
            return self
        found = attrs.evolve(self, loss=float(pairs["loss"]))
        step = pairs.get("step") or pairs.get("global_step")
        steps = pairs.get("max_steps") or pairs.get("total_steps")
        if step is not None:
            since = self.since or (time, int(float(step)))
            found = attrs.evolve(found, step=int(float(step)), since=since)
        if steps is not None:
            found = attrs.evolve(found, steps=int(float(steps)))
        rate = pairs.get("tokens_per_second") or pairs.get("train_tokens_per_second")
        if rate is not None:
            found = attrs.evolve(found, tokens_per_second=float(rate))
        if found.since is None or found.step is None or found.steps is None or found.step <= found.since[1]:
            return found
        pace = (time - found.since[0]) / (found.step - found.since[1])
        return attrs.evolve(found, left_s=max(0.0, pace * (found.steps - found.step)))

    def __str__(self) -> str:
        parts = []
        if self.step is not None:
            parts.append(f"step {self.step}" + (f"/{self.steps}" if self.steps else ""))
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.left_s is not None:
            parts.append(f"{clock(self.left_s)} left")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """Return a duration as ``0:32`` or ``2:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _seconds(text: str) -> float:
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return float(total)
