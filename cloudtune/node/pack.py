"""The agent as one file: a zipapp of this package, the same bytes for the same sources."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = "from cloudtune.node.cli import main\n\nraise SystemExit(main())\n"


def agent_bytes() -> bytes:
    """Return the zipapp: ``python agent.pyz run --order order.json --directory DIR``.

    Sources only, so that the bytes do not depend on this Python.
    """
    buffer = io.BytesIO()
    folder = Path(__file__).parent
    files = {"__main__.py": _MAIN.encode(), "cloudtune/__init__.py": b""}
    for path in folder.glob("*.py"):
        files[f"cloudtune/node/{path.name}"] = path.read_bytes()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()
