"""Pickles that would do harm if they were executed, or that take all memory or time; none needs torch to be made.

Run as a script with files it reads each of them under limits of memory and time, and prints what it said.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.weights.forging import Call, Name, Storage, Thing, dumps, tensor

MEMORY_BYTES = 1 << 30
CPU_S = 100


class Reduced:
    """Pickles as a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call  # type: ignore[return-value]


def executing(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield pickles, each of which would leave a file at ``marker`` if anything in it were called."""
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    for name, arguments in {
        "os.system": (touch,),
        "posix.system": (touch,),
        "nt.system": (touch,),
        "os.popen": (touch,),
        "subprocess.Popen": (["touch", str(marker)],),
        "subprocess.check_output": (["touch", str(marker)],),
        "builtins.eval": (code,),
        "builtins.exec": (code,),
        "builtins.open": (str(marker), "w"),
        "__builtin__.eval": (code,),
        "pathlib.Path.touch": (str(marker),),
        "builtins.__import__": ("os",),
        "runpy._run_code": (code, {}),
        "pdb.run": (code,),
        "timeit.timeit": (code,),
        "code.InteractiveInterpreter.runsource": (code,),
        "pickle.loads": (pickle.dumps(Reduced(eval, (code,))),),
        "marshal.loads": (b"",),
        "torch.load": (str(marker),),
        "torch.hub.load": ("a", "b"),
        "torch.jit._script.load": (str(marker),),
        "torch.serialization.load": (str(marker),),
        "torch.distributed.checkpoint.metadata.os.system": (touch,),
        "numpy.f2py.crackfortran.myeval": (code,),
        "functools.partial": (print,),
        "operator.attrgetter": ("__class__",),
        "operator.methodcaller": ("system", touch),
        "types.FunctionType": (),
        "copyreg._reconstructor": (object, object, None),
        "copyreg.__newobj__": (object,),
        "copy_reg._reconstructor": (object, object, None),
        "builtins.getattr": (Name("os.system"), "__call__"),
        "builtins.map": (),
        "importlib.import_module": ("os",),
        "ctypes.CDLL": (None,),
        "webbrowser.open": ("http://127.0.0.1:9/",),
        "cloudtune.weights.files.pickles.load": (b"", {}),
    }.items():
        yield name, dumps(Call(name, *arguments))
        yield f"{name} in a tensor's hooks", dumps({"a": tensor_with(Call(name, *arguments))})
        yield f"{name} by new", pickle.PROTO + b"\x02" + glob(name) + b"(" + b"t" + pickle.NEWOBJ + b"."
    yield "real eval", pickle.dumps(Reduced(eval, (code,)))
    yield "a chain of getattr", dumps(Call("builtins.getattr", Call("builtins.__import__", "os"), "system"))
    yield "nested calls", dumps([{"a": (Call("collections.OrderedDict"), Call("os.system", touch))}])
    yield "an allowed call of a refused value", dumps(Call("torch.Size", Call("os.system", touch)))
    yield "a call of what a call gave", dumps_raw(glob("torch.Size") + b")R" + b")R.")
    yield "a call of a type", dumps_raw(glob("torch.float32") + b")R.")
    yield "a call of a text", dumps_raw(b"X\x02\0\0\0os" + b")R.")
    for odd in (
        "os\nsystem",
        "Metadata.__init__.__globals__",
        "__class__",
        "",
        " ",
        "\u202eos",
        "a" * 200,
        "os.system\0",
    ):
        yield f"a name {odd!r}", stacked("torch.distributed.checkpoint.metadata", odd)
        yield f"a module {odd!r}", stacked(odd, "system")
    yield "a name that is a number", dumps_raw(b"K\x01K\x02\x93.")
    yield "a state for a type", dumps_raw(glob("torch.float32") + b"}b.")
    yield "a state for a list", dumps_raw(b"]}b.")
    yield "a state with slots", dumps_raw(glob("torch.Size") + b")R" + b"N}\x86b.")
    yield "__setstate__", dumps(Thing("collections.OrderedDict", __setstate__=Call("os.system", touch)))
    yield "a second state", dumps_raw(glob("torch.distributed.checkpoint.metadata.Metadata") + b")R}b}b.")
    for code_ in (b"\x82\x01", b"\x83\x01\0", b"\x84\x01\0\0\0"):
        yield f"extension {code_[0]:x}", dumps_raw(code_ + b".")
    yield "an instance of old", dumps_raw(b"(X\x01\0\0\0aios\nsystem\n.")
    yield "an object of old", dumps_raw(b"(" + b"cos\nsystem\n" + f"X{chr(len(touch))}\0\0\0{touch}".encode() + b"o.")
    yield "a persistent id", dumps_raw(b"Pos.system\n.")
    yield "a persistent text", dumps_raw(b"X\x02\0\0\0osQ.")
    yield "a persistent tuple", dumps_raw(b"X\x03\0\0\0abcK\x01\x86Q.")
    yield "a persistent call", dumps(Call("torch._utils._rebuild_tensor_v2", ("storage", Call("os.system", touch))))
    yield "next buffer", dumps_raw(b"\x97.")
    yield "a set", dumps_raw(b"\x8f(K\x01\x90.")
    yield "protocol 6", b"\x80\x06N."
    yield "a tuple as key", dumps_raw(b"}K\x01K\x02\x86K\x01s.")
    yield "a dict of calls", dumps({Call("os.system", touch): 1})


def tensor_with(hooks: object) -> Call:
    made = tensor(Storage("F32", b"abcd"), (1,))
    made.arguments = (*made.arguments[:5], hooks)
    return made


def exhausting() -> Iterator[tuple[str, bytes]]:
    """Yield pickles that take much more memory or time than they have bytes, if nobody looks."""
    many = 50_000
    yield "a memo far out", dumps_raw(b"Nr\xff\xff\xff\xff.")
    yield (
        "memos far out",
        dumps_raw(b"".join(b"Nr" + struct.pack("<I", 2**32 - 1 - n * 9973) + b"0" for n in range(many))),
    )
    for code in (b"X", b"B", b"T"):
        yield f"a long text {code!r}", dumps_raw(code + b"\xff\xff\xff\x7fabc.")
    for code in (b"\x8d", b"\x8e", b"\x96"):
        yield f"a very long text {code!r}", dumps_raw(code + struct.pack("<Q", 2**62) + b"abc.")
    yield "a frame without end", dumps_raw(b"\x95" + struct.pack("<Q", 2**63) + b"N.")
    yield "a long number", dumps_raw(b"\x8b\xff\xff\xff\x7f" + b"\xff" * 1000 + b".")
    yield "a number of 2000 bits", dumps_raw(b"\x8a\xfa" + b"\x7f" * 250 + b".")
    yield "tuples in tuples", dumps_raw(b")" + b"\x85" * (1 << 20) + b".")
    yield "marks", dumps_raw(b"(" * (4 << 20) + b".")
    yield "lists in lists", dumps_raw(b"]" * many + b"a" * (many - 1) + b".")
    yield "dicts in dicts", dumps_raw(b"}K\x01" * many + b"N" + b"s" * many + b".")
    yield (
        "laughs",
        dumps_raw(
            b"]q\0"
            + b"".join(
                b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 50 + b"eq" + bytes([n + 1]) for n in range(100)
            )
            + b"."
        ),
    )
    yield "a list in itself", dumps_raw(b"]q\0h\0a.")
    yield "a dict in itself", dumps_raw(b"}q\0K\x01h\0s.")
    arguments = b"(" + b"N" * many + b"tq\0"
    size = glob("torch.Size") + b"q\1"
    state = glob("torch.serialization._get_layout") + b"q\1"
    yield "arguments without end", dumps_raw(arguments + state + b"h\1h\0R" * many + b".")
    yield "a size without end", dumps_raw(arguments + b"h\0\x85q\2" + size + b"h\1h\2R" * many + b".")
    yield "lists without end", dumps_raw(b"]" * (1 << 20) + b".")
    yield "dicts without end", dumps_raw(b"}" * (1 << 20) + b".")
    yield "names without end", dumps_raw(b"".join(b"ctorch\n%d\n" % n for n in range(many)) + b".")
    yield "a name without end", dumps_raw(b"c" + b"a" * (1 << 20))
    yield "nothing", b""
    yield "only a protocol", b"\x80\x02"
    yield "garbage", bytes(range(256)) * 40


def dumps_raw(code: bytes) -> bytes:
    return b"\x80\x02" + code


def glob(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def stacked(module: str, name: str) -> bytes:
    file = io.BytesIO(b"\x80\x04")
    file.seek(0, 2)
    for text in (module, name):
        data = text.encode()
        file.write(b"X" + struct.pack("<I", len(data)) + data)
    file.write(b"\x93.")
    return file.getvalue()


def main() -> None:
    """Read each file of the arguments as what its suffix says, and print one line for it."""
    import resource

    from cloudtune.errors import UsageError
    from cloudtune.ranges import Reader
    from cloudtune.weights.consolidate.layouts.distcp import read_metadata
    from cloudtune.weights.files.folder import folder_at
    from cloudtune.weights.files.torchfiles import read_torch

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    for name in sys.argv[1:]:
        path = Path(name)
        try:
            if path.is_dir():
                read_metadata(folder_at(name), "")
            else:
                with Reader(name) as reader:
                    read_torch(reader)
        except UsageError as error:
            print(path.name, "refused:", str(error).replace("\n", " "))
        else:
            print(path.name, "read")


if __name__ == "__main__":
    main()
