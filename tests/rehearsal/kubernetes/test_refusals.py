"""What the stand-in refuses of manifests, and in which words; the same that the published schemas refuse."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.rehearsal.kubernetes.installed import install
from cloudtune.rehearsal.kubernetes.kinds import Kinds
from cloudtune.rehearsal.kubernetes.objects import Objects
from cloudtune.rehearsal.kubernetes.validation import Validation
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Store

SHARED = Path(__file__).resolve().parents[4] / "shared"
#: What the checker says of manifests that a cluster takes: advice, and names that it wants shorter.
ADVICE = ("never reaches Failed", "no process gets a master", "is not a valid name of 63 characters")
CONTAINER: dict[str, Any] = {
    "name": "pytorch",
    "image": "img:1",
    "command": ["sh", "-c", "true"],
    "env": [
        {"name": "A", "value": "b"},
        {"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['x']"}}},
    ],
    "resources": {"requests": {"cpu": "4", "nvidia.com/gpu": 2}, "limits": {"memory": "8Gi", "nvidia.com/gpu": 2}},
    "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
}
POD = {
    "restartPolicy": "Never",
    "containers": [CONTAINER],
    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeSelector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
}
POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2], "containerName": "pytorch"}},
    ]
}
JOB_SPEC = {
    "completionMode": "Indexed",
    "completions": 2,
    "parallelism": 2,
    "backoffLimit": 3,
    "podFailurePolicy": POLICY,
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD},
}


def thing(api: str, kind: str, spec: Any, name: str = "one") -> dict[str, Any]:
    return copy.deepcopy({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})


GOOD = {
    "job": thing("batch/v1", "Job", JOB_SPEC),
    "jobSet": thing(
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        {
            "replicatedJobs": [
                {"name": "first", "template": {"spec": JOB_SPEC}},
                {
                    "name": "node",
                    "dependsOn": [{"name": "first", "status": "Complete"}],
                    "template": {"spec": JOB_SPEC},
                },
            ],
            "failurePolicy": {"maxRestarts": 2},
        },
    ),
    "pyTorchJob": thing(
        "kubeflow.org/v1",
        "PyTorchJob",
        {
            "nprocPerNode": "8",
            "runPolicy": {"backoffLimit": 3, "cleanPodPolicy": "None"},
            "pytorchReplicaSpecs": {
                "Master": {"replicas": 1, "restartPolicy": "ExitCode", "template": {"spec": POD}},
                "Worker": {"replicas": 3, "restartPolicy": "OnFailure", "template": {"spec": POD}},
            },
        },
    ),
    "trainJob": thing(
        "trainer.kubeflow.org/v1alpha1",
        "TrainJob",
        {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"image": "img:1", "numNodes": 2, "numProcPerNode": 8, "command": ["sh"]},
            "runtimePatches": [
                {
                    "manager": "cloudtune.dev/me",
                    "trainingRuntimeSpec": {
                        "template": {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {}}}]}}
                    },
                }
            ],
        },
    ),
    "pod": thing("v1", "Pod", POD),
    "service": thing("v1", "Service", {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 29500}]}),
}


class Judge:
    """An API server's judgement without the wire: strict, and nothing is kept."""

    def __init__(self, trainer: str = "TrainJob") -> None:
        self.kinds = Kinds()
        self.objects = Objects(Store(), self.kinds)
        self.validation = Validation(self.objects, types={"TrainJob": trainer})
        self.objects.admission = self.validation.admit
        install(self.objects, self.kinds, trainer_api="v2.2")

    def __call__(self, manifest: dict[str, Any]) -> str:
        """Return what is said against a manifest, nothing if it is taken."""
        tried = copy.deepcopy(manifest)
        kind = self.kinds.of(tried)
        assert kind is not None, tried
        try:
            unknown = self.validation.drop_unknown(kind, tried)
            self.objects.create(tried, dry=True)
        except Refused as why:
            return f"{why.status} {why.message}"
        return f"unknown {', '.join(unknown)}" if unknown else ""


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """Return one of the good manifests with another value at a path; None takes it away."""
    manifest = copy.deepcopy(GOOD[name])
    here: Any = manifest
    *words, last = [int(word) if word.isdecimal() else word for word in path.split(".")]
    for word in words:
        here = here[word]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return manifest


@pytest.mark.parametrize("name", GOOD)
def test_good_manifests_are_taken(judge: Judge, name: str) -> None:
    assert judge(GOOD[name]) == ""


