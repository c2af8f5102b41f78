"""``s3://`` opened as the user that every other call to AWS is made as, and at the same endpoint.

s3fs asks botocore who the user is when a file system is first opened, and fsspec keeps the file system for as long as
the process lives. A notebook lives for days: whoever has signed in again since, or taken another profile, is given
another one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

#: Below the home: what says who the user is, and is written when somebody signs in.
_FILES = {"AWS_CONFIG_FILE": ".aws/config", "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials"}
_FOLDERS = (".aws/sso/cache", ".aws/login/cache", ".aws/cli/cache")
#: Seconds to connect, and between two bytes.
_OPTIONS: Mapping[str, Any] = {"connect_timeout": 10, "read_timeout": 120, "retries": {"mode": "standard"}}

_known: tuple[object, ...] | None = None
_former: list[Any] = []
_lock = threading.Lock()


def file_system(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI, and the path there."""
    global _known  # noqa: PLW0603 - one user a process
    facts = _facts(os.environ)
    with _lock:
        if _known is not None and _known != facts:
            kind: Any = import_module("s3fs").S3FileSystem
            # kept: another thread may be using one, and s3fs is in a hurry when it closes what is dropped
            _former.extend(kind._cache.values())  # noqa: SLF001 - there is no other list of them
            kind.clear_instance_cache()
        _known = facts
    given = import_module("fsspec.config").conf.get("s3", {})
    options = {} if "config_kwargs" in given else {"config_kwargs": dict(_OPTIONS)}
    files, path = import_module("fsspec.core").url_to_fs(uri, **options)
    return files, str(path)


def _facts(environ: Mapping[str, str]) -> tuple[object, ...]:
    """Return what tells one user from another, and a fresh session from an expired one."""
    home = Path(environ.get("HOME") or Path.home())
    files = [Path(environ[name]) if environ.get(name) else home / path for name, path in _FILES.items()]
    named = tuple(sorted((name, value) for name, value in environ.items() if name.startswith("AWS_")))
    return (hash(named), *(_stamp(path) for path in (*files, *(home / path for path in _FOLDERS))))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.expanduser().stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
