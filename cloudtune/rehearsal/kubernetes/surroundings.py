"""What the pods of a rehearsed cluster have of their surroundings: variables, folders, images, the time they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import attrs

from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.nodes import Place


def _nothing(_: Object) -> Mapping[str, str]:
    return {}


def _nobody(_: Object) -> Mapping[str, bytes]:
    return {}


@attrs.define(kw_only=True)
class Surroundings:
    """What pods have besides what their specification gives them; it can be changed while the cluster runs.

    ``variables`` are those of every container unless it sets them itself; ``identity`` returns those that it has
    because of whose pod it is (keys to a cloud), whatever it sets. ``account`` returns the files by which a pod's
    service account asks the cluster itself, which is at host and port of ``api``. ``absent`` are images that cannot be
    pulled, as names or patterns. With ``tells``, a log begins with what this machine gives in place of what the pod
    names. Nodes with ``outside_names`` can look up names outside this machine.
    """

    variables: Mapping[str, str] = attrs.field(factory=dict)
    identity: Callable[[Object], Mapping[str, str]] = _nothing
    account: Callable[[Object], Mapping[str, bytes]] = _nobody
    api: tuple[str, int] = ("127.0.0.1", 443)
    places: Mapping[str, Place] = attrs.field(factory=dict)
    absent: set[str] = attrs.field(factory=set)
    tells: bool = False
    outside_names: bool = False

    def is_absent(self, image: str) -> bool:
        """Whether an image cannot be pulled."""
        return any(fnmatchcase(image, pattern) for pattern in self.absent)
