"""The plan of jobs on a cluster, by itself."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune import jobs, pipelines
from cloudtune.backends.eks import EksBackend
from cloudtune.backends.eks_pods import patched_spec
from cloudtune.backends.eks_wire import literal, object_name, run_label
from cloudtune.errors import SpecError
from cloudtune.plan import FromShell, Masked, Plan, Ref, leaves
from cloudtune.spec.document import load
from cloudtune.spec.eks_limits import is_label_value
from cloudtune.spec.infrastructure import EKSJob, SageMakerTrainingJob
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.runtimes import (
    ContainerRuntime,
    GitPythonRuntime,
    NeuronDistributedRuntime,
    NotebookRuntime,
    PyTorchDistributedRuntime,
    Runtime,
    ScriptRuntime,
)
from cloudtune.states import Handle
from tests.manifests import KINDS, check, manifests

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = ("eks-fsdp-vision", "eks-trainium-peft")
PLACE = EKSJob(
    cluster="training", region="us-west-2", instance_type="p5.48xlarge", image="1.dkr.ecr/torch:2", namespace="ml"
)
TRAIN = PyTorchDistributedRuntime(command="torchrun train.py", replicas=2, output_uri="s3://bucket/out")
CONTAINER = ContainerRuntime(entrypoint=("/bin/sh", "-c"), cmd=("echo $(HOME) $$",), args=("a",), env={"A": "$(B)"})


def plan(runtime: Runtime = TRAIN, place: EKSJob = PLACE, **job: Any) -> Plan:
    return EksBackend().plan(JobSpec(**{"name": "j", "infrastructure": place, "runtime": runtime, **job}), "abcdefgh")


def step(found: Plan, identity: str) -> dict[str, Any]:
    (parameters,) = (one["parameters"] for one in found.to_dict()["steps"] if one["id"] == identity)
    return dict(parameters)


def pod(found: Plan) -> dict[str, Any]:
    """Return the spec of the pods, of whatever kind the job is."""
    return template(step(found, "job"))["spec"]


def template(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["spec"]
    if job["kind"] == "PyTorchJob":
        spec = spec["pytorchReplicaSpecs"]["Master"]
    elif job["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    found: dict[str, Any] = spec["template"]
    return found


def container(found: Plan) -> dict[str, Any]:
    (one,) = pod(found)["containers"]
    return dict(one)


def order_in(found: Plan) -> Any:
    return next(
        json.loads(file.content or b"") for one in found.steps for file in one.files if file.path == "order.json"
    )


def handle_of(found: Plan) -> Handle:
    return EksBackend().handle(found, {one.id: {} for one in found.steps})


def refused(found: Plan) -> set[str]:
    return {note.path for note in found.refused}


def approximated(found: Plan) -> set[str]:
    return {note.path for note in found.fields if note.status == "approximated"}


def told(found: Plan) -> dict[str, str]:
    return {notice.path: notice.message for notice in found.warnings}


def test_the_job_is_made_first_and_owns_the_rest() -> None:
    runtime = attrs.evolve(TRAIN, script_path_uri=str(ROOT / "dev.py"), env={"MY_TOKEN": "0123456789"})
    found = plan(runtime)
    assert [(one.id, one.service, one.operation) for one in found.steps] == [
        (name, "kubernetes", "create") for name in ("job", "secret", "service", "files")
    ]
    assert {one.region for one in found.steps} == {"eks:us-west-2/training"}
    assert {one.token for one in found.steps} == {f"cloudtune-abcdefgh-{one.id}" for one in found.steps}
    job, *owned = (step(found, one.id) for one in found.steps)
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("batch/v1", "Job", "j-abcdefgh")
    for one in owned:
        assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("j-abcdefgh", "ml")
        assert one["metadata"]["ownerReferences"] == [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "j-abcdefgh", "uid": "${job.metadata.uid}"}
        ]
    assert set(leaves(found.steps[2].parameters)) == {Ref("job", "metadata.uid")}
    assert [one.within for one in found.steps] == [None, "job", "job", "job"]
    assert (found.steps[0].undo, [one.undo for one in found.steps[1:]]) == (found.steps[0].undo, [None] * 3)
    undo = found.steps[0].undo
    assert undo is not None
    assert (undo.operation, undo.region, undo.parameters["name"]) == ("delete", "eks:us-west-2/training", "j-abcdefgh")
    assert [file.path for file in found.steps[3].files] == ["agent.pyz", "order.json", "code/dev.py"]
    for file in found.steps[3].files[:2]:
        assert (file.bytes, file.sha256) == (len(file.content or b""), hashlib.sha256(file.content or b"").hexdigest())
    assert order_in(found)["code"] == {"kind": "archive", "path": "code.tar.gz"}
    assert plan(runtime).to_json() == found.to_json()


def test_a_job_of_one_node_needs_no_service() -> None:
    assert [one.id for one in plan(attrs.evolve(TRAIN, replicas=1)).steps] == ["job", "files"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_seed_jobs_are_the_golden_plans(name: str) -> None:
    """Compare the whole plan; CLOUDTUNE_GOLDEN=write writes it anew."""
    job = load(GOLDEN / name / "job.yaml")
    assert isinstance(job, JobSpec)
    found = jobs.plan_job(job, "abcdefgh")
    shown = found.to_dict()
    for one in shown["steps"]:
        for file in one.get("files", ()):
            file.update(bytes="...", sha256="...")
    text = json.dumps({"plan": shown, "order": order_in(found)}, indent=2, ensure_ascii=False) + "\n"
    golden = GOLDEN / name / "eks.json"
    if os.environ.get("CLOUDTUNE_GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert refused(found) == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_golden_plans_are_what_the_api_takes(name: str, shared: Path) -> None:
    golden = json.loads((GOLDEN / name / "eks.json").read_text(encoding="utf-8"))
    assert check([one["parameters"] for one in golden["plan"]["steps"]]) == []


def seed(name: str, kind: str, *, verbs: bool = False) -> PipelineSpec:
    """Return a seed's pipeline with another kind of jobs; with ``verbs`` these run in the cluster too."""
    pipeline = load((ROOT / "cloudtune" / "examples" / name / "pipeline.yaml").read_text(encoding="utf-8"))
    assert isinstance(pipeline, PipelineSpec)

    def other(place: Any) -> Any:
        return attrs.evolve(place, job_kind=kind) if isinstance(place, EKSJob) else place

    whole = other(pipeline.infrastructure)
    there = next(other(one.infrastructure) for one in pipeline.steps if one.infrastructure is not None)
    steps = []
    for one in pipeline.steps:
        place = other(one.infrastructure)
        if verbs and one.verb in {"consolidate", "merge"}:
            place = there
        steps.append(attrs.evolve(one, infrastructure=place))
    return attrs.evolve(pipeline, infrastructure=whole, steps=tuple(steps))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_all_of_both_seeds_is_what_the_api_takes(name: str, kind: str, shared: Path) -> None:
    found = pipelines.plan_pipeline(seed(name, kind), "abcdefgh")
    assert check(manifests(found)) == []
    assert refused(found) == set()
    assert {one["kind"].lower() for one in manifests(found)} & {kind.lower()}