CONT = "spec.template.spec.containers.0"
REPLICAS = "spec.pytorchReplicaSpecs"


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("job", "metadata.name", "1BAD_name", "metadata.name: Invalid value"),
        ("job", "metadata.labels", {"a": "-b"}, "metadata.labels: Invalid value"),
        ("job", "spec.paralelism", 2, "unknown spec.paralelism"),
        (
            "job",
            "spec.parallelism",
            "2",
            "cannot unmarshal string into Go struct field Job.spec.parallelism of type int32",
        ),
        ("job", "spec.completionMode", "indexed", 'Unsupported value: "indexed": supported values: "NonIndexed"'),
        ("job", "spec.completions", None, "spec.completions: Required value: when completion mode is Indexed"),
        ("job", "spec.template.spec.restartPolicy", "Always", 'supported values: "OnFailure", "Never"'),
        ("job", "spec.template.spec.restartPolicy", "OnFailure", 'only "Never" is supported when podFailurePolicy'),
        ("job", "spec.podReplacementPolicy", "TerminatingOrFailed", 'supported values: "Failed"'),
        ("job", "spec.podFailurePolicy.rules.1.onExitCodes.values", [2, 1], "must be ordered"),
        ("job", "spec.podFailurePolicy.rules.1.onExitCodes.containerName", "x", "containerName: Invalid value"),
        ("job", "spec.maxFailedIndexes", 1, "backoffLimitPerIndex: Required value"),
        ("job", f"{CONT}.image", None, "containers[0].image: Required value"),
        ("job", f"{CONT}.name", "Bad_Name", "containers[0].name: Invalid value"),
        ("job", f"{CONT}.env.0.name", "1X", "env[0].name: Invalid value"),
        ("job", f"{CONT}.env.0.value", 8, "of type string"),
        ("job", f"{CONT}.resources.limits", {"memory": "8Gi"}, "Limit must be set for non overcommitable resources"),
        ("job", f"{CONT}.resources.requests", {"nvidia.com/gpu": 1}, "must be equal to nvidia.com/gpu limit of 2"),
        ("job", f"{CONT}.resources.requests", {"memory": "eight"}, "quantities must match the regular expression"),
        ("job", f"{CONT}.resources.requests", {"memory": "9Gi"}, "must be less than or equal to memory limit"),
        ("job", f"{CONT}.resources", {"limits": {"hugepages-2Mi": "4Mi"}}, "HugePages require cpu or memory"),
        ("job", f"{CONT}.volumeMounts.0.name", "x", 'volumeMounts[0].name: Not found: "x"'),
        (
            "job",
            "spec.template.spec.volumes.0",
            {"name": "shm", "emptyDir": {}, "hostPath": {"path": "/"}},
            "more than 1",
        ),
        ("jobSet", "spec.replicatedJobs.1.dependsOn.0.name", "node", "node cannot depend on replicatedJob: node"),
        ("jobSet", "spec.replicatedJobs.0.name", "node", "Duplicate value"),
        (
            "jobSet",
            "spec.failurePolicy.rules",
            [{"name": "again", "action": "RestartJob"}],
            "feature gate RestartJob is disabled",
        ),
        ("jobSet", "metadata.name", "a" * 60, "longer than 63 characters"),
        ("jobSet", "spec.replicatedJobs.1.dependsOn.0.status", "Done", 'Unsupported value: "Done"'),
        ("pyTorchJob", f"{REPLICAS}.Foo", {"template": {"spec": POD}}, 'Unsupported value: "Foo"'),
        ("pyTorchJob", f"{REPLICAS}.Worker.restartPolicy", "Sometimes", 'Unsupported value: "Sometimes"'),
        ("pyTorchJob", f"{REPLICAS}.Master.replicas", 2, "Master].replicas: Invalid value: 2: must be 1"),
        ("pyTorchJob", f"{REPLICAS}.Worker.template.spec.containers.0.name", "main", "container with name pytorch"),
        ("pyTorchJob", "spec.nprocPerNode", 8, "must be of type string"),
        ("pyTorchJob", "spec.elasticPolicy", {"rdzvBackend": "etcd-v3"}, 'Unsupported value: "etcd-v3"'),
        ("pyTorchJob", "metadata.name", "1job", "DNS-1035 label"),
        ("trainJob", "spec.trainer.env", [{"name": "PET_NNODES", "value": "1"}], "must not have reserved envs"),
        ("trainJob", "spec.runtimeRef.name", "nope", "specified clusterTrainingRuntime must be created before"),
        ("trainJob", "spec.podTemplateOverrides", [], "unknown spec.podTemplateOverrides"),
        ("pod", "spec.serviceAccountName", "nobody", 'serviceaccount "nobody" not found'),
        ("pod", "spec.priorityClassName", "high", "no PriorityClass with name high was found"),
        ("service", "spec.type", "Odd", 'Unsupported value: "Odd"'),
    ],
)
def test_bad_manifests_are_refused_in_the_servers_words(
    judge: Judge, name: str, path: str, value: Any, said: str
) -> None:
    assert said in judge(changed(name, path, value))


