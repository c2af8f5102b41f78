"""SageMaker's endpoints: models, their configurations, and what answers requests.

Sources: the API reference of CreateModel, CreateEndpointConfig, CreateEndpoint and DeleteEndpoint.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.endpoint_containers import command_of, healthy_after_s
from cloudtune.rehearsal.aws.logs import Logs
from cloudtune.rehearsal.aws.serving import Serving, Unservable
from cloudtune.rehearsal.aws.speech import invalid, page
from cloudtune.rehearsal.aws.training_limits import bucket_and_key
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.nodes import Line
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

MODEL, CONFIG, ENDPOINT = "aws.model", "aws.endpoint_config", "aws.endpoint"
NO_CAPACITY = "no capacity"
GROUP = "/aws/sagemaker/Endpoints/"
#: Kind in ARNs, field of the name, field of the ARN.
_KINDS = {
    MODEL: ("model", "ModelName", "ModelArn"),
    CONFIG: ("endpoint-config", "EndpointConfigName", "EndpointConfigArn"),
    ENDPOINT: ("endpoint", "EndpointName", "EndpointArn"),
}
#: Seconds of this machine in which a server must be healthy.
_HEALTHY_S = 300.0
_FULL = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using a "
    "different ML instance type or after some time."
)
_INTERNAL = "An internal error occurred. Please try again."


class Endpoints:
    """The operations of models, endpoint configurations and endpoints."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        #: What a node runs for an image, for whoever stages a rehearsal; by the image's URI.
        self.commands: dict[str, tuple[str, ...]] = {}
        self._serving: dict[str, Serving] = {}
        self._lock = threading.Lock()
        self.operations: Mapping[str, Deed] = {
            "CreateModel": self.create_model,
            "CreateEndpointConfig": self.create_config,
            "CreateEndpoint": self.create_endpoint,
            "DescribeModel": lambda given, asked: self._shown(MODEL, given, asked),
            "DescribeEndpointConfig": lambda given, asked: self._shown(CONFIG, given, asked),
            "DescribeEndpoint": lambda given, asked: self._shown(ENDPOINT, given, asked),
            "DeleteModel": lambda given, asked: self._forget(MODEL, given, asked),
            "DeleteEndpointConfig": lambda given, asked: self._forget(CONFIG, given, asked),
            "DeleteEndpoint": self.delete_endpoint,
            "ListModels": lambda given, asked: self._listed("Models", MODEL, given, asked),
            "ListEndpointConfigs": lambda given, asked: self._listed("EndpointConfigs", CONFIG, given, asked),
            "ListEndpoints": lambda given, asked: self._listed("Endpoints", ENDPOINT, given, asked),
        }

    def create_model(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Note a container and where its model lies."""
        if given.get("ExecutionRoleArn") in {None, *self.cloud.absent}:
            why = (
                "Please ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to assume the role."
            )
            raise invalid(f"Could not assume role {given.get('ExecutionRoleArn')}. {why}")
        container = given.get("PrimaryContainer")
        if container is None:
            raise invalid("rehearsed SageMaker knows models of one PrimaryContainer alone.")
        source = (container.get("ModelDataSource") or {}).get("S3DataSource")
        if source is None or source["CompressionType"] != "None":
            raise invalid("rehearsed SageMaker knows uncompressed models in an S3DataSource alone.")
        if source["S3DataType"] == "S3Prefix" and not source["S3Uri"].endswith("/"):
            raise invalid(f"S3Uri {source['S3Uri']} of the S3Prefix data type must end with a forward slash.")
        if next(iter(self.cloud.borrowed.objects(*bucket_and_key(source["S3Uri"]))), None) is None:
            raise invalid(f"Could not find model data at {source['S3Uri']}.")
        return self._add(MODEL, given, asked)

    def create_config(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Note on which machines a model answers."""
        variants = given["ProductionVariants"]
        if len(variants) != 1 or "ServerlessConfig" in variants[0]:
            raise invalid("rehearsed SageMaker knows endpoints of one variant with instances alone.")
        (variant,) = variants
        if "InstanceType" not in variant or "InitialInstanceCount" not in variant:
            raise invalid("InstanceType and InitialInstanceCount are required for a variant with instances.")
        self._found(MODEL, {"ModelName": variant.get("ModelName", "")}, asked)
        return self._add(CONFIG, given, asked)

    def create_endpoint(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Begin to bring up an endpoint."""
        config = self._found(CONFIG, given, asked).data["shown"]
        (variant,) = config["ProductionVariants"]
        model = self._found(MODEL, {"ModelName": variant["ModelName"]}, asked).data["shown"]
        counts = {"CurrentInstanceCount": 0, "DesiredInstanceCount": variant["InitialInstanceCount"]}
        more = {
            "EndpointStatus": "Creating",
            "ProductionVariants": [{"VariantName": variant["VariantName"], **counts}],
            "LastModifiedTime": self.cloud.now_s(),
        }
        made = self._add(ENDPOINT, given, asked, **more)
        arn = made["EndpointArn"]
        name = f"endpoint {given['EndpointName']}"
        self.cloud.stage.control(name, self._bring_up, arn, model, variant, asked.region)
        return made

    def delete_endpoint(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Take an endpoint down; what it was made of stays."""
        found = self._found(ENDPOINT, given, asked)

        def going(data: dict[str, Any]) -> dict[str, Any] | None:
            if data["shown"]["EndpointStatus"] in {"Creating", "Deleting"}:
                return None
            return {"shown": {**data["shown"], "EndpointStatus": "Deleting"}}

        if self.store.update(ENDPOINT, found.id, going) is None:
            raise invalid(f'Cannot update in-progress endpoint "{found.id}".')
        self.cloud.stage.control(f"delete {found.id}", self._take_down, found.id)

    def serving(self, name: str, asked: Asked) -> Serving:
        """Return what serves an endpoint; Refused where nothing does."""
        arn = self._arn(ENDPOINT, name, asked.region)
        found = self.store.get(ENDPOINT, arn)
        with self._lock:
            serving = self._serving.get(arn)
        if found is None or found.data["shown"]["EndpointStatus"] != "InService" or serving is None:
            raise Refused(400, "ValidationError", f"Endpoint {name} of account {self.cloud.account} not found.")
        return serving

    # --- what goes on

    def _bring_up(self, arn: str, model: Mapping[str, Any], variant: Mapping[str, Any], region: str) -> None:
        """Get machines and the model, start the servers, and wait until they are healthy."""
        count, kind = variant["InitialInstanceCount"], variant["InstanceType"]
        self._tell(arn, f"getting {count} x {kind}")
        if not self.cloud.stage.sleep(self.cloud.timing.creating_s):
            return
        serving: Serving | None = None
        try:
            if self.cloud.stage.faults.event(NO_CAPACITY, kind):
                raise Unservable(_FULL)  # noqa: TRY301 - what else fails on the way is told the same
            self._tell(arn, f"fetching {model['PrimaryContainer']['ModelDataSource']['S3DataSource']['S3Uri']}")
            serving = self._made(arn, model, variant, region)
            neuron = "neuronx" in model["PrimaryContainer"]["Image"]
            self._tell(arn, "as long as compiling for its cores takes" if neuron else "getting the container ready")
            self._wait(model, variant)
            self._tell(arn, "starting the server")
            serving.start(path="/ping", patience_s=_HEALTHY_S)
        except Unservable as why:
            self._fail(arn, serving, str(why))
            return
        except Exception:
            # the stand-in's own fault, which the rehearsal tells as ours to mend; untold, its user would wait for ever
            self._fail(arn, serving, _INTERNAL)
            raise
        with self._lock:
            self._serving[arn] = serving
        name = variant["VariantName"]
        image = {"SpecifiedImage": model["PrimaryContainer"]["Image"], "ResolutionTime": self.cloud.now_s()}
        counts = {"CurrentInstanceCount": count, "DesiredInstanceCount": count, "DeployedImages": [image]}
        self._note(arn, EndpointStatus="InService", ProductionVariants=[{"VariantName": name, **counts}])

    def _fail(self, arn: str, serving: Serving | None, reason: str) -> None:
        try:
            if serving is not None:
                serving.stop()
        finally:
            self._note(arn, EndpointStatus="Failed", FailureReason=reason[:1024])

    def _made(self, arn: str, model: Mapping[str, Any], variant: Mapping[str, Any], region: str) -> Serving:
        container, name = model["PrimaryContainer"], arn.rpartition("/")[2]
        image = container["Image"]
        variables = container.get("Environment", {})
        command = command_of(image, variables, variant["InstanceType"], self.commands)
        group = GROUP + name

        def hear(number: int, lines: tuple[Line, ...]) -> None:
            stream = f"{variant['VariantName']}/i-{number:017x}"
            rows = ((line.time_s, line.text) for line in lines)
            self.cloud.part(Logs).write(region, group, stream, rows)

        return Serving(
            self.cloud,
            f"endpoint-{name}",
            model=self._fetched(container["ModelDataSource"]["S3DataSource"]["S3Uri"], name),
            command=command,
            environment={**variables, **self.cloud.role_environment(model["ExecutionRoleArn"], name, owner=arn)},
            replicas=variant["InitialInstanceCount"],
            hear=hear,
        )

    def _wait(self, model: Mapping[str, Any], variant: Mapping[str, Any]) -> None:
        """Let the time pass in which the container gets ready; Unservable where it has not so much."""
        takes_s = healthy_after_s(self.cloud.timing, model["PrimaryContainer"]["Image"])
        limit_s = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", 300)
        self.cloud.stage.sleep(min(takes_s, limit_s))
        if takes_s > limit_s:
            message = f"The primary container for production variant {variant['VariantName']} did not pass the ping"
            raise Unservable(f"{message} health check. Please check CloudWatch logs for this endpoint.")

    def _fetched(self, uri: str, name: str) -> Path:
        """Copy a model's files to where they will be served from; Unservable where they cannot lie there."""
        bucket, prefix = bucket_and_key(uri)
        folder = self.cloud.stage.folder / "endpoints" / name / f"model-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        for each in self.cloud.borrowed.objects(bucket, prefix):
            place = folder / each.key[len(prefix) :]
            data = self.cloud.borrowed.get(bucket, each.key)
            if data is None or each.key.endswith("/") or not place.resolve().is_relative_to(folder.resolve()):
                continue
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            except OSError as why:
                message = f"The model data at {uri} could not be fetched: {each.key}: {why.strerror}"
                raise Unservable(message) from why
        return folder

    def _take_down(self, arn: str) -> None:
        self.cloud.stage.sleep(self.cloud.timing.deleting_s)
        with self._lock:
            found = self._serving.pop(arn, None)
        if found is not None:
            with contextlib.suppress(Unservable):
                found.stop()
        self.cloud.forget_roles(arn)
        self.store.remove(ENDPOINT, arn)

    # --- what is kept

    def _add(self, kind: str, given: Mapping[str, Any], asked: Asked, **more: Any) -> dict[str, Any]:
        word, field, arn_field = _KINDS[kind]
        arn = self._arn(kind, given[field], asked.region)
        told = {key: value for key, value in given.items() if key != "Tags"}
        shown = {**told, arn_field: arn, "CreationTime": self.cloud.now_s(), **more}
        tags = {tag["Key"]: tag["Value"] for tag in given.get("Tags", ())}
        try:
            self.store.add(kind, arn, {"shown": shown, "region": asked.region, "tags": tags})
        except KeyError:
            raise invalid(f'Cannot create already existing {word.replace("-", " ")} "{arn}".') from None
        return {arn_field: arn}

    def _shown(self, kind: str, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        shown: dict[str, Any] = self._found(kind, given, asked).data["shown"]
        return shown

    def _forget(self, kind: str, given: Mapping[str, Any], asked: Asked) -> None:
        self.store.remove(kind, self._found(kind, given, asked).id)

    def _listed(self, name: str, kind: str, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of a kind."""
        _, field, arn = _KINDS[kind]
        keys = (field, arn, "CreationTime", "LastModifiedTime", "EndpointStatus")
        rows = [one.data["shown"] for one in self.store.all(kind) if one.data["region"] == asked.region]
        rows = [row for row in rows if given.get("NameContains", "") in row[field]]
        rows, more = page(rows, given, usual=10 if kind == ENDPOINT else 100)
        return {name: [{key: row[key] for key in keys if key in row} for row in rows], **more}

    def _found(self, kind: str, given: Mapping[str, Any], asked: Asked) -> Resource:
        word, field, _ = _KINDS[kind]
        arn = self._arn(kind, given[field], asked.region)
        found = self.store.get(kind, arn)
        if found is None:
            raise invalid(f'Could not find {word.replace("-", " ")} "{arn}".')
        return found

    def _arn(self, kind: str, name: str, region: str) -> str:
        return f"arn:aws:sagemaker:{region}:{self.cloud.account}:{_KINDS[kind][0]}/{name}"

    def _tell(self, arn: str, doing: str) -> None:
        """Note what an endpoint is waiting for: the service itself does not say it."""
        self.store.change(ENDPOINT, arn, doing=doing)

    def _note(self, arn: str, **fields: Any) -> None:
        fields["LastModifiedTime"] = self.cloud.now_s()
        self.store.update(ENDPOINT, arn, lambda data: {"shown": {**data["shown"], **fields}})
