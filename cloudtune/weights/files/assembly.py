"""Files described as pieces before a byte of them is written: bytes at hand, spans of other files, blocks made later.

Whatever makes a model here (merging, consolidating) says what its files consist of, and a target
(:mod:`cloudtune.weights.target`) writes them: in any order on this machine, from first to last elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from cloudtune import ranges
from cloudtune.ranges import Reader

Buffer = bytes | bytearray | memoryview
#: Called with the bytes done and the bytes in all; perhaps from several threads, one after the other.
Progress = Callable[[int, int], object]
#: Small pieces that lie side by side are written as one task of about this size.
_TASK_BYTES = 8 << 20
#: Long spans are written as tasks of this size, which cost nothing next to what they copy.
_SPAN_BYTES = 64 << 20


@attrs.frozen(kw_only=True, eq=False)
class Span:
    """Bytes of another file, taken as they are."""

    reader: Reader
    offset: int
    length: int


@attrs.frozen(kw_only=True, eq=False)
class Made:
    """Bytes that are made when they are written; ``blocks()`` yields them in order, ``length`` in all.

    A block may be the same buffer every time: it is written before the next is asked for.
    """

    length: int
    blocks: Callable[[], Iterator[Buffer]]


Piece = bytes | Span | Made


@attrs.frozen(kw_only=True, eq=False)
class Output:
    """A file to be written: its name, and its pieces in order."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Length of the whole file in bytes."""
        return sum(map(length_of, self.pieces))


def length_of(piece: Piece) -> int:
    """Return the bytes of a piece."""
    return len(piece) if isinstance(piece, bytes) else piece.length


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the same bytes in fewer pieces: spans that lie side by side in their file, too, are one read."""
    last: Span | None = None
    for piece in pieces:
        if not length_of(piece):
            continue
        if not isinstance(piece, Span):
            if last is not None:
                yield last
            last = None
            yield piece
        elif last is not None and last.reader is piece.reader and last.offset + last.length == piece.offset:
            last = Span(reader=last.reader, offset=last.offset, length=last.length + piece.length)
        else:
            if last is not None:
                yield last
            last = piece
    if last is not None:
        yield last


def tasks_of(output: Output) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    """Yield a file in portions that are worth a task, each with the position where it begins; an empty file is one."""
    position, start, gathered, size = 0, 0, list[Piece](), 0
    for piece in _cut(joined(output.pieces)):
        length = length_of(piece)
        if gathered and size + length > _TASK_BYTES:
            yield start, tuple(gathered)
            start, gathered, size = position, [], 0
        gathered.append(piece)
        size, position = size + length, position + length
    if gathered or not position:
        yield start, tuple(gathered)


def _cut(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield long spans as several."""
    for piece in pieces:
        if isinstance(piece, Span):
            for start in range(0, piece.length, _SPAN_BYTES):
                length = min(_SPAN_BYTES, piece.length - start)
                yield Span(reader=piece.reader, offset=piece.offset + start, length=length)
        else:
            yield piece


def write_piece(piece: Piece, target: int, position: int, check: Callable[[], object]) -> None:
    """Write a piece at a position of a descriptor; ``check`` is called between blocks and may raise.

    Raises:
        ValueError: what was made has not the length that was announced.
        OSError: the target cannot be written.
        ServiceError: a source cannot be read.
    """
    if isinstance(piece, Span):
        # in bounded steps, so that an interruption is noticed
        for start in range(0, piece.length, _TASK_BYTES):
            check()
            length = min(_TASK_BYTES, piece.length - start)
            ranges.copy(piece.reader, piece.offset + start, length, target, position + start)
        return
    for block in stream(piece):
        check()
        ranges.write_at(target, block, position)
        position += len(block)


def stream(piece: Piece) -> Iterator[Buffer]:
    """Yield the bytes of a piece in order, each block good until the next is asked for; raises as write_piece does."""
    if isinstance(piece, bytes):
        yield piece
    elif isinstance(piece, Span):
        yield from ranges.blocks(piece.reader, piece.offset, piece.length, ranges.CHUNK_BYTES)
    else:
        made = 0
        for block in piece.blocks():
            view = memoryview(block).cast("B")
            made += len(view)
            if made > piece.length:
                break
            yield view
        if made != piece.length:
            raise ValueError(f"{made} bytes were made where {piece.length} were announced")  # a mistake in cloudtune


def total_size(outputs: Sequence[Output]) -> int:
    """Return the bytes of all files."""
    return sum(output.size for output in outputs)
