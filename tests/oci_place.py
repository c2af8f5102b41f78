"""Oracle Cloud on this machine for tests: the stand-in, a user who is known to it, and what a job names.

with oci_place(tmp_path) as place:      # this process is the user: SDK and cloudtune reach the stand-in alone
    place.sdk("data_science", "DataScienceClient").get_job(...)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.keys import Key, make_key
from cloudtune.rehearsal.stage import Stage

#: Seconds of the stand-in's clock in one of this machine's.
SPEED = 100.0


@attrs.frozen(kw_only=True)
class OciPlace:
    """A stand-in that runs; ``compartment`` and the like are OCIDs that it takes for things that exist."""

    stage: Stage
    cloud: Any
    identity: Identity
    compartment: str
    project: str
    subnet: str
    log_group: str

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a client, all of them: for processes that are started."""
        return self.identity.environment(self.cloud.environment())

    def sdk(self, module: str, name: str, **options: Any) -> Any:
        """Return a client of the SDK that signs as the user, and tries once."""
        import importlib

        import oci

        config = oci.config.from_file(str(self.identity.home / ".oci" / "config"))
        given = {"service_endpoint": self.cloud.url, "retry_strategy": oci.retry.NoneRetryStrategy(), **options}
        return getattr(importlib.import_module(f"oci.{module}"), name)(config, **given)


@cache
def _key() -> Key:
    """Return one key for all tests: making one takes as long as a small test."""
    return make_key()


@contextlib.contextmanager
def oci_place(
    folder: Path, *, faults: Iterable[Fault] = (), speed: float = SPEED, session: bool = False, **options: Any
) -> Iterator[OciPlace]:
    """Begin the stand-in and be its user for a while; ``options`` are ``timing`` and ``delivery`` of the cloud.

    With ``session``, the user signs with a session token. The stand-in must not have failed by itself.
    """
    pytest.importorskip("oci", reason="the oci SDK is not installed")
    from cloudtune.rehearsal.oci.cloud import OciCloud
    from cloudtune.rehearsal.oci.ocids import new_ocid

    kinds = {
        "compartment": "compartment",
        "project": "datascienceproject",
        "subnet": "subnet",
        "log_group": "loggroup",
    }
    with Identity() as identity, Stage(folder / "oci", faults=faults, speed=speed) as stage:
        identity._key = _key()
        cloud = OciCloud(stage, identity, **options)
        named = {name: new_ocid(kind) for name, kind in kinds.items()}
        with identity.applied(cloud.environment(session=session)):
            yield OciPlace(stage=stage, cloud=cloud, identity=identity, **named)
    assert stage.errors == ()
