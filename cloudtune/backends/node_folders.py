"""Paths of a job that mean a folder of the node: what is kept there ends with it, and this machine's files are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudtune.node.uris import local_path
from cloudtune.spec.runtime import Runtime

_WHAT = "spec.runtime.spec"


def ends_with_the_node(runtime: Runtime, mounts: Sequence[str], *, node: str = "node") -> Iterator[tuple[str, str]]:
    """Yield the place of outputs where it is a folder of the node that no mount keeps."""
    path = _path(runtime.output_uri)
    if path is not None and not is_below(path, mounts):
        reason = f"{runtime.output_uri} is a folder of the {node} and ends with it: put it on a volume, or name a URI"
        yield f"{_WHAT}.outputUri", reason


def not_on_the_node(runtime: Runtime, mounts: Sequence[str], *, node: str = "node") -> Iterator[tuple[str, str]]:
    """Yield inputs that are looked up on the node, where no mount brings them."""
    for uri in runtime.inputs:
        path = _path(uri)
        if path is not None and not is_below(path, mounts):
            reason = f"{uri} is looked up on the {node}, where no file of this machine is: put it into a bucket"
            yield f"{_WHAT}.inputs", reason


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path is one of the folders or below it."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _path(uri: str | None) -> str | None:
    """Return the path that a URI means on a node; None for another place, and for text that the node fills in."""
    if not uri or uri.startswith(("$", "<")):
        return None
    path = local_path(uri)
    return None if path is None else path.as_posix()