def test_what_a_config_map_holds_has_a_limit(judge: Judge) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "x" * (1 << 20)}}
    assert judge(manifest) == ""
    manifest["data"] = {"a": "x" * (1 << 20), "b": "y"}
    assert "Too long: may not be more than 1048576 bytes" in judge(manifest)


def test_an_older_trainer_takes_what_it_knew() -> None:
    older = Judge("TrainJobV21")
    assert "unknown spec.runtimePatches" in older(GOOD["trainJob"])
    manifest = changed("trainJob", "spec.runtimePatches", None)
    manifest["spec"]["podTemplateOverrides"] = [{"targetJobs": [{"name": "node"}]}]
    assert older(manifest) == ""
    # in all versions a number; in older ones also a word
    manifest["spec"]["trainer"]["numProcPerNode"] = "auto"
    assert older(manifest) == ""
    manifest["spec"]["trainer"]["numProcPerNode"] = 0
    assert "must be greater than or equal to 1" in older(manifest)


def test_what_may_not_be_changed_is_kept(judge: Judge) -> None:
    judge.objects.create(GOOD["job"])

    def edit(it: dict[str, Any]) -> None:
        it["spec"]["template"]["spec"]["containers"][0]["image"] = "other"

    with pytest.raises(Refused, match=r"spec.template: Invalid value: .*field is immutable"):
        judge.objects.update("Job", "default", "one", edit)
    judge.objects.update("Job", "default", "one", lambda it: it["spec"].update(suspend=True))
    judge.objects.remove("Job", "default", "one")


# --- against the published schemas


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what says what is wrong with a manifest by the published schemas, with the advice left out."""
    script = SHARED / "tools/check_manifests.py"
    if not script.exists():
        pytest.skip("the published schemas are not here")
    spec = importlib.util.spec_from_file_location("check_manifests", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    few = tmp_path_factory.mktemp("schemas")  # the others take seconds to read
    for name in ("kubeflow.org_pytorchjobs", "jobset.x-k8s.io_jobsets", "trainer.kubeflow.org_trainjobs"):
        (few / f"{name}.yaml").symlink_to(SHARED / f"schemas/kubernetes/{name}.yaml")
    (few / "openapi-v3-1.35").symlink_to(SHARED / "schemas/kubernetes/openapi-v3-1.35")
    module.SCHEMAS = few
    table = module.load_schemas()

    def check(manifest: dict[str, Any]) -> list[str]:
        try:
            found = module.check(manifest, table)
        except (AttributeError, TypeError) as error:  # its rules take for granted that types are right
            return [repr(error)]
        return [one for one in found if not any(word in one for word in ADVICE)]

    return check


SEEDS = sorted((SHARED / "oracle/kubernetes").glob("*.yaml")) if (SHARED / "oracle/kubernetes").exists() else []


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
def test_the_manifests_of_others_are_taken(judge: Judge, seed: Path) -> None:
    for manifest in yaml.safe_load_all(seed.read_text()):
        if manifest and judge.kinds.of(manifest) is not None:
            manifest["metadata"] |= {"name": f"{manifest['metadata']['name'][:40]}-x", "namespace": "default"}
            if (manifest.get("spec") or {}).get("runtimeRef"):
                manifest["spec"]["runtimeRef"] = {"name": "torch-distributed"}
            assert judge(manifest) == "", f"{seed.name}: {manifest['kind']}"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a manifest but what says what it is."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if len(path) > 1 else []
    return found + [
        one for key, below in rows if key not in ("apiVersion", "kind") for one in places(below, (*path, key))
    ]


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """Return a good manifest with something else, something unknown or nothing at one place."""
    manifest = copy.deepcopy(GOOD[draw(st.sampled_from(sorted(GOOD)))])
    path = draw(st.sampled_from([one for one in places(manifest) if one[0] == "spec"]))
    here: Any = manifest
    for word in path[:-1]:
        here = here[word]
    deed = draw(st.sampled_from(["other", "none", "unknown"]))
    if deed == "unknown" and isinstance(here[path[-1]], dict):
        here[path[-1]]["cloudtuned"] = "x"
    elif deed == "none" and isinstance(here, dict):
        del here[path[-1]]
    else:
        values = st.sampled_from([3, -1, 2.5, True, "x", "Bad_Word", "8Qi", [], ["x"], {}, {"x": "y"}, [{"x": 1}]])
        here[path[-1]] = draw(values)
    return manifest


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(manifest=spoiled())
def test_what_the_schemas_refuse_is_refused(judge: Judge, checker: Any, manifest: dict[str, Any]) -> None:
    found = checker(manifest)
    assert not found or judge(manifest), f"{found}\n{json.dumps(manifest)}"
