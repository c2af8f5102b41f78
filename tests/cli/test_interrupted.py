"""What Ctrl-C leaves, in words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cloudtune import finishing, verbs
from tests.cli.calling import call

#: A real Ctrl-C in the middle of a verb, also where whoever started the tests has it ignored.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from cloudtune import cli, verbs
verbs.register = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
cli.main()
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("merge", "b", "hf://o/a", "-o", "m"), "the same command goes on where it stopped"),
        (("consolidate", "./c", "-o", "m"), "the same command goes on where it stopped"),
        (("register", "m", "--name", "n"), "nothing is filed by halves; the same command does the rest"),
        (("deploy", "m"), "cloudtune list --deployments"),
        (("outputs", "r", "-o", "d"), "--force begins again"),
        (("delete", "r"), "goes with the same command"),
        (("cancel", "r"), "the run may go on; cloudtune status RUN tells"),
        (("run", "-f", "job.yaml"), "cloudtune list shows what was submitted"),
        (("estimate", "m"), ""),
        (("list",), ""),
    ],
)
def test_an_interrupted_verb_says_what_goes_on(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for room, names in ((verbs, "register deploy outputs delete cancel read estimate list"), (finishing, "merge")):
        for name in names.split():
            monkeypatch.setattr(room, name, interrupted)
    monkeypatch.setattr(finishing, "consolidate", interrupted)
    answer = call(*words)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.strip().startswith("interrupted")
    assert said in answer.err


def test_what_a_verb_knows_better_is_said_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt("half of it lies in /x.part")

    monkeypatch.setattr(finishing, "merge", interrupted)
    assert call("merge", "b", "hf://o/a", "-o", "m").err == "\ninterrupted; half of it lies in /x.part\n"


#: The same while the command line is still being loaded.
LOADING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from cloudtune.__main__ import main
main()
"""


def test_loading_is_interrupted_in_one_line_too() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_a_key_that_interrupts_ends_with_130_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "register", "m", "--name", "n"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.strip().startswith("interrupted; nothing is filed by halves")
    assert "Traceback" not in done.stderr
