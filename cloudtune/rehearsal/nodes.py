"""A node of a job as a stand-in describes it, and how it ended: values; :mod:`cloudtune.rehearsal.runner` runs them.

A node sees this machine's file system, which it cannot change, and over it what its :class:`Node` says: the cloud's own
paths as folders of the rehearsal, a home, ``/tmp`` and ``/dev/shm`` of its own, an ``/etc/hosts`` with the names of all
nodes. It is no security boundary: it keeps an honest job apart, not a hostile one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs

from cloudtune.errors import UsageError
from cloudtune.rehearsal.isolation import Isolation
from cloudtune.rehearsal.quiet import OFF, credential_places
from cloudtune.rehearsal.rooms import Bind, hosts_text
from cloudtune.rehearsal.wardens import PACKAGES, Order

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOWHERE = "# rehearsed: names outside this machine are not resolved\nnameserver 127.255.255.254\noptions timeout:1\n"

Reason = Literal["exited", "stopped", "killed", "time limit", "out of memory", "died", "lost"]


@attrs.frozen(kw_only=True)
class Place:
    """What a path of a node shows: a folder or file of this machine, or an empty folder in memory for None."""

    source: Path | None = None
    read_only: bool = False
    size_bytes: int | None = None


def _absolute(path: Path | str) -> Path:
    return Path(path).absolute()


def _words(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


def _texts(given: Mapping[str, str]) -> dict[str, str]:
    return dict(given)


def _binds(given: Mapping[str, Path | Place]) -> dict[str, Place]:
    return {path: place if isinstance(place, Place) else Place(source=place) for path, place in given.items()}


@attrs.frozen(kw_only=True)
class Node:
    """One node of a job.

    ``folder`` is where the rehearsal keeps what is the node's own; ``hosts`` maps the names of all nodes to addresses.
    With ``memory_ends_all`` a node that takes more than its memory ends, else its largest process alone.
    ``environment`` is all that the service gives: nothing of the user's shell is added, only what no machine lacks
    (``PATH``, ``HOME``, ``HOSTNAME``, ``LANG``), and the variables that keep SDKs from looking for a cloud.
    """

    name: str = attrs.field()
    folder: Path = attrs.field(converter=_absolute)
    command: tuple[str, ...] = attrs.field(converter=_words, validator=attrs.validators.min_len(1))
    environment: Mapping[str, str] = attrs.field(factory=dict, converter=_texts)
    binds: Mapping[str, Place] = attrs.field(factory=dict, converter=_binds)
    hosts: Mapping[str, str] = attrs.field(factory=dict, converter=_texts)
    working_dir: str = "/"
    memory_limit_bytes: int | None = None
    memory_ends_all: bool = False
    shared_memory_bytes: int | None = None
    time_limit_s: float | None = None
    outside_names: bool = False

    @name.validator
    def _check_name(self, _: object, name: str) -> None:
        if len(name) > 64 or not all(_HOSTNAME.fullmatch(part) for part in name.split(".")):
            raise UsageError(f"{name!r} cannot be the name of a node", hint="letters, digits, dashes; 64 at most")

    @binds.validator
    def _check_binds(self, _: object, binds: Mapping[str, Place]) -> None:
        for path, place in binds.items():
            if not path.startswith("/") or not path.strip("/"):
                raise UsageError(f"{path!r} cannot be a path of a node", hint="name a folder or file below /")
            if place.source is not None and not place.source.exists():
                raise UsageError(f"{path} of node {self.name} is to show {place.source}, which does not exist")


def hub_models(cache: Path | None, variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Place]]:
    """Return by which variables and places a node finds the user's models of the Hub: there where its job looks."""
    if cache is None:
        return {}, {}
    wanted = variables.get("HF_HUB_CACHE", "")
    where = wanted if wanted.startswith("/") and wanted.strip("/") else str(cache)
    return {"HF_HUB_CACHE": where, "HF_HUB_OFFLINE": "1"}, {where: Place(source=cache, read_only=True)}


@attrs.frozen(kw_only=True)
class Line:
    """One line of a node's output; ``stream`` is ``stdout`` or ``stderr``."""

    time_s: float
    node: str
    stream: str
    text: str


@attrs.frozen(kw_only=True)
class End:
    """How a node ended: ``code`` as of ``Popen`` (negative for a signal), and why.

    ``stopped`` and ``killed`` were asked for, ``died`` is a fault of the rehearsal's plan, and ``lost`` means that the
    processes which keep the node were ended from outside.
    """

    code: int
    reason: Reason
    started_s: float
    ended_s: float

    @property
    def exit_code(self) -> int:
        """The code as containers report it: 137 for SIGKILL."""
        return 128 - self.code if self.code < 0 else self.code


def order_of(node: Node, way: Isolation) -> Order:
    """Return what the warden of a node is told; makes the folders of the node's own."""
    machine = node.folder / "machine"
    for name in ("root", "etc", "tmp", "home"):
        (machine / name).mkdir(parents=True, exist_ok=True)
    (machine / "tmp").chmod(0o1777)
    hosts = {node.name: "127.0.0.1", **node.hosts}
    home = node.environment.get("HOME", "/root")
    binds = {"/dev/shm": Place(size_bytes=node.shared_memory_bytes)}  # noqa: S108 - the node's own
    binds |= {"/tmp": Place(source=machine / "tmp"), home: Place(source=machine / "home")}  # noqa: S108
    for path, text in _names(hosts, outside=node.outside_names).items():
        (machine / "etc" / Path(path).name).write_text(text)
        binds[path] = Place(source=machine / "etc" / Path(path).name)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "HOME": home,
        "HOSTNAME": node.name,
        "LANG": "C.UTF-8",
        **OFF,
        **node.environment,
    }
    return {
        "name": node.name,
        "way": way.way,
        "root": str(machine / "root"),
        "protect": way.protected,
        "binds": [_bind(path, place) for path, place in {**binds, **node.binds}.items()],
        "visible": sorted({sys.prefix, sys.base_prefix, str(PACKAGES)}),
        "hidden": [str(path) for path in credential_places()],
        "command": list(node.command),
        "environment": environment,
        "workingDir": node.working_dir,
        "memoryLimitBytes": node.memory_limit_bytes,
        "memoryEndsAll": node.memory_ends_all,
    }


def _bind(path: str, place: Place) -> Bind:
    source = str(place.source.absolute()) if place.source is not None else None
    return {"target": path, "source": source, "read_only": place.read_only, "size_bytes": place.size_bytes}


def _names(hosts: Mapping[str, str], *, outside: bool) -> dict[str, str]:
    """Return the files by which a node finds others by name."""
    files = {"/etc/hosts": hosts_text(hosts)}
    switch = Path("/etc/nsswitch.conf")
    if switch.is_file():  # some systems ask a resolver of their own first
        files[str(switch)] = re.sub(r"(?m)^hosts:.*$", "hosts: files dns", switch.read_text())
    if not outside:
        files["/etc/resolv.conf"] = _NOWHERE
    return files
