"""What lies beside a checkpoint: configs and notes of the training, in its folder or a little above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.uri import absolute, join
from cloudtune.weights.files.folder import Folder, folder_at

#: Folders above the one that was named: OUTPUTS/checkpoint-N/pytorch_model_fsdp_0.
_ABOVE = 2


@attrs.frozen(kw_only=True)
class Surroundings:
    """The folders from a checkpoint upwards: those named with it, then those ``above``, of which little is known."""

    folders: tuple[Folder, ...]
    above: tuple[Folder, ...]

    def having(self, name: str) -> Folder | None:
        """Return the nearest folder with a file of that name, and with whatever else is in it."""
        near = next((folder for folder in self.folders if name in folder), None)
        far = next((folder for folder in self.above if name in folder), None)
        return near if near is not None or far is None else folder_at(far.uri)

    def json(self, name: str) -> Mapping[str, Any]:
        """Return the nearest JSON object of that name; empty if there is none to be read."""
        folder = self.having(name)
        try:
            return folder.json(name) if folder is not None else {}
        except UsageError:  # good to know, and not needed
            return {}


def surroundings(folder: Folder, place: str, names: tuple[str, ...]) -> Surroundings:
    """Return the folders from a place below a folder upwards; above the folder only files of these names are known."""
    return Surroundings(folders=(*_below(folder, place),), above=(*_above(folder, names),))


def _below(folder: Folder, place: str) -> Iterator[Folder]:
    parts = place.rstrip("/").split("/") if place else []
    for depth in range(len(parts), -1, -1):
        begin = "/".join(parts[:depth]) + "/" if depth else ""
        inside = {name[len(begin) :]: size for name, size in folder.files.items() if name.startswith(begin)}
        files = {name: size for name, size in inside.items() if "/" not in name}
        yield Folder(uri=join(folder.uri, begin), files=files)


def _above(folder: Folder, names: tuple[str, ...]) -> Iterator[Folder]:
    # the folder itself, too: of a checkpoint that is one file nothing else in it is known
    uri = f"{absolute(folder.uri).rstrip('/')}/"
    for _ in range(_ABOVE + 1):
        uri = uri.rpartition("/")[0]
        if not uri or uri.endswith((":/", "//")) or "/" not in uri.partition("://")[2]:
            return
        found: dict[str, int] = {}
        for name in names:
            try:
                entries = storage.listing(join(uri, name))
            except CloudtuneError:  # a place that may not be read says nothing
                return
            if entries and not entries[0].path:
                found[name] = entries[0].bytes
        yield Folder(uri=uri, files=found)
