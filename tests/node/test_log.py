from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtune.node.lines import parse_line, parse_numbered
from cloudtune.node.log import Log, Redaction


def texts(path: Path) -> list[str]:
    return [(parse_line(line) or (0, None, "", "NOT A LINE"))[3] for line in path.read_text().splitlines()]


def test_secrets_are_replaced_the_longest_first() -> None:
    redaction = Redaction()
    redaction.add(["secret", "secret-and-more", "short"])
    assert redaction("a secret-and-more b secret c short d") == "a *** b *** c short d"
    assert redaction.data({"a": ["secret", 1, None], "secret": True}) == {"a": ["***", 1, None], "secret": True}


def test_variables_are_secret_by_their_names() -> None:
    redaction = Redaction()
    names = ("HF_TOKEN", "aws_secret_access_key", "PASSWORD", "MY_SECRET", "TOKENIZERS", "MONKEY", "KEYRING", "A_KEY")
    redaction.add_variables({name: f"value-of-{name}" for name in names} | {"B_TOKEN": "tiny"})
    visible = [name for name in names if redaction(f"value-of-{name}") != "***"]
    assert visible == ["TOKENIZERS", "MONKEY", "KEYRING"]
    assert redaction("tiny") == "tiny"


def test_every_line_of_a_key_is_secret() -> None:
    redaction = Redaction()
    redaction.add(["-----BEGIN KEY-----\nabcdefgh\n  ijklmnop  \n}\n"])
    assert redaction("x abcdefgh y") == "x *** y"
    assert redaction("ijklmnop") == "***"
    assert redaction("{}") == "{}"


def test_lines_go_to_stdout_and_to_the_file(tmp_path: Path) -> None:
    read, write = os.pipe()
    redaction = Redaction()
    redaction.add(["geheim"])
    log = Log(tmp_path / "log", redaction, stdout=write)
    assert log.write(3, "stdout", ["a geheim", "b"]) == ["a ***", "b"]
    log.say("two\nlines")
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == (tmp_path / "log").read_text()
    assert texts(tmp_path / "log") == ["a ***", "b", "two", "lines"]
    assert list(log.last_words) == ["two", "lines"]


def test_lines_are_numbered_from_when_it_is_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        log = Log(tmp_path / "log", Redaction(), stdout=file.fileno())
        log.say("early")
        assert not log.numbered
        log.number(1, 4)
        log.write(7, "stdout", ["a", "b"])
        log.number(3, 4)  # it keeps the number that it has
        log.say("c")
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert parse_line(first) is not None
    found = [parse_numbered(line) for line in rest]
    assert [(one.node, one.nodes, one.number, one.text) for one in found if one] == [
        (1, 4, 1, "a"),
        (1, 4, 2, "b"),
        (1, 4, 3, "c"),
    ]
    assert len({one.start for one in found if one}) == 1
    assert log.lines == 3


def test_a_stdout_that_is_the_file_is_written_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        log = Log(tmp_path / "log", Redaction(), stdout=file.fileno())
        log.say("once")
    assert texts(tmp_path / "log") == ["once"]


def test_a_reader_that_left_does_not_stop_the_file(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    log = Log(tmp_path / "log", Redaction(), stdout=write)
    log.say("one")
    log.say("two")
    os.close(write)
    assert texts(tmp_path / "log") == ["one", "two"]
    assert log.failure == "cannot write the log: Broken pipe"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_remembered_and_nothing_stops() -> None:
    with Path("/dev/null").open("wb") as nowhere:
        log = Log(Path("/dev/full"), Redaction(), stdout=nowhere.fileno())
        log.say("lost")
    assert log.failure == "cannot write /dev/full: No space left on device"
