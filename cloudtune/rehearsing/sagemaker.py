"""AWS for a rehearsal: its stand-in, with the buckets that the spec names and its secrets in Secrets Manager."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.rehearsal.aws.cloud import AwsCloud, Timing
from cloudtune.rehearsal.aws.endpoints import ENDPOINT
from cloudtune.rehearsal.aws.imports import JOB as IMPORT
from cloudtune.rehearsal.aws.imports import MODEL
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Change
from cloudtune.rehearsing.clouds import Left, Surroundings

_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])")
_SECRET = re.compile(r"arn:aws[\w-]*:secretsmanager:([a-z0-9-]+):\d{12}:secret:([\w/+=.@-]+)")
_ROLE = re.compile(r"arn:aws[\w-]*:iam::(\d{12}):role/")
_REGION = re.compile(r'"region": "([a-z]{2}(?:-[a-z]+)+-\d)"')
_FILE = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)


class Aws:
    """The stand-in of AWS; see :class:`cloudtune.rehearsing.clouds.StandIn`."""

    name = "AWS"

    def __init__(self, ground: Stage, identity: Identity, around: Surroundings) -> None:
        # what a job has of time is this machine's, however much the service's own waits are shortened
        speed = ground.clock.speed
        text = "\n".join(around.texts)
        self.region = region = next(iter(_REGION.findall(text)), "us-west-2")
        # nothing is compiled here: only longer than an endpoint is given that was not told to wait
        timing = Timing(second_s=speed, grace_s=30.0 * speed, compiling_s=330.0)
        self.cloud = AwsCloud(ground, identity, timing=timing, region=region)
        self.cloud.outside_names, self.cloud.hub_cache = around.online, around.hub_cache
        self.url = self.cloud.url
        accounts = sorted(set(_ROLE.findall(text)))
        default = {f"sagemaker-{region}-{account}" for account in accounts}
        self._buckets = sorted({*_BUCKET.findall(text), *default, self.cloud.bucket})
        for bucket in self._buckets:
            self.cloud.make_bucket(bucket)
        for where, name in sorted(set(_SECRET.findall(text))):
            self._put_secret(where, name, identity.secret(name))

    def _put_secret(self, region: str, name: str, value: str) -> None:
        """Keep a secret that its ARN finds: of a name the services' random ending is a part here."""
        given = {"Name": name, "SecretString": value}
        refusal = self._ask("secretsmanager", "secretsmanager.CreateSecret", region, given)
        if refusal is not None:
            raise UsageError(f"{name} is no name for a secret: {refusal}")

    def push_image(self, account: str, region: str, repository: str, tag: str) -> None:
        """Let a registry have an image of a name; what is in it does not matter here."""
        given = {"registryId": account, "repositoryName": repository}
        target = "AmazonEC2ContainerRegistry_V20150921"
        self._ask("ecr", f"{target}.CreateRepository", region, given)  # it may be there already
        form = "application/vnd.oci.image.manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": form, "annotations": {"rehearsed": f"{repository}:{tag}"}}
        image = {**given, "imageTag": tag, "imageManifest": json.dumps(manifest), "imageManifestMediaType": form}
        self._ask("ecr", f"{target}.PutImage", region, image)

    def _ask(self, service: str, target: str, region: str, given: Mapping[str, Any]) -> str | None:
        """Ask a service that is lent to this cloud, as one of it; return how it refuses, None if it does not."""
        body = json.dumps(given).encode()
        scope = f"rehearsed/20260101/{region}/{service}/aws4_request"
        headers = {
            "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
            "content-type": "application/x-amz-json-1.1",
            "content-length": str(len(body)),
            "x-amz-target": target,
        }
        answer = self.cloud.borrowed.ask("POST", "/", headers=headers, stream=io.BytesIO(body))
        return None if answer.status == 200 else answer.body.decode(errors="replace")[:200]

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which clients find it."""
        return self.cloud.environment()

    def state(self, change: Change) -> tuple[str, str, str] | None:
        """Return what has changed, if it is something that people follow: kind, name, and the state in words."""
        thing = change.resource
        told = _FOLLOWED.get(thing.kind)
        if told is None:
            return None
        what, name, state = told
        in_words = "deleted" if change.deed == "removed" else state(thing.data)
        return (what, str(thing.data["shown"][name]), in_words) if in_words else None

    def left(self) -> Iterable[Left]:
        """Return the objects in all buckets."""
        for bucket in self._buckets:
            for one in self.cloud.borrowed.objects(bucket, ""):
                yield Left(uri=f"s3://{bucket}/{one.key}", bytes=one.bytes)

    def place(self, uri: str) -> Path | None:
        """Return nothing: every place is a client's."""
        return None

    def fetch(self, uri: str, target: Path) -> None:
        """Copy one of them."""
        found = _FILE.fullmatch(uri)
        data = self.cloud.borrowed.get(found["bucket"], found["key"]) if found else None
        if data is None:
            raise UsageError(f"there is nothing at {uri}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _imports(data: Mapping[str, Any]) -> str:
    """Return how far an import is."""
    shown = data["shown"]
    if shown["status"] == "InProgress":
        return f"in progress: {shown['importedModelName']} of {shown['modelDataSource']['s3DataSource']['s3Uri']}"
    if shown["status"] == "Failed":
        return f"failed: {shown.get('failureMessage')}"
    return f"completed: {shown['importedModelArn']}"


def _imported(data: Mapping[str, Any]) -> str:
    """Return whether an imported model answers, once it was asked; before that, nothing."""
    doing = str(data.get("doing", ""))
    return "loading; until then the service answers ModelNotReadyException" if doing == "loading" else doing


def _endpoint(data: Mapping[str, Any]) -> str:
    """Return how far an endpoint is, and what it waits for."""
    shown = data["shown"]
    words = {"Creating": "creating", "InService": "in service", "Deleting": "being deleted", "Failed": "failed"}
    state = words[shown["EndpointStatus"]]
    more = {"creating": data.get("doing"), "failed": shown.get("FailureReason")}.get(state)
    return f"{state}: {more}" if more else state


#: What people follow: what they call it, the field of its name, and its state in words; of jobs their lines tell.
_FOLLOWED: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    IMPORT: ("model import", "jobName", _imports),
    MODEL: ("imported model", "modelName", _imported),
    ENDPOINT: ("endpoint", "EndpointName", _endpoint),
}


def begin(ground: Stage, identity: Identity, around: Surroundings) -> Aws:
    """Begin the stand-in."""
    return Aws(ground, identity, around)