def test_the_chain_on_trainium_is_one_jobset_that_needs_no_client(shared: Path) -> None:
    pipeline = seed("eks-trainium-peft", "jobSet", verbs=True)
    pipeline = attrs.evolve(pipeline, steps=tuple(one for one in pipeline.steps if one.verb != "register"))
    found = pipelines.plan_pipeline(pipeline, "abcdefgh")
    assert check(manifests(found)) == []
    assert {one.service for one in found.steps} == {"kubernetes"}
    parts = step(found, "job")["spec"]["replicatedJobs"]
    assert [one["name"] for one in parts] == ["tokenize", "compile", "train", "consolidate", "merge"]
    assert [one.get("dependsOn", [{"name": None}])[0]["name"] for one in parts] == [
        *(None, "tokenize", "compile", "train", "consolidate"),
    ]
    devices = [
        one["template"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].get("aws.amazon.com/neuron")
        for one in parts
    ]
    assert devices == [None, "16", "16", None, None]


RUNTIMES = [
    TRAIN,
    GitPythonRuntime(url="https://example.com/r.git", entrypoint="a.py"),
    NotebookRuntime(notebook_path_uri="https://example.com/a.ipynb"),
    NeuronDistributedRuntime(command="torchrun train.py", tensor_parallel_size=8),
    ScriptRuntime(script_path_uri=str(ROOT / "dev.py")),
    CONTAINER,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.type)
