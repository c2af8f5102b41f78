"""The containers of one pod as nodes of the rehearsal: variables, folders, names, and the last words they leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from cloudtune.rehearsal.kubernetes.container_logs import ContainerLog
from cloudtune.rehearsal.kubernetes.names import full_name, hostname
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.pod_environment import Unconfigured, command_of, variables
from cloudtune.rehearsal.kubernetes.pod_status import Container
from cloudtune.rehearsal.kubernetes.pod_volumes import places_of
from cloudtune.rehearsal.kubernetes.quantities import whole
from cloudtune.rehearsal.nodes import Line, Node, Place

if TYPE_CHECKING:
    from cloudtune.rehearsal.kubernetes.kubelet import Kubelet

#: What containers have at /dev/shm unless a volume is mounted there.
_SHARED_MEMORY_BYTES = 64 << 20
_TERMINATION = "/dev/termination-log"
#: Where a pod finds its service account.
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
#: The most that is taken of a log in place of a termination message.
_LAST_BYTES, _LAST_LINES = 2048, 80
_MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@attrs.define(kw_only=True)
class _Start:
    """What belongs to the present start of a container."""

    log: ContainerLog
    hosts: Path
    message: Path


class Starting:
    """Starts the containers of a pod whose volumes are mounted; ``count`` is told how many lines they say."""

    def __init__(
        self, kubelet: Kubelet, pod: Object, volumes: Mapping[str, Place], count: Callable[[int], None]
    ) -> None:
        self._kubelet, self._pod, self._volumes, self._count = kubelet, pod, volumes, count
        self._starts: dict[str, _Start] = {}

    def start(self, one: Container) -> None:
        """Start a container, the first time or again.

        Raises:
            Unconfigured, Unmounted: what it refers to is not there.
        """
        around, meta = self._kubelet.around, self._pod["metadata"]
        given = {**self._kubelet.usual_variables(self._pod), **around.variables}
        found = variables(self._pod, one.spec, self._find, given=given)
        command = command_of(one.spec, found)
        if not command:
            raise Unconfigured("rehearsed: an image's own entrypoint is not here: set the container's command")
        folder = self._kubelet.folders.pod(meta["uid"], "containers", one.name, str(one.starts))
        message = folder / "termination-log"
        message.touch()
        places = {
            one.spec.get("terminationMessagePath") or _TERMINATION: Place(source=message),
            **around.places,
            **self._account(),
            **places_of(one.spec, self._volumes, found),
        }
        directory = one.spec.get("workingDir") or "/"
        if not _is_there(directory, places):
            own = folder / "work"
            own.mkdir()
            places[directory] = Place(source=own)
        node = Node(
            name=hostname(self._pod),
            folder=folder,
            command=command,
            environment={**found, **around.identity(self._pod)},
            binds=places,
            working_dir=directory,
            memory_limit_bytes=_memory_limit(one.spec),
            memory_ends_all=True,
            shared_memory_bytes=_SHARED_MEMORY_BYTES,
            outside_names=around.outside_names,
        )
        self._begin(one, node, message)

    def _begin(self, one: Container, node: Node, message: Path) -> None:
        kubelet, meta = self._kubelet, self._pod["metadata"]
        log = kubelet.logs.begin(meta["uid"], one.name)
        if kubelet.around.tells:
            log.append(self._substitutes(one))

        def hear(lines: tuple[Line, ...]) -> None:
            log.append(lines)
            self._count(len(lines))

        def started(names: Mapping[str, str]) -> Path:
            one.runs(kubelet.stage.nodes.start(attrs.evolve(node, hosts=names), hear))
            return node.folder / "machine" / "etc" / "hosts"

        own = {name: self._pod["status"]["podIP"] for name in (full_name(self._pod), node.name) if name}
        hosts = kubelet.names.joined(meta["namespace"], own, started)
        self._starts[one.name] = _Start(log=log, hosts=hosts, message=message)

    def over(self, one: Container) -> str:
        """Close what belonged to a container that has ended; return its last words."""
        start = self._starts.pop(one.name, None)
        running = one.running
        if start is None or running is None or running.end is None:
            return ""
        self._kubelet.names.leave(start.hosts)
        start.log.close()
        text = start.message.read_text(errors="replace") if start.message.exists() else ""
        falls_back = one.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        return text or (_last_of(start.log) if falls_back and running.end.code else "")

    def _account(self) -> dict[str, Place]:
        """Return where a container finds the token of its pod's service account, unless the pod wants none."""
        files = self._kubelet.around.account(self._pod)
        if not files or self._pod["spec"].get("automountServiceAccountToken") is False:
            return {}
        folder = self._kubelet.folders.pod(self._pod["metadata"]["uid"], "account")
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return {_ACCOUNT: Place(source=folder, read_only=True)}

    def _find(self, kind: str, name: str) -> Object | None:
        return self._kubelet.objects.get(kind, self._pod["metadata"]["namespace"], name)

    def _substitutes(self, one: Container) -> tuple[Line, ...]:
        """Return what this machine gives in place of what the pod names, in words for its log."""
        limits = (one.spec.get("resources") or {}).get("limits") or {}
        devices = [f"{count} {name}" for name, count in limits.items() if "/" in name and str(count) != "0"]
        told = [f"image {one.spec.get('image', '')} -> programs of this machine"]
        told += [f"{', '.join(devices)} -> this machine"] if devices else []
        now = time.time()
        return tuple(
            Line(time_s=now, node=one.name, stream="stdout", text=f"rehearsed: substituted: {text}") for text in told
        )


def _last_of(log: ContainerLog) -> str:
    text = "".join(f"{line.text}\n" for line in log.read()[-_LAST_LINES:])
    return text[-_LAST_BYTES:]


def _is_there(directory: str, places: Mapping[str, Place]) -> bool:
    below = any(directory == path or directory.startswith(f"{path.rstrip('/')}/") for path in places)
    return below or Path(directory).is_dir()


def _memory_limit(container: Object) -> int | None:
    """Return what a container may use, None where this machine has less anyway."""
    text = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    limit = whole(text) if text is not None else None
    return limit if limit is not None and limit < _MACHINE_BYTES else None
