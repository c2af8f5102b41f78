"""Progress read from ordinary log lines."""

from __future__ import annotations

from cloudtune.progress import Progress, clock
from cloudtune.states import LogLine


def after(*texts: str) -> Progress:
    progress = Progress()
    for second, text in enumerate(texts):
        progress = progress.after(LogLine(time=float(second * 10), replica=0, rank=0, stream="stdout", text=text))
    return progress


def test_transformers_lines_with_numbers_as_text() -> None:
    found = after("{'loss': '2.316', 'grad_norm': '0.9', 'learning_rate': '1.9e-04', 'epoch': '0.25'}")
    assert found.loss == 2.316
    assert found.step is None


def test_lines_with_steps_give_the_time_left() -> None:
    found = after(
        "{'loss': 3.0, 'tokens_per_second': 1200.5, 'step': 10, 'max_steps': 60}",
        "some other line",
        "{'loss': 2.5, 'tokens_per_second': 1234.5, 'step': 20, 'max_steps': 60}",
    )
    assert (found.step, found.steps, found.loss, found.tokens_per_second) == (20, 60, 2.5, 1234.5)
    assert found.left_s == 80.0
    assert str(found) == "step 20/60  loss 2.5  1,234 tokens/s  1:20 left"


def test_a_progress_bar() -> None:
    found = after(" 20%|##        | 12/60 [00:05<00:20,  2.41it/s]")
    assert (found.step, found.steps, found.left_s) == (12, 60, 20.0)


def test_lines_that_tell_nothing_change_nothing() -> None:
    before = Progress(step=1)
    line = LogLine(time=0.0, replica=0, rank=None, stream="stdout", text="eval_loss {'eval_loss': 1.0}")
    assert before.after(line) == before


def test_clock() -> None:
    assert [clock(5), clock(65), clock(3700)] == ["0:05", "1:05", "1:01:40"]
