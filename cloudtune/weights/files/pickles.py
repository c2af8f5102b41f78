"""Pickles read as data: nothing in them is imported or called.

A pickle is a small program. This machine runs the few operations that checkpoints are made of, with the names of an
allow-list only, each of which stands for a function of this package that makes a plain value. Everything else is
refused where it stands. A pickle costs at most about 70 bytes of memory a byte of itself, and has a largest size.
Files of ``torch.save`` are read on top of it (:mod:`cloudtune.weights.files.torchfiles`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import attrs

from cloudtune.errors import UsageError

#: The metadata of a checkpoint of 500,000 chunks is smaller.
MAX_PICKLE_BYTES = 64 << 20
#: Operations in one pickle: a few seconds.
MAX_OPERATIONS = 16 << 20
_MAX_OPEN = 1000
_MAX_NAME_BYTES = 256
_MAX_PROTOCOL = 5

#: What stands for each name that a pickle may use; None for a name that may only be mentioned.
Allowed = Mapping[str, Callable[..., Any] | None]


@attrs.frozen(slots=True, eq=False)
class Global:
    """A name that a pickle mentions, such as ``torch.bfloat16``, and what stands for it."""

    name: str
    make: Callable[..., Any] | None


@attrs.define(slots=True, eq=False)
class Stand:
    """An object of a pickle, inert: its class by name, what it was made from, and the state that it was given."""

    kind: str
    arguments: tuple[Any, ...]
    state: Any = None

    def get(self, name: str) -> Any:
        """Return an attribute of the object; None if it was not given."""
        return self.state.get(name) if type(self.state) is dict else None


def stands(*names: str) -> dict[str, Callable[..., Any]]:
    """Return a row of an allow-list for each class, whose objects become :class:`Stand` values."""

    def row(name: str) -> Callable[..., Any]:
        return lambda *arguments: Stand(name, arguments)

    return {name: row(name) for name in names}


def members(*names: str) -> dict[str, Callable[..., Any]]:
    """Return rows of an allow-list for members of enums, which Python 3.11.0 to 3.11.3 pickles by their names."""

    def member(of: Any, name: Any) -> Stand:
        if type(of) is not Global or of.name not in names or type(name) is not str:
            raise _Refused(f"asks for an attribute of a {_kind(of)}")
        return Stand(of.name, (name,))

    return {**stands(*names), "builtins.getattr": member}


def load(
    data: bytes, allowed: Allowed, *, name: str = "the pickle", persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Return the value of a pickle: dicts, lists, tuples, texts, numbers, and what the allow-list makes.

    ``persistent`` makes the value of a persistent id, by which torch names storages; without it there may be none.
    Functions of the allow-list raise ValueError or TypeError for arguments that they cannot take.

    Raises:
        UsageError: it is damaged, too large, or asks for anything that is not on the list; ``name`` is in the message.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise UsageError(f"{name} has {len(data)} bytes of pickle", hint="no checkpoint has so many: check the file")
    try:
        return _Machine(data, allowed, persistent).run()
    except _Refused as error:
        message = f"{name} {error}: it is hostile or of a kind that is not known; nothing was executed"
        raise UsageError(message, hint="check where the file is from") from error
    except (ValueError, TypeError, IndexError, KeyError, struct.error, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "it is damaged or cut off"
        raise UsageError(f"{name} cannot be read: {reason}", hint="copy it again") from error


class _Refused(Exception):
    """The pickle asks for what is not given."""


class _Machine:
    """Runs one pickle; its methods are the operations, in the words of :mod:`pickletools`."""

    def __init__(self, data: bytes, allowed: Allowed, persistent: Callable[[Any], Any] | None) -> None:
        self.data, self.allowed, self.persistent = data, allowed, persistent
        self.position = 0
        self.passed = 0
        self.stack: list[Any] = []
        self.open: list[list[Any]] = []
        #: what was noted, in order as all picklers do it, and elsewhere as a hostile one may
        self.memo: list[Any] = []
        self.far: dict[int, Any] = {}
        self.names: dict[str, Global] = {}

    def run(self) -> Any:
        data, table = self.data, _TABLE
        for _ in range(MAX_OPERATIONS):
            code = data[self.position]
            self.position += 1
            operation = table.get(code)
            if operation is None:
                if code == _STOP and len(self.stack) == 1 and not self.open:
                    return self.stack[0]
                raise self.unknown(code)
            operation(self)
        raise ValueError(f"it has more than {MAX_OPERATIONS} operations")

    def unknown(self, code: int) -> Exception:
        # imported to say it, for it takes longer than to read most pickles
        known = import_module("pickletools").code2op.get(chr(code))
        if code == _STOP or known is None:
            return ValueError("it is damaged")
        return _Refused(f"uses the operation {known.name}")

    def take(self, count: int) -> bytes:
        """Return the next bytes of the pickle."""
        start = self.position
        self.position = end = start + count
        if end > len(self.data):
            raise ValueError("it is cut off")
        return self.data[start:end]

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    # --- frame and stack

    def proto(self) -> None:
        if self.number(1) > _MAX_PROTOCOL:
            raise _Refused("uses a protocol of pickles that is not known")

    def frame(self) -> None:
        if self.number(8) > len(self.data) - self.position:
            raise ValueError("it is cut off")

    def mark(self) -> None:
        if len(self.open) == _MAX_OPEN:
            raise ValueError("it is nested too deep")
        self.open.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Return what lies above the last mark, and take the mark away."""
        items = self.stack
        self.stack = self.open.pop()
        return items

    def memoize(self) -> None:
        self.memo.append(self.stack[-1])

    def put(self, index: int) -> None:
        if index == len(self.memo):
            self.memo.append(self.stack[-1])
        elif index < len(self.memo):
            self.memo[index] = self.stack[-1]
        else:
            self.far[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index] if index < len(self.memo) else self.far[index])

    # --- plain values

    def none(self) -> None:
        self.stack.append(None)

    def newtrue(self) -> None:
        self.stack.append(True)

    def newfalse(self) -> None:
        self.stack.append(False)

    def binint(self) -> None:
        self.stack.append(int.from_bytes(self.take(4), "little", signed=True))

    def binint1(self) -> None:
        self.stack.append(self.byte())

    def binint2(self) -> None:
        self.stack.append(self.number(2))

    def long1(self) -> None:
        length = self.byte()
        if length > 9:
            raise ValueError("it holds a number of more than 64 bits")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def binfloat(self) -> None:
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def text(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)).decode("utf-8"))

    def string(self, width: int) -> None:
        # what Python 2 called a string, in files of old
        self.stack.append(self.take(self.number(width)).decode("latin-1"))

    def bytes(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)))

    # --- containers

    def empty_tuple(self) -> None:
        self.stack.append(())

    def tuple(self) -> None:
        items = self.marked()
        self.stack.append((*items,))

    def tuples(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("it is damaged")
        self.stack[-count:] = [(*self.stack[-count:],)]

    def empty_list(self) -> None:
        self.stack.append([])

    def append(self) -> None:
        self.extend([self.stack.pop()])

    def appends(self) -> None:
        self.extend(self.marked())

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise _Refused(f"appends to a {_kind(self.stack[-1])}")
        self.stack[-1].extend(items)

    def empty_dict(self) -> None:
        self.stack.append({})

    def setitem(self) -> None:
        value = self.stack.pop()
        self.update([self.stack.pop(), value])

    def setitems(self) -> None:
        self.update(self.marked())

    def update(self, items: list[Any]) -> None:
        goal = self.stack[-1]
        if type(goal) is not dict:
            raise _Refused(f"sets items of a {_kind(goal)}")
        if len(items) % 2:
            raise ValueError("it is damaged")
        keys = items[::2]
        for key in keys:
            # others may have hashes that collide, or that take a walk through what is nested deep
            if type(key) is not str and type(key) is not int and type(key) is not Stand:
                raise _Refused(f"has a {_kind(key)} for a key")
        goal.update(zip(keys, items[1::2], strict=True))

    # --- objects

    def glob(self) -> None:
        self.named(self.line(), self.line())

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise _Refused("asks for something by a name that is no text")
        self.named(module, name)

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + _MAX_NAME_BYTES)
        if end < 0:
            raise ValueError("it is damaged")
        text = self.take(end - self.position).decode("utf-8")
        self.position += 1
        return text

    def named(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        found = self.names.get(full)
        if found is None:
            if full not in self.allowed:
                raise _Refused(f"asks for {_printable(full)}")
            # one value for each name, so that a name stands in memory once
            found = self.names[full] = Global(full, self.allowed[full])
        self.stack.append(found)

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not Global or called.make is None:
            raise _Refused(f"calls {called.name if type(called) is Global else f'a {_kind(called)}'}")
        if type(arguments) is not tuple:
            raise ValueError("it is damaged")
        # handed over by value, however short it was to name them
        self.passed += len(arguments)
        if self.passed > MAX_OPERATIONS:
            raise ValueError("it hands over too many arguments")
        try:
            self.stack.append(called.make(*arguments))
        except TypeError as error:
            raise ValueError(f"{called.name} has arguments that are not its own") from error

    def build(self) -> None:
        state, goal = self.stack.pop(), self.stack[-1]
        if type(goal) is dict:
            return  # the attributes of an OrderedDict, such as the versions of a state dict
        if type(goal) is not Stand or goal.state is not None:
            raise _Refused(f"gives a state to a {_kind(goal)}")
        goal.state = state

    def binpersid(self) -> None:
        if self.persistent is None:
            raise _Refused("names something outside itself")
        self.stack.append(self.persistent(self.stack.pop()))


def _kind(value: Any) -> str:
    """Return what a value is, for a message."""
    return value.name if type(value) is Global else value.kind if type(value) is Stand else type(value).__name__


def _printable(name: str) -> str:
    return name[:100].encode("ascii", "backslashreplace").decode() if name.isprintable() else ascii(name[:100])


_STOP: Final = ord(".")
_TABLE: Final[dict[int, Callable[[_Machine], None]]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    0x94: _Machine.memoize,
    ord("q"): lambda machine: machine.put(machine.byte()),
    ord("r"): lambda machine: machine.put(machine.number(4)),
    ord("h"): lambda machine: machine.get(machine.byte()),
    ord("j"): lambda machine: machine.get(machine.number(4)),
    ord("N"): _Machine.none,
    0x88: _Machine.newtrue,
    0x89: _Machine.newfalse,
    ord("J"): _Machine.binint,
    ord("K"): _Machine.binint1,
    ord("M"): _Machine.binint2,
    0x8A: _Machine.long1,
    ord("G"): _Machine.binfloat,
    0x8C: lambda machine: machine.text(1),
    ord("X"): lambda machine: machine.text(4),
    0x8D: lambda machine: machine.text(8),
    ord("U"): lambda machine: machine.string(1),
    ord("T"): lambda machine: machine.string(4),
    ord("C"): lambda machine: machine.bytes(1),
    ord("B"): lambda machine: machine.bytes(4),
    0x8E: lambda machine: machine.bytes(8),
    ord(")"): _Machine.empty_tuple,
    ord("t"): _Machine.tuple,
    0x85: lambda machine: machine.tuples(1),
    0x86: lambda machine: machine.tuples(2),
    0x87: lambda machine: machine.tuples(3),
    ord("]"): _Machine.empty_list,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("}"): _Machine.empty_dict,
    ord("s"): _Machine.setitem,
    ord("u"): _Machine.setitems,
    ord("c"): _Machine.glob,
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    # made by the same function, whether its class was called or only its __new__
    0x81: _Machine.reduce,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.binpersid,
}
