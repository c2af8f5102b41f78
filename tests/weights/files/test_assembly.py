"""Files described as pieces: whatever the pieces and however they are portioned, the bytes are the same."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.ranges import Reader
from cloudtune.weights.files import assembly
from cloudtune.weights.files.assembly import Made, Output, Piece, Span, joined, length_of, stream, tasks_of, write_piece

SOURCE = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Return two open files with the same bytes."""
    folder = tmp_path_factory.mktemp("sources")
    found = []
    for name in ("one", "two"):
        (folder / name).write_bytes(SOURCE)
        found.append(Reader(str(folder / name)))
    yield found
    for reader in found:
        reader.close()


def made(data: bytes, block: int) -> Made:
    def blocks() -> Iterator[memoryview]:
        buffer = bytearray(block)  # the same every time
        for start in range(0, len(data), block):
            part = data[start : start + block]
            buffer[: len(part)] = part
            yield memoryview(buffer)[: len(part)]

    return Made(length=len(data), blocks=blocks)


@st.composite
def pieces(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """Draw pieces as (kind, offset, length, which), many of which lie side by side."""
    found = []
    place = 0
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["span", "span", "span", "bytes", "made"]))
        offset = draw(st.sampled_from([place, place, 0]) | st.integers(0, len(SOURCE)))
        length = draw(st.integers(0, min(300, len(SOURCE) - offset)))
        place = offset + length
        found.append((kind, offset, length, draw(st.integers(0, 1))))
    return found


def built(drawn: list[tuple[str, int, int, int]], readers: list[Reader]) -> tuple[tuple[Piece, ...], bytes]:
    found: list[Piece] = []
    for kind, offset, length, which in drawn:
        data = SOURCE[offset : offset + length]
        if kind == "span":
            found.append(Span(reader=readers[which], offset=offset, length=length))
        else:
            found.append(data if kind == "bytes" else made(data, 1 + which * 60))
    return tuple(found), b"".join(SOURCE[offset : offset + length] for _, offset, length, _ in drawn)


def bytes_of(piece: Piece) -> bytes:
    return b"".join(bytes(block) for block in stream(piece))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces(), st.integers(1, 500))
def test_joining_and_portioning_change_no_byte(readers, tmp_path, monkeypatch, drawn, task_bytes):
    monkeypatch.setattr(assembly, "_TASK_BYTES", task_bytes)
    monkeypatch.setattr(assembly, "_SPAN_BYTES", task_bytes)
    given_pieces, expected = built(drawn, readers)
    fewer = list(joined(given_pieces))
    assert b"".join(map(bytes_of, fewer)) == expected
    assert all(map(length_of, fewer))
    assert len(fewer) <= len(given_pieces)
    output = Output(name="x", pieces=given_pieces)
    assert output.size == len(expected)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        covered = 0
        for start, portion in tasks_of(output):
            assert start == covered
            for piece in portion:
                write_piece(piece, target, covered, lambda: None)
                covered += length_of(piece)
            assert covered - start <= task_bytes or len(portion) == 1
        assert covered == len(expected)
        assert os.pread(target, len(expected) + 1, 0) == expected
    finally:
        os.close(target)


def test_tensors_side_by_side_are_one_read(readers):
    spans = tuple(Span(reader=readers[0], offset=offset, length=2) for offset in range(0, 2000, 2))
    assert [(span.offset, span.length) for span in joined(spans)] == [(0, 2000)]
    other = Span(reader=readers[1], offset=2000, length=2)
    assert len(list(joined((*spans, other)))) == 2  # another file
    assert len(list(joined((*spans, b"x", *spans)))) == 3
    assert len(list(joined((*spans[:3], b"", *spans[3:])))) == 1
    assert len(list(joined(spans[::2]))) == 500


def test_an_empty_file_is_a_task(readers):
    nothing = Span(reader=readers[0], offset=5, length=0)
    for empty in ((), (b"",), (nothing,), (made(b"", 1),)):
        assert list(tasks_of(Output(name="x", pieces=empty))) == [(0, ())]


@pytest.mark.parametrize("said", [0, 5, 9, 11, 100])
def test_what_is_made_has_the_length_that_was_announced(tmp_path, said):
    piece = Made(length=said, blocks=lambda: iter([b"12345", b"67890"]))
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(ValueError, match="bytes were made where"):
            write_piece(piece, target, 0, lambda: None)
        assert os.fstat(target).st_size <= said  # nothing of a neighbour is written over
    finally:
        os.close(target)


def test_a_check_stops_between_blocks(readers, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "_TASK_BYTES", 100)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    calls = []

    def check() -> None:
        calls.append(os.fstat(target).st_size)
        if len(calls) == 3:
            raise KeyboardInterrupt

    try:
        for piece in (Span(reader=readers[0], offset=0, length=1000), made(SOURCE, 100)):
            calls.clear()
            os.ftruncate(target, 0)
            with pytest.raises(KeyboardInterrupt):
                write_piece(piece, target, 0, check)
            assert calls == [0, 100, 200]
    finally:
        os.close(target)
