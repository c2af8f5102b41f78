"""infrastructure/eks: files are right by the definitions of what they make, fresh, and grant what is asked for."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cloudtune import rights
from cloudtune.backends import eks_logs, eks_objects
from cloudtune.backends.eks import EksBackend
from cloudtune.diagnosis import kubernetes_mending as mending
from cloudtune.diagnosis import kubernetes_questions as questions
from cloudtune.diagnosis.quantities import amount
from cloudtune.jobs import plan_job
from cloudtune.rehearsal.addresses import Addresses
from cloudtune.rehearsal.kubernetes.kinds import KINDS
from cloudtune.shapes import find
from cloudtune.spec.document import load
from cloudtune.states import Handle

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infrastructure" / "eks"
SHARED = ROOT.parent / "shared"
CLUSTERS = sorted(FOLDER.glob("cluster-*.yaml"))
PAGE = re.sub(r"\s*\\\n\s*", " ", (FOLDER / "README.md").read_text())
#: What the blanks of rights are in the files.
FACTS = {"bucket": "my-bucket", "region": "us-west-2", "account": "111122223333", "secrets": "cloudtune/"}
TABLE = rights.rights("kubernetes")
#: What is measured by DCGM's exporter (its own list), Neuron's monitor, kube-state-metrics, and the kubelet.
MEASURES = {
    *("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"),
    *("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"),
    *("neuroncore_utilization_ratio", "neuron_runtime_memory_used_bytes", "execution_errors_total"),
    *("kube_pod_labels", "kube_pod_info", "kube_pod_status_phase", "kube_pod_container_status_restarts_total"),
    *("container_cpu_usage_seconds_total", "container_memory_working_set_bytes"),
    "container_network_receive_bytes_total",
}


def read(name: str) -> list[dict]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def checker():
    path = SHARED / "tools" / "check_manifests.py"
    if not path.exists():
        pytest.skip("the published definitions of kinds are not here")
    found = module(path)
    return found, found.load_schemas()


# --- clusters


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_eksctl_takes_the_file(path):
    schema = SHARED / "schemas" / "kubernetes" / "eksctl_v1alpha5_schema.json"
    if not schema.exists():
        pytest.skip("eksctl's schema is not here")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    checks = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    assert [error.message for error in checks.iter_errors(yaml.safe_load(path.read_text()))] == []


def test_nodes_have_what_those_of_others_have():
    folder = SHARED / "oracle" / "eksctl"
    if not folder.exists():
        pytest.skip("the clusters of others are not here")
    theirs = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("eks-p5-*.yaml"))]
    common = set.intersection(*(set(one["managedNodeGroups"][-1]) for one in theirs))
    mine = yaml.safe_load((FOLDER / "cluster-p5.yaml").read_text())["managedNodeGroups"][-1]
    # theirs have rights of their own on S3 and logs: here pods have them, and nodes none beyond eksctl's
    assert common - set(mine) == {"iam"}


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_nodes_that_talk_by_efa_stand_together_and_begin_at_none(path):
    config = yaml.safe_load(path.read_text())
    (group,) = [one for one in config["managedNodeGroups"] if one["name"] != "system"]
    shape = find(group["instanceType"])
    assert shape.accelerators
    assert group["efaEnabled"] is (shape.efa_interfaces > 0)
    assert len(group["availabilityZones"]) == 1
    assert set(group["availabilityZones"]) <= set(config["availabilityZones"])
    assert (group["minSize"], group["desiredCapacity"], group["privateNetworking"]) == (0, 0, True)
    assert (shape.neuron_cores == 0) is (group.get("labels") == {"nvidia.com/gpu.present": "true"})
    (boot,) = yaml.safe_load_all(group["overrideBootstrapCommand"])
    assert boot["kind"] == "NodeConfig"


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_pods_may_what_the_table_of_rights_says(path):
    (association,) = yaml.safe_load(path.read_text())["iam"]["podIdentityAssociations"]
    (account,) = [one for one in read("rights/namespace.yaml") if one["kind"] == "ServiceAccount"]
    named = (account["metadata"]["namespace"], account["metadata"]["name"])
    assert (association["namespace"], association["serviceAccountName"]) == named
    given = [{**one, "Sid": ""} for one in association["permissionPolicy"]["Statement"]]
    pods = [right for right in TABLE.values() if right.who == "pods"]
    assert given == [{"Sid": "", **json.loads(right.statement(FACTS))} for right in pods]


# --- rights


def test_roles_are_what_the_table_of_rights_makes():
    made = module(FOLDER / "rights" / "make_roles.py").text()
    assert made == (FOLDER / "rights" / "roles.yaml").read_text(), "run: python infrastructure/eks/rights/make_roles.py"


def test_no_right_may_everything_and_every_feature_is_on_the_page():
    for right in TABLE.values():
        assert "*" not in {*right.verbs, *right.groups, *right.actions} | {*right.resources} - {"*"}, right.id
        assert bool(right.verbs) is not bool(right.actions), right.id
        assert all(re.fullmatch(r"[a-z]+(/[a-z]+)?", one) for one in right.resources if right.verbs), right.id
    reading = {"get", "list", "watch"}
    assert all(set(right.verbs) <= reading for right in TABLE.values() if right.cluster)
    assert all(f"`{right.feature}`" in PAGE for right in TABLE.values())


def test_nobody_may_read_secrets_but_those_that_are_named():
    for right in TABLE.values():
        if "secrets" in right.resources and set(right.verbs) & {"get", "list", "watch"}:
            assert right.names
    assert rights.allowing("list", "secrets") == rights.allowing("watch", "secrets") == ()


def test_every_question_of_doctor_has_its_right():
    folder = ROOT / "cloudtune" / "diagnosis"
    asked = set()
    for path in folder.glob("kubernetes_*.py"):
        asked |= set(re.findall(r"(?<!\.)\b(get|listing)\(\s*\"(\w+)\"", path.read_text()))
    asked |= {("get", "StorageClass"), ("get", "PersistentVolume")}
    assert {kind for _, kind in asked} == set(questions.KINDS)
    for how, kind in sorted(asked):
        version, resource = questions.KINDS[kind]
        verb = "list" if how == "listing" else "get"
        assert rights.allowing(verb, resource, version.rpartition("/")[0]), (verb, resource)


def test_kinds_are_called_as_clusters_call_them():
    served = {(one.kind, one.named(version)): one.plural for one in KINDS for version in one.versions}
    for kind, (version, resource) in questions.KINDS.items():
        assert served[kind, version] == resource


@pytest.mark.parametrize("kind", ["job", "pyTorchJob", "trainJob", "jobSet"])
def test_all_that_a_run_makes_may_be_made_and_removed(kind, tmp_path):
    job = load(
        FOLDER / "all-reduce" / "job.yaml",
        set=[
            f"spec.infrastructure.spec.jobKind={kind}",
            f"spec.runtime.spec.scriptPathURI={FOLDER / 'all-reduce' / 'all_reduce.py'}",
            "spec.runtime.spec.env=[{name: HF_TOKEN, value: hidden}]",
        ],
    )
    plurals = {(one.kind, one.named(version)): one for one in KINDS for version in one.versions}
    for step in plan_job(job).steps:
        one = plurals[step.parameters["kind"], step.parameters["apiVersion"]]
        assert rights.allowing("create", one.plural, one.group), step.id
        assert rights.allowing("delete", one.plural, one.group), step.id


@pytest.mark.parametrize("kind", ["job", "pyTorchJob", "trainJob", "jobSet"])
def test_all_that_a_run_is_asked_may_be_asked(kind):
    """A new call of the backend on a kind of object needs its verb in cloudtune/rights/kubernetes.json."""
    handle = Handle(backend="eks", kind=kind, id="training/x")
    cursor = {"next": "logs", "lines": {"at": 0}, "each": [], "limit": 1}
    backend = EksBackend()
    calls = [backend.look(handle), *backend.cancel(handle), *backend.delete(handle, outputs=False)]
    calls += [eks_logs.next_call(handle, one) for one in (None, {"next": "pods"}, cursor)]
    calls += [eks_objects.workloads(handle, "uid"), eks_objects.events(handle), eks_objects.pods(handle)]
    plurals = {(one.kind, one.named(version)): one for one in KINDS for version in one.versions}
    for call in calls:
        if call.operation == "read_log":
            assert rights.allowing("get", "pods/log")
            continue
        one = plurals[call.parameters["kind"], call.parameters["apiVersion"]]
        for verb in {call.operation, "list" if "labelSelector" in call.parameters else call.operation}:
            assert rights.allowing(verb, one.plural, one.group), call
    source = "".join((ROOT / "cloudtune" / "backends" / f"eks_{name}.py").read_text() for name in ("runs", "logs"))
    assert not re.search(r"\bkind=\"|\"kind\": \"", source), "calls are made in eks_objects, where this test looks"


# --- objects


@pytest.mark.parametrize("name", ["rights", "queues", "storage", "monitoring"])
def test_folders_are_put_together_and_every_object_is_one(name, checker):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    argv = [kubectl, "kustomize", str(FOLDER / name)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    tool, table = checker
    made = list(yaml.safe_load_all(done.stdout))
    assert made
    for one in made:
        assert tool.check(one, table) == [], one["metadata"]["name"]


def test_quotas_are_those_of_two_nodes_of_each_kind():
    objects = read("queues/queues.yaml")
    (queue,) = [one for one in objects if one["kind"] == "ClusterQueue"]
    (group,) = queue["spec"]["resourceGroups"]
    flavors = {one["metadata"]["name"]: one for one in objects if one["kind"] == "ResourceFlavor"}
    assert list(flavors) != [one["name"] for one in group["flavors"]]  # the cheapest is tried first
    assert set(flavors) == {one["name"] for one in group["flavors"]}
    for flavor in group["flavors"]:
        quotas = {one["name"]: amount(one["nominalQuota"]) for one in flavor["resources"]}
        assert list(quotas) == group["coveredResources"]
        labels = flavors[flavor["name"]].get("spec", {}).get("nodeLabels")
        if not labels:
            continue
        shape = find(labels["node.kubernetes.io/instance-type"])
        device = "aws.amazon.com/neuron" if shape.neuron_cores else "nvidia.com/gpu"
        assert quotas["cpu"] == 2 * shape.vcpus
        assert quotas["memory"] == Decimal(int(2 * shape.memory_gb)) * 2**30
        assert quotas[device] == 2 * shape.accelerators
        assert quotas["vpc.amazonaws.com/efa"] == 2 * shape.efa_interfaces


def test_kueue_manages_every_kind_of_job():
    (values,) = read("operators/kueue.yaml")
    config = yaml.safe_load(values["managerConfig"]["controllerManagerConfigYaml"])
    assert set(config["integrations"]["frameworks"]) == {
        *("batch/job", "kubeflow.org/pytorchjob", "trainer.kubeflow.org/trainjob", "jobset.x-k8s.io/jobset")
    }


def test_names_agree_between_the_files():
    storage = {one["metadata"]["name"]: one for name in ("fsx", "ebs") for one in read(f"storage/{name}.yaml")}
    assert storage["fsx-claim"]["spec"]["storageClassName"] in storage
    assert storage["fsx-claim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    (prometheus,) = read("monitoring/prometheus.yaml")
    template = prometheus["prometheus"]["prometheusSpec"]["storageSpec"]["volumeClaimTemplate"]
    assert template["spec"]["storageClassName"] in storage
    assert {one["provisioner"] for one in storage.values() if "provisioner" in one} <= set(mending.DRIVERS)
    addons = {one["name"] for one in yaml.safe_load(CLUSTERS[0].read_text())["addons"]}
    assert {"aws-fsx-csi-driver", "aws-ebs-csi-driver"} <= addons
    job = yaml.safe_load((FOLDER / "all-reduce" / "job.yaml").read_text())["spec"]["infrastructure"]["spec"]
    p5 = yaml.safe_load((FOLDER / "cluster-p5.yaml").read_text())
    assert (job["cluster"], job["region"]) == (p5["metadata"]["name"], p5["metadata"]["region"])
    assert job["instanceType"] == p5["managedNodeGroups"][-1]["instanceType"]


# --- the page, and what doctor prints


def test_the_commands_that_doctor_prints_are_those_of_the_page():
    commands = {*mending.PLUGINS.values(), *mending.OPERATORS.values(), mending.RIGHTS, mending.QUEUES, mending.VOLUME}
    assert [one for one in sorted(commands) if one not in PAGE] == []
    named = {path for one in commands for path in re.findall(r"infrastructure/eks/\S+", f"{one} {PAGE}")}
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path.strip("`,.;")).exists()] == []


def test_versions_are_the_same_everywhere():
    assert [one for one in mending.VERSIONS.values() if f"| {one} |" not in PAGE] == []
    (operator,) = read("operators/training-operator/kustomization.yaml")
    assert operator["resources"][0].endswith(f"?ref={mending.VERSIONS['training-operator']}")
    for name, chart in (("prometheus", "kube-prometheus-stack"), ("dcgm", "dcgm-exporter")):
        assert re.search(rf"{chart} --repo \S+ --version {mending.VERSIONS[name]} ", PAGE)


# --- the dashboard


def test_the_dashboard_is_what_its_script_makes():
    made = module(FOLDER / "monitoring" / "make_dashboard.py").text()
    assert made == (FOLDER / "monitoring" / "dashboard.json").read_text(), (
        "run: python infrastructure/eks/monitoring/make_dashboard.py"
    )


def test_panels_draw_what_is_measured_and_lie_beside_each_other():
    board = json.loads((FOLDER / "monitoring" / "dashboard.json").read_text())
    variables = {one["name"] for one in board["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    numbers = [one["id"] for one in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert {"Runs", "GPUs", "Neuron"} < {one["title"] for one in board["panels"] if one["type"] == "row"}
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            expression = target["expr"]
            assert set(re.findall(r"\$(\w+)", expression)) <= variables
            assert all(expression.count(left) == expression.count(right) for left, right in ("()", "{}", "[]"))
            words = set(re.findall(r"\b(?:[a-z]+_){2,}[a-z]+\b|\bDCGM_\w+|\bneuroncore_\w+", expression))
            assert {one for one in words if not one.startswith(("label_", "group_"))} <= MEASURES, expression
    labels = read("monitoring/prometheus.yaml")[0]["kube-state-metrics"]["metricLabelsAllowlist"][0]
    assert "cloudtune.dev/run-id" in labels
    assert "app.kubernetes.io/managed-by" in labels


# --- the job that measures the network


@pytest.mark.parametrize("kind", ["job", "pyTorchJob", "trainJob", "jobSet"])
def test_the_measuring_job_is_right_in_all_kinds(kind, checker):
    script = FOLDER / "all-reduce" / "all_reduce.py"
    set_ = [f"spec.infrastructure.spec.jobKind={kind}", f"spec.runtime.spec.scriptPathURI={script}"]
    plan = plan_job(load(FOLDER / "all-reduce" / "job.yaml", set=set_))
    assert plan.launch.world_size == 16
    tool, table = checker
    steps = json.loads(plan.to_json())["steps"]
    assert [found for step in steps for found in tool.check(step["parameters"], table)] == []
    assert '"vpc.amazonaws.com/efa": "32"' in json.dumps(steps)


def measure(count: int, *argv: str) -> list[tuple[int, str, str]]:
    """Return how so many processes of the script end, and what they say."""
    script = str(FOLDER / "all-reduce" / "all_reduce.py")
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(Addresses().take_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, "--largest-mib", "4", "--rounds", "2", *argv],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [one.communicate(timeout=300) for one in started]
        return [(one.returncode, *words) for one, words in zip(started, said, strict=True)]
    finally:
        for one in started:
            one.kill()
            one.communicate()


def test_sums_are_measured_and_what_is_too_slow_fails():
    pytest.importorskip("torch", reason="torch is not installed")
    first, second = measure(2)
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert re.search(r"^ +4 +[\d.]+ +[\d.]+ +[\d.]+$", first[1], re.MULTILINE), first
    ((code, _, told),) = measure(1, "--least-gbps", "1e9")
    assert (code, "1e+09 were expected" in told) == (1, True), told
