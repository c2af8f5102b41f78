"""A model written to an object store, or whatever else fsspec knows.

Stores show a file only when it is complete, but have no locks and rename nothing. So the files appear one by one, under
a marker that names what is written: where it is, nobody else begins, and the same thing is continued.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from cloudtune import ranges, storage
from cloudtune.errors import ServiceError, UsageError
from cloudtune.ranges import Reader, Writer
from cloudtune.uri import join, shown
from cloudtune.weights.files.assembly import Output, Progress, joined, stream, total_size
from cloudtune.weights.target.writing import (
    GOES_ON,
    LAST,
    UPLOADS,
    Meter,
    check_name,
    holds_model,
    place_in_order,
    run_all,
)

_MARKER = re.compile(r"\.cloudtune-[0-9a-f]{16}\.part")


class StoreTarget:
    """A prefix of an object store."""

    def __init__(self, uri: str, key: str) -> None:
        self.uri = uri
        self.marker = f".cloudtune-{key}.part"
        #: Bytes of files that an earlier try completed.
        self.sizes: dict[str, int] = {}
        #: Files that were there before, by bytes; nothing is written over them.
        self.others: dict[str, int] = {}
        self.marked = False
        self.sums: dict[str, str] = {}
        self.names: set[str] = set()
        self.last: dict[str, bytes] = {}

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Look what is there, and refuse what cannot be continued."""
        found = {entry.path: entry.bytes for entry in storage.listing(self.uri) if "/" not in entry.path}
        self.marked = self.marker in found
        self._refuse_others(found)
        if self.marked:
            self.others = self._marked_others()
            self.sizes = {name: size for name, size in found.items() if name not in self.others}
        elif holds_model(found):
            hint = "name another place, or remove that one"
            raise UsageError(f"{shown(self.uri)} holds a model already, or a part of one", hint=hint)
        else:
            self.others = found
        try:
            yield
        except KeyboardInterrupt as error:
            left = f" ({shown(self.uri)} holds what is done, and {self.marker} says so)" if self.marked else ""
            raise KeyboardInterrupt(f"{GOES_ON}{left}") from error

    def _refuse_others(self, names: Iterable[str]) -> None:
        other = next((name for name in names if _MARKER.fullmatch(name) and name != self.marker), None)
        if other is not None:
            hint = (
                "wait until it is whole, or name another place; if it was given up, remove its *.safetensors "
                f"and {other}"
            )
            raise UsageError(f"another model was begun at {shown(self.uri)}", hint=hint)

    def _marked_others(self) -> dict[str, int]:
        with Reader(join(self.uri, self.marker)) as reader:
            try:
                others = json.loads(reader.read(0, reader.size)).get("others", {})
            except (ValueError, AttributeError):
                return {}
        return others if isinstance(others, dict) else {}

    def _begin(self) -> None:
        """Write the marker, and give way if somebody else has done so at the same time."""
        if self.marked:
            return
        self._upload(self.marker, json.dumps({"others": self.others}).encode())
        self.marked = True
        try:
            self._refuse_others(entry.path for entry in storage.listing(self.uri))
        except UsageError:
            storage.remove(join(self.uri, self.marker))
            raise

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        """Write large files; those that an earlier try completed are left as they are."""
        for output in outputs:
            self._expect(output.name)
        self._begin()
        due = [output for output in outputs if self.sizes.get(output.name) != output.size]
        meter = Meter(total_size(outputs), progress)
        meter.add(meter.total - total_size(due))
        try:
            run_all([partial(self._write, output, meter) for output in due], UPLOADS, meter)
        except ServiceError as error:
            error.hint = f"run the same again: it goes on where it stopped ({error.hint})"
            raise

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._expect(name, data)
        self._begin()
        self.sums[name] = hashlib.sha256(data).hexdigest()
        if name in LAST:
            self.last[name] = data
        else:
            self._upload(name, data)

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file written so far, by name, sorted."""
        meter = Meter(0, None)
        # those that an earlier try completed are read again
        run_all([partial(self._add_sum, name, meter) for name in sorted(self.names - self.sums.keys())], UPLOADS, meter)
        return dict(sorted(self.sums.items()))

    def finish(self) -> None:
        """Let the files appear without which there is no model."""
        for name in sorted(self.last, key=place_in_order):
            self._upload(name, self.last[name])
        if self.marked:
            storage.remove(join(self.uri, self.marker))

    def expect(self, names: Iterable[str]) -> None:
        """Raise UsageError if a file of one of these names is in the way; nothing is written."""
        for name in names:
            self._look_for(name, None)

    def _expect(self, name: str, data: bytes | None = None) -> None:
        """Note that a file will be written; raises UsageError where that would replace another one."""
        self._look_for(name, data)
        self.names.add(name)

    def _look_for(self, name: str, data: bytes | None) -> None:
        check_name(name)
        if name not in self.others:
            return
        if data is not None and self.others[name] == len(data):
            with Reader(join(self.uri, name), len(data)) as reader:
                if reader.read(0, len(data)) == data:
                    return
        hint = "name another place, or move that file away"
        raise UsageError(f"{shown(join(self.uri, name))} is there already", hint=hint)

    def _write(self, output: Output, meter: Meter) -> None:
        digest = hashlib.sha256()
        with Writer(join(self.uri, output.name), output.size) as writer:
            for block in (block for piece in joined(output.pieces) for block in stream(piece)):
                meter.check()
                digest.update(block)
                writer.write(block)
                meter.add(len(block))
        self.sums[output.name] = digest.hexdigest()

    def _add_sum(self, name: str, meter: Meter) -> None:
        digest = hashlib.sha256()
        with Reader(join(self.uri, name)) as reader:
            for block in ranges.blocks(reader, 0, reader.size, ranges.CHUNK_BYTES):
                meter.check()
                digest.update(block)
        self.sums[name] = digest.hexdigest()

    def _upload(self, name: str, data: bytes) -> None:
        with Writer(join(self.uri, name)) as writer:
            writer.write(data)
