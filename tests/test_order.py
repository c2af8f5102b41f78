"""The order: what nodes are told, and what reaches them another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudtune.launch import launch
from cloudtune.order import environment_of, order_of, outputs_of
from cloudtune.plan import FromShell, Masked
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Runtime


def runtime(**keys: Any) -> Runtime:
    return PyTorchDistributedRuntime(**{"command": "true", **keys})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a current folder in surroundings that are known."""
    folder = tmp_path / "with $SHELL"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {"SHELL": "sh", "HOME": "/me", "DOLLAR": "a$SHELL", "MY_TOKEN": "geheim", "PET_X": "no"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLOUDTUNE_NODE_RANK", "7")
    return folder


@pytest.mark.parametrize(
    ("written", "place", "literal"),
    [
        ("out", "HERE/out", True),
        ("/out", "/out", False),
        ("~/out", "/me/out", False),
        ("/out/$CLOUDTUNE_RUN_ID", "/out/abcdefgh", False),
        ("/out/${SHELL}/$PLAIN", "/out/sh/p", False),
        ("s3://b/$$SHELL", "s3://b/$SHELL", True),
        # the node knows better, or alone
        ("/out/$CLOUDTUNE_NODE_RANK/$SHELL", "/out/$CLOUDTUNE_NODE_RANK/sh", False),
        ("/out/$DOLLAR", "/out/$DOLLAR", False),
        ("/out/$MY_TOKEN/$PET_X/$BARE/$$", "/out/$MY_TOKEN/$PET_X/$BARE/$$", False),
        ("$BARE/out", "$BARE/out", False),
    ],
)
def test_the_place_of_outputs(here: Path, written: str, place: str, literal: bool) -> None:
    env = (EnvironmentVariable(name="PLAIN", value="p"), EnvironmentVariable(name="BARE"))
    found = outputs_of(runtime(output_uri=written, env=env), "abcdefgh", here=True)
    assert found["uri"] == place.replace("HERE", str(here))
    assert ("expand" in found) == literal


def test_a_far_place_is_filled_in_with_what_the_job_says_alone(here: Path) -> None:
    found = outputs_of(runtime(output_uri="s3://b/$SHELL/$PLAIN", env={"PLAIN": "p"}), "abcdefgh")
    assert found["uri"] == "s3://b/$SHELL/p"
    assert outputs_of(runtime(), "abcdefgh") == {"dir": None, "uri": None, "layout": "perNode"}


def test_without_a_word_outputs_lie_in_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "h$HOME"))
    place = f"{tmp_path}/h$HOME/runs/abcdefgh/outputs"
    found = outputs_of(runtime(), "abcdefgh", here=True)
    assert found == {"dir": None, "uri": place, "layout": "perNode", "expand": False}
    job = JobSpec(runtime=runtime(inputs={place: "a", f"file://{place}/x": "b", "/$HOME/x": "c"}))
    order, _ = order_of(job, launch(job), "abcdefgh", name="j", code=None, outputs=found)
    escaped = place.replace("$", "$$")
    assert list(order["inputs"]) == [escaped, f"file://{escaped}/x", "/$HOME/x"]
    assert order["outputs"] == found


def test_variables_of_secrets_that_were_taken_out_are_read_from_the_shell() -> None:
    name = "CLOUDTUNE_URI_0123ABCD_SECRET"
    kept = runtime(
        inputs={f"https://${{{name}}}@h/x": "x"}, output_uri="sftp://me:geheim@h/x", env={"A_KEY": "k", "B": "b"}
    )
    plain, special = environment_of(kept)
    assert plain == {"B": "b"}
    assert special.pop("A_KEY") == Masked("A_KEY", "k")
    assert special.pop(name) == FromShell(name)
    ((other, leaf),) = special.items()
    assert leaf == Masked(other, "me:geheim")
    assert outputs_of(kept, "abcdefgh")["uri"] == f"sftp://${{{other}}}@h/x"
