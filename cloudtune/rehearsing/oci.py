"""Oracle Cloud for a rehearsal: its stand-in, with the buckets that the spec names and its secrets in a vault."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloudtune.errors import UsageError
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.oci.buckets import KIND as BUCKET
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.cloud import Delivery, OciCloud, Timing
from cloudtune.rehearsal.oci.models import DEPLOYMENT
from cloudtune.rehearsal.oci.vault import Vault
from cloudtune.rehearsal.oci.version_sets import MODEL
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Change
from cloudtune.rehearsing.clouds import Left, Surroundings

_URI = re.compile(r"oci://([A-Za-z0-9._-]+)@([A-Za-z0-9._-]+)")
_SECRET = re.compile(r"ocid1\.vaultsecret\.[A-Za-z0-9._-]+")
_FILE = re.compile(r"oci://(?P<bucket>[^@/]+)@(?P<namespace>[^/]+)/(?P<name>.+)", re.DOTALL)
#: What people follow, and what they call it; of jobs and their runs the lines of the run tell.
_FOLLOWED = {MODEL: "model", DEPLOYMENT: "model deployment"}


class Oci:
    """The stand-in of Oracle Cloud; see :class:`cloudtune.rehearsing.clouds.StandIn`."""

    name = "OCI"

    def __init__(self, ground: Stage, identity: Identity, around: Surroundings) -> None:
        # what a job has of time is this machine's, however much the service's own waits are shortened
        speed = ground.clock.speed
        timing = Timing(minute_s=60.0 * speed, grace_s=30.0 * speed)
        self._cloud = OciCloud(ground, identity, timing=timing, delivery=Delivery())
        self._cloud.outside_names, self._cloud.hub_cache = around.online, around.hub_cache
        self._buckets = self._cloud.part(Buckets)
        self.url = self._cloud.url
        for text in around.texts:
            for bucket, namespace in set(_URI.findall(text)):
                self._buckets.make(bucket, namespace=namespace)
                # as infrastructure/oci makes them: the model catalog refers to versions of objects
                ground.store.change(BUCKET, f"{namespace}/{bucket}", versioning="Enabled")
            for secret in set(_SECRET.findall(text)):
                self._cloud.part(Vault).put(secret, identity.secret(secret))

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which clients find it."""
        return self._cloud.environment()

    def state(self, change: Change) -> tuple[str, str, str] | None:
        """Return what has changed, if it is something that people follow: kind, name, and the state in words."""
        thing = change.resource
        if thing.kind not in _FOLLOWED or change.deed == "removed":
            return None
        data = thing.data
        state, why = str(data.get("lifecycleState", "")), str(data.get("lifecycleDetails") or "").rstrip(".")
        return _FOLLOWED[thing.kind], str(data.get("displayName") or thing.id), f"{state}: {why}" if why else state

    def left(self) -> Iterable[Left]:
        """Return the objects in all buckets."""
        for thing in self._cloud.stage.store.all(BUCKET):
            bucket, namespace = str(thing.data["name"]), str(thing.data["namespace"])
            try:
                objects = self._buckets.shelf(namespace, bucket).find().objects
            except Refused:  # deleted meanwhile
                continue
            for one in objects:
                yield Left(uri=f"oci://{bucket}@{namespace}/{one.name}", bytes=one.blob.size)

    def place(self, uri: str) -> Path | None:
        """Return nothing: every place is a client's."""
        return None

    def fetch(self, uri: str, target: Path) -> None:
        """Copy one of them."""
        found = _FILE.fullmatch(uri)
        one = self._buckets.shelf(found["namespace"], found["bucket"]).get(found["name"]) if found else None
        if one is None:
            raise UsageError(f"there is nothing at {uri}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with one.blob.open() as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def begin(ground: Stage, identity: Identity, around: Surroundings) -> Oci:
    """Begin the stand-in."""
    return Oci(ground, identity, around)