def test_every_runtime_is_a_job_of_every_kind(runtime: Runtime, kind: str, shared: Path) -> None:
    machine = "trn1.32xlarge" if runtime.type == "neuronDistributed" else "p5.48xlarge"
    found = plan(attrs.evolve(runtime, replicas=3), attrs.evolve(PLACE, instance_type=machine, job_kind=kind))
    assert check(manifests(found)) == []
    assert refused(found) == set()
    assert found.launch is not None
    assert found.launch.nodes == 3
    assert ("files" in [one.id for one in found.steps]) == (runtime is not CONTAINER)


def test_a_container_runs_as_given() -> None:
    found = plan(CONTAINER)
    one = container(found)
    assert (one["command"], one["args"]) == (["/bin/sh", "-c"], ["echo $$(HOME) $$$$", "a"])
    assert one["env"] == [{"name": "A", "value": "$$(B)"}]
    assert "spec.runtime.type" in approximated(found)
    own = attrs.evolve(CONTAINER, image="mine:1", image_digest="sha256:ab")
    assert container(plan(own))["image"] == "mine:1@sha256:ab"
    assert "spec.runtime.spec.outputUri" in refused(plan(attrs.evolve(CONTAINER, output_uri="s3://b/o")))
    assert handle_of(found).kind == "containerJob"


def test_the_handle_is_known_once_all_is_there() -> None:
    with pytest.raises(KeyError):
        EksBackend().handle(plan(), {"job": {"metadata": {"uid": "1"}}})
    scope = "eks:us-west-2/training"
    for kind in KINDS:
        handle = handle_of(plan(place=attrs.evolve(PLACE, job_kind=kind)))
        assert handle == Handle(backend="eks", scope=scope, kind=kind, id="ml/j-abcdefgh")
        assert Handle.parse(handle.uri) == handle


