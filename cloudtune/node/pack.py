"""The agent as one file: a zipapp of this package, the same bytes for the same sources."""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from pathlib import Path

_TIME = (1980, 1, 1, 0, 0, 0)
# a compiled module that is used without a look at its source: flag 1, and a hash that nobody checks
_HEADER = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
_MAIN = "from cloudtune.node.cli import main\n\nraise SystemExit(main())\n"


def agent_bytes(*, compiled: bool = False) -> bytes:
    """Return the zipapp: ``python agent.pyz run --order order.json --directory DIR``.

    Sources only, so that the bytes do not depend on this Python. ``compiled`` adds this Python's own form beside them:
    a node of the same version starts in a third less CPU time, any other takes the sources.
    """
    buffer = io.BytesIO()
    folder = Path(__file__).parent
    files = {"__main__.py": _MAIN.encode(), "cloudtune/__init__.py": b""}
    for path in folder.glob("*.py"):
        name = f"cloudtune/node/{path.name}"
        files[name] = path.read_bytes()
        if compiled:
            files[f"{name}c"] = _HEADER + marshal.dumps(compile(files[name], name, "exec", dont_inherit=True))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()
