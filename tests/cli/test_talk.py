"""Words to people, whatever they quote."""

from __future__ import annotations

import subprocess
import sys

from cloudtune.cli import _told
from cloudtune.cli.talk import visible


def test_characters_that_act_on_a_terminal_are_written_out():
    assert visible("a \x1b[2J\r\b\0\x9b \ud800 \u202e") == r"a \x1b[2J\r\x08\x00\x9b \ud800 \u202e"
    assert visible("größer\n  hint: 😀\tb") == "größer\n  hint: 😀\tb"


def test_an_error_that_quotes_a_file_leaves_the_terminal_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "\\u001b[2J"}}')
    argv = [sys.executable, "-m", "cloudtune", "merge", str(tmp_path), str(tmp_path), "-o", str(tmp_path / "m\x1b[31m")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("error: ")
    assert "\x1b" not in done.stderr


def test_an_error_that_nobody_expected_shows_no_password_and_leaves_the_terminal_alone(capsys):
    assert _told(RuntimeError("cannot open https://me:geheim@host/x \x1b[2J")) == 1
    said = capsys.readouterr().err
    assert said.startswith(r"error: RuntimeError: cannot open https://***@host/x \x1b[2J")