@pytest.mark.parametrize(
    ("keys", "scope", "wrong"),
    [
        ({"context": "admin@one"}, "context:admin@one", set()),
        ({"cluster": "c", "region": "eu-west-1"}, "eks:eu-west-1/c", set()),
        ({"context": "a", "cluster": "c", "region": "r"}, "context:a", set()),
        ({}, "", set()),
        ({"region": "us-west-2"}, "", {"spec.infrastructure.spec.region"}),
        ({"cluster": "c"}, "eks:/c", {"spec.infrastructure.spec.region"}),
    ],
)
def test_which_cluster_it_is(
    keys: dict[str, Any], scope: str, wrong: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    found = plan(place=EKSJob(instance_type="p5.48xlarge", image="i", **keys))
    assert refused(found) == wrong
    assert handle_of(found).scope == scope
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    found = plan(place=EKSJob(instance_type="p5.48xlarge", image="i", cluster="c"))
    assert handle_of(found).scope == "eks:eu-north-1/c"
    assert "AWS_REGION" in told(found)["spec.infrastructure.spec.region"]


def test_another_place_is_no_cluster() -> None:
    with pytest.raises(SpecError, match="no job on a cluster"):
        plan(place=SageMakerTrainingJob())  # type: ignore[arg-type]


# --- what the pods are


def test_every_key_of_the_place_has_its_field(shared: Path) -> None:
    place = attrs.evolve(
        PLACE,
        shared_memory="32Gi",
        efa_per_node=16,
        volumes=[
            {"claim": "fsx", "mountPath": "/fsx", "subPath": "mine", "readOnly": True},
            {"claim": "fsx", "mountPath": "/all"},
            {"hostPath": "/mnt/k8s-disks/0", "mountPath": "/local"},
            {"emptyDir": "100Gi", "mountPath": "/scratch"},
        ],
        service_account="trainer",
        queue="team",
        priority_class="high",
        max_restarts=3,
        node_selector={"pool": "gpu"},
        tolerations=[{"key": "mine", "operator": "Exists"}],
        image_pull_secrets=["registry"],
        labels={"team": "vision"},
        annotations={"note": "a b"},
        pod_spec={"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
        resources={"requests": {"cpu": 8, "ephemeral-storage": "10Gi"}, "limits": {"memory": "64Gi"}},
    )
    found = plan(attrs.evolve(TRAIN, maximum_runtime_in_minutes=10, freeform_tags={"a": "b"}), place)
    assert check(manifests(found)) == []
    job = step(found, "job")
    assert job["metadata"]["labels"] == {
        "team": "vision",
        "app.kubernetes.io/managed-by": "cloudtune",
        "cloudtune.dev/run-id": "abcdefgh",
        "kueue.x-k8s.io/queue-name": "team",
    }
    assert job["metadata"]["annotations"] == {
        "note": "a b",
        "cloudtune.dev/name": "j",
        "cloudtune.dev/tags": '{"a": "b"}',
    }
    assert template(job)["metadata"] == {
        "labels": {key: value for key, value in job["metadata"]["labels"].items() if "kueue" not in key},
        "annotations": {"note": "a b"},
    }
    assert job["spec"]["backoffLimit"] == 6
    spec = pod(found)
    assert spec["nodeSelector"] == {"node.kubernetes.io/instance-type": "p5.48xlarge", "pool": "gpu"}
    assert spec["tolerations"][-1] == {"key": "mine", "operator": "Exists"}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("trainer", "high")
    assert (spec["hostNetwork"], spec["activeDeadlineSeconds"]) == (True, 1500)
    assert "automountServiceAccountToken" not in spec
    assert [volume["name"] for volume in spec["volumes"]] == [
        *("shared-memory", "cloudtune", "volume-0", "volume-1", "volume-2")
    ]
    one = container(found)
    assert one["volumeMounts"][2:] == [
        {"name": "volume-0", "mountPath": "/fsx", "subPath": "mine", "readOnly": True},
        {"name": "volume-0", "mountPath": "/all"},
        {"name": "volume-1", "mountPath": "/local"},
        {"name": "volume-2", "mountPath": "/scratch"},
    ]
    devices = {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "16"}
    assert one["resources"] == {
        "requests": {"cpu": 8, "memory": "64Gi", "ephemeral-storage": "10Gi", **devices},
        "limits": {"memory": "64Gi", **devices},
    }
    assert order_in(found)["maximumRuntimeInSeconds"] == 600
    assert {"spec.runtime.spec.freeformTags"} == approximated(found)


def test_a_crash_loop_ends_and_an_eviction_is_no_crash() -> None:
    spec = step(plan(), "job")["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"], pod(plan())["restartPolicy"]) == (0, "Failed", "Never")
    disruption, fatal = spec["podFailurePolicy"]["rules"]
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fatal["action"] == "FailJob"
    assert fatal["onExitCodes"]["values"] == [124, 126, 127]
    for restarts, policy in ((0, "Never"), (2, "OnFailure")):
        job = step(plan(place=attrs.evolve(PLACE, job_kind="pyTorchJob", max_restarts=restarts)), "job")["spec"]
        assert job["runPolicy"] == {"backoffLimit": 2 * restarts + (restarts > 0), "cleanPodPolicy": "None"}
        assert {part["restartPolicy"] for part in job["pytorchReplicaSpecs"].values()} == {policy}
        assert "elasticPolicy" not in job
        job = step(plan(place=attrs.evolve(PLACE, job_kind="jobSet", max_restarts=restarts)), "job")["spec"]
        assert job["failurePolicy"]["maxRestarts"] == restarts
        assert job["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0


def test_hyperpod_is_named_by_its_instance_types() -> None:
    place = attrs.evolve(PLACE, instance_type="ml.p5.48xlarge")
    assert pod(plan(place=place))["nodeSelector"] == {
        "node.kubernetes.io/instance-type": "ml.p5.48xlarge",
        "sagemaker.amazonaws.com/node-health-status": "Schedulable",
    }
    key = "sagemaker.amazonaws.com/enable-job-auto-resume"
    place = attrs.evolve(place, annotations={key: "true"})
    assert "PyTorchJobs alone" in str([one.message for one in plan(place=place).warnings])
    resumed = attrs.evolve(place, job_kind="pyTorchJob", namespace="hyperpod-ns-team")
    found = plan(place=resumed)
    assert not [one for one in found.warnings if key in one.path]
    assert step(found, "job")["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "OnFailure"


def test_a_patch_of_the_pod_changes_what_has_the_same_name() -> None:
    patch = {
        "containers": [
            {"name": "pytorch", "securityContext": {"privileged": True}, "env": [{"name": "X", "value": "1"}]},
            {"name": "side", "image": "side:1"},
        ],
        "volumes": [{"name": "extra", "emptyDir": {}}],
        "tolerations": None,
        "restartPolicy": "OnFailure",
    }
    found = plan(place=attrs.evolve(PLACE, pod_spec=patch))
    own, side = pod(found)["containers"]
    assert (own["securityContext"], own["image"], side) == (
        {"privileged": True},
        "1.dkr.ecr/torch:2",
        patch["containers"][1],
    )
    assert own["env"][-1] == {"name": "X", "value": "1"}
    assert "tolerations" not in pod(found)
    assert [volume["name"] for volume in pod(found)["volumes"]] == ["shared-memory", "cloudtune", "extra"]
    assert patched_spec({"a": [{"name": "x"}]}, {"a": [{"name": "y"}]}) == {"a": [{"name": "y"}]}


# --- secrets


def test_no_secret_stands_in_a_manifest_or_a_command() -> None:
    env = [
        {"name": "HF_TOKEN", "secret": "k8s:hub/token"},
        {"name": "API_KEY", "value": "literal-0123456789"},
        {"name": "WANDB", "secret": "env:MY_WANDB"},
        "USERS",
        {"name": "AWS", "secret": "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbC"},
        {"name": "PLAIN", "value": "yes"},
    ]
    found = plan(attrs.evolve(TRAIN, env=env))
    assert "literal-0123456789" not in found.to_json()
    assert "literal-0123456789" not in json.dumps(order_in(found))
    own = found.steps[1].parameters["stringData"]
    assert own == {
        "API_KEY": Masked("API_KEY", "literal-0123456789"),
        "USERS": FromShell("USERS"),
        "WANDB": FromShell("MY_WANDB"),
    }
    given = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container(found)["env"]}
    assert given["HF_TOKEN"] == {"name": "hub", "key": "token"}
    assert given["API_KEY"] == {"name": "j-abcdefgh", "key": "API_KEY"}
    assert "PLAIN" not in given
    order = order_in(found)
    assert order["environment"]["PLAIN"] == "yes"
    assert order["secrets"] == {
        "HF_TOKEN": "k8s:hub/token",
        "WANDB": "k8s:j-abcdefgh/WANDB",
        "AWS": "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbC",
    }
    assert sorted(order["inherited"]) == ["API_KEY", "USERS"]
    assert refused(found) == set()
    vault = attrs.evolve(TRAIN, env=[{"name": "T", "secret": "ocid1.vaultsecret.oc1.iad.abc"}])
    assert refused(plan(vault)) == {"spec.runtime.spec.env[0].secret"}


def test_the_key_of_a_repository_comes_from_a_secret_of_the_cluster() -> None:
    found = plan(GitPythonRuntime(url="git@example.com:r.git", entrypoint="a.py", git_secret_id="k8s:git/key"))
    assert order_in(found)["code"]["secret"] == "env:CLOUDTUNE_GIT_SECRET"
    assert container(found)["env"][-1] == {
        "name": "CLOUDTUNE_GIT_SECRET",
        "valueFrom": {"secretKeyRef": {"name": "git", "key": "key"}},
    }


# --- code


def test_code_that_does_not_fit_goes_to_s3_or_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_text("echo\n")
    (tmp_path / "noise").write_bytes(os.urandom(1 << 20))
    runtime = ScriptRuntime(script_path_uri=str(tmp_path), entrypoint="train.sh")
    assert refused(plan(runtime)) == {"spec.infrastructure.spec.stagingUri"}
    assert refused(plan(runtime, attrs.evolve(PLACE, staging_uri="oci://b@n/p"))) == {
        "spec.infrastructure.spec.stagingUri"
    }
    found = plan(runtime, attrs.evolve(PLACE, staging_uri="s3://bucket/code/"))
    assert refused(found) == set()
    first = found.steps[0]
    assert (first.id, first.service, first.operation, first.region) == ("code", "aws.s3", "put_object", "us-west-2")
    assert first.parameters == {"Bucket": "bucket", "Key": "code/j-abcdefgh/code.tar.gz"}
    assert order_in(found)["code"] == {"kind": "uri", "uri": "s3://bucket/code/j-abcdefgh/code.tar.gz"}
    assert [file.path for file in found.steps[-1].files] == ["agent.pyz", "order.json"]
    (tmp_path / "noise").write_bytes(bytes(8 << 20))
    found = plan(runtime, attrs.evolve(PLACE, staging_uri="s3://bucket/code/"))
    assert [one.id for one in found.steps] == ["job", "files"]
    assert "spec.infrastructure.spec.stagingUri" in approximated(found)


def test_variables_that_do_not_fit_are_refused() -> None:
    assert refused(plan(attrs.evolve(TRAIN, env={"A": "x" * (1 << 20)}))) == {"spec.runtime.spec.env"}


# --- TrainJob


@pytest.mark.parametrize(
    ("api", "key"),
    [
        ("v2.0", "podSpecOverrides"),
        ("v2.1", "podTemplateOverrides"),
        ("v2.2", "runtimePatches"),
        (None, "runtimePatches"),
    ],
)
def test_each_trainer_api_has_its_own_word_for_changes(api: str | None, key: str) -> None:
    found = plan(place=attrs.evolve(PLACE, job_kind="trainJob", trainer_api=api, service_account="s"))
    spec = step(found, "job")["spec"]
    assert {"podSpecOverrides", "podTemplateOverrides", "runtimePatches"} & set(spec) == {key}
    assert spec["trainer"]["numProcPerNode"] == 8
    assert (spec["runtimeRef"]["name"], spec["trainer"]["numNodes"]) == ("torch-distributed", 2)
    assert "serviceAccountName" in json.dumps(spec[key])
    assert not {one["name"] for one in spec["trainer"]["env"]} & {"PET_NNODES", "PET_MASTER_ADDR"}


def test_only_the_newest_trainer_knows_a_time_limit() -> None:
    """The agent keeps the limit anyway; the pod's own is later, so that outputs come home."""
    limited = attrs.evolve(TRAIN, maximum_runtime_in_minutes=1)
    for api, limit_s in (("v2.2", None), ("v2.3", 960)):
        place = attrs.evolve(PLACE, job_kind="trainJob", trainer_api=api)
        assert step(plan(limited, place), "job")["spec"].get("activeDeadlineSeconds") == limit_s
    bare = attrs.evolve(CONTAINER, maximum_runtime_in_minutes=1)
    place = attrs.evolve(PLACE, job_kind="trainJob")
    assert "spec.runtime.spec.maximumRuntimeInMinutes" in approximated(plan(bare, place))
    assert pod(plan(bare))["activeDeadlineSeconds"] == 60


def test_what_a_train_job_cannot_carry_is_said() -> None:
    place = attrs.evolve(
        PLACE,
        job_kind="trainJob",
        trainer_api="v2.0",
        priority_class="high",
        max_restarts=2,
        image_pull_secrets=["r"],
        pod_spec={"hostNetwork": True},
    )
    found = plan(place=place)
    where = "spec.infrastructure.spec"
    assert refused(found) == {f"{where}.priorityClass", f"{where}.imagePullSecrets", f"{where}.podSpec.hostNetwork"}
    assert approximated(found) == {f"{where}.jobKind", f"{where}.maxRestarts"}


# --- what is told


def test_what_ends_with_the_pod_is_told() -> None:
    uri = "spec.runtime.spec.outputUri"
    bare = attrs.evolve(TRAIN, output_uri=None)
    volume = attrs.evolve(PLACE, volumes=[{"claim": "fsx", "mountPath": "/fsx"}])
    assert "end with the pod" in told(plan(bare))[uri]
    assert "ends with it" in told(plan(attrs.evolve(TRAIN, output_uri="/elsewhere/out"), volume))[uri]
    assert uri not in told(plan(attrs.evolve(TRAIN, output_uri="file:///fsx/out"), volume))
    assert uri not in told(plan(attrs.evolve(bare, output_dir="/fsx/out"), volume))
    read = "spec.runtime.spec.inputs"
    assert "where no file of this machine is" in told(plan(attrs.evolve(TRAIN, inputs={"rows.jsonl": "rows"})))[read]
    assert read not in told(plan(attrs.evolve(TRAIN, inputs={"/fsx/rows": "a", "s3://b/rows": "b"}), volume))
    assert "spec.infrastructure.spec.maxRestarts" in told(plan(place=attrs.evolve(PLACE, max_restarts=1)))


def test_a_pod_without_needs_is_told() -> None:
    found = plan(ScriptRuntime(script_path_uri=str(ROOT / "dev.py")), EKSJob(image="i"))
    assert "first to be evicted" in told(found)["spec.infrastructure.spec.resources"]
    assert "image" in str(refused(plan(place=attrs.evolve(PLACE, image=None))))


# --- names


@given(name=st.text(max_size=80), run_id=st.text(max_size=80))
def test_any_name_becomes_one_that_objects_may_have(name: str, run_id: str) -> None:
    found = object_name(name, run_id or "r")
    assert len(found) <= 40
    assert found[0].isalpha()
    assert found[-1] != "-"
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert is_label_value(run_label(run_id or "r"))


def test_runs_whose_ids_are_alike_have_names_of_their_own() -> None:
    ids = ("abcdefgh", "abcdefgh-a_b", "abcdefgh-a-b", "abcdefgh-A-b", "abcdefgh-" + "s" * 40, "abcdefgh-" + "s" * 39)
    assert len({object_name("j", run_id) for run_id in ids}) == len(ids)


@given(st.text(alphabet="$()AB ", max_size=12))
def test_a_literal_text_is_what_the_kubelet_makes_of_it(text: str) -> None:
    assert expanded(literal(text)) == text


def expanded(text: str) -> str:
    """Expand a text as the kubelet does, with A and B as the container's variables."""
    out, position = "", 0
    while position < len(text):
        here = text[position:]
        if here.startswith("$$"):
            out, position = f"{out}$", position + 2
        elif here.startswith("$(") and ")" in here:
            name = here[2 : here.index(")")]
            out += {"A": "a", "B": "b"}.get(name, f"$({name})")
            position += len(name) + 3
        else:
            out, position = out + here[0], position + 1
    return out
