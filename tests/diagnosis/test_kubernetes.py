"""What a job presupposes on a cluster, asked of the stand-in with the user's own rights."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import rights
from cloudtune.diagnosis import document, places
from cloudtune.diagnosis.checks import Surroundings, carried_out
from cloudtune.plan import Call
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage

pytest.importorskip("kubernetes", reason="kubernetes is not installed")
pytest.importorskip("botocore", reason="botocore is not installed")

from cloudtune.clients.kubernetes import KubernetesClient
from cloudtune.diagnosis import kubernetes_nodes
from cloudtune.diagnosis.quantities import amount
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.kubernetes.machines import node_manifest
from tests.rights import on_cluster

SPACE = "training"
CONFIG = "kueue-manager-config"


@attrs.frozen(kw_only=True)
class Place:
    """A cluster in which nothing happens by itself."""

    cluster: Cluster
    stage: Stage
    folder: Path

    def make(self, kind: str, name: str, *, space: str | None = SPACE, status: Any = None, **rest: Any) -> None:
        """Create an object, in place of one of that name."""
        api = self.cluster.kinds[kind].api_version
        labels, data = rest.pop("labels", {}), rest
        metadata = {"name": name, **({"namespace": space} if space else {}), "labels": labels}
        if self.cluster.objects.get(kind, space, name) is not None:
            self.cluster.objects.delete(kind, space, name)
        self.cluster.objects.create(
            {"apiVersion": api, "kind": kind, "metadata": metadata, **data}, **({"status": status} if status else {})
        )

    def node(
        self, name: str, instance_type: str = "g5.12xlarge", *, without: tuple[str, ...] = (), **more: Any
    ) -> None:
        """Add a node; of its devices it does not offer those of ``without``."""
        given = {"labels": {}, "taints": (), **more}
        manifest, status = node_manifest(
            name, instance_type, address="10.0.0.1", region="us-west-2", zone="us-west-2b", **given
        )
        status["allocatable"] = {key: text for key, text in status["allocatable"].items() if key not in without}
        self.cluster.objects.create(manifest, status=status)

    def look(self, *, runtime: Any = None, kind: str = "job", **changes: Any) -> Sequence[Any]:
        """Return what doctor finds of a job with these keys."""
        given = {"namespace": SPACE, "instanceType": "g5.12xlarge", "image": "img:1", "jobKind": kind, **changes}
        spec = {key: value for key, value in given.items() if value is not None}
        what = {"command": "torchrun train.py", "replicas": 2, **(runtime or {})}
        data = {
            "name": "j",
            "infrastructure": {"kind": "infrastructure", "type": "eksJob", "spec": spec},
            "runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": what},
        }
        file = self.folder / "job.json"
        file.write_text(json.dumps({"kind": "job", "spec": data}))
        found = document.read(file, environ=os.environ)
        assert found.subjects, found.findings
        return carried_out(places.checks(found.subjects, Surroundings(environ=os.environ)))


@contextlib.contextmanager
def cluster_place(folder: Path, **options: Any) -> Iterator[Place]:
    with Identity() as identity, Stage(folder / "stage") as stage:
        cluster = Cluster(stage, identity, acts=False, **options)
        with identity.applied(cluster.environment()):
            place = Place(cluster=cluster, stage=stage, folder=folder)
            place.make("Namespace", SPACE, space=None)
            yield place
    assert stage.errors == ()


@pytest.fixture
def place(tmp_path):
    with cluster_place(tmp_path) as made:
        yield made


def of(findings, check):
    return [(one.status, one.message) for one in findings if one.check == check]


def problems(findings):
    return [(one.check, one.message) for one in findings if one.status == "problem"]


def hint(findings, check):
    return next(one.hint for one in findings if one.check == check and one.status != "ok")


def furnished(place: Place) -> dict[str, Any]:
    """Make all that a job may name; return the keys that name it."""
    for number in range(2):
        place.node(f"n{number}")
    place.make("CSIDriver", "fsx.csi.aws.com", space=None, spec={})
    place.make("StorageClass", "fsx", space=None, provisioner="fsx.csi.aws.com")
    volume(place)
    place.make("ServiceAccount", "cloudtune")
    place.make("PriorityClass", "high", space=None, value=1000)
    place.make("Secret", "huggingface", data={"token": "bmV2ZXIgcmVhZA=="})
    place.make("Secret", "registry", data={})
    active = [{"type": "Active", "status": "True", "reason": "Ready", "message": "can admit"}]
    place.make("LocalQueue", "training", spec={"clusterQueue": "all"}, status={"conditions": active})
    return {
        "volumes": [{"claim": "fsx-claim", "mountPath": "/fsx"}],
        "serviceAccount": "cloudtune",
        "priorityClass": "high",
        "imagePullSecrets": ["registry"],
        "queue": "training",
        "runtime": {"env": [{"name": "HF_TOKEN", "secret": "k8s:huggingface/token"}]},
    }


def volume(place: Place, *modes: str, phase: str = "Bound") -> None:
    spec = {
        "accessModes": list(modes or ("ReadWriteMany",)),
        "storageClassName": "fsx",
        "resources": {"requests": {"storage": "1200Gi"}},
    }
    place.make("PersistentVolumeClaim", "fsx-claim", spec=spec, status={"phase": phase})


@pytest.mark.parametrize("kind", ["job", "pyTorchJob", "trainJob", "jobSet"])
def test_a_job_that_has_everything_has_nothing_to_be_told(place, kind):
    given = furnished(place)
    config = {"data": {"controller_manager_config.yaml": "integrations:\n  frameworks:\n  - kubeflow.org/pytorchjob\n"}}
    place.make("ConfigMap", CONFIG, space="kueue-system", **config)
    found = place.look(kind=kind, **given)
    assert {one.status for one in found} == {"ok"}, [one for one in found if one.status != "ok"]
    assert {one.check for one in found} >= {"cluster", "rights", "nodes", "queue", "volumes", "secrets", "namespace"}
    (nodes,) = of(found, "nodes")
    assert nodes[1].startswith("the job takes 2 nodes, each with ")
    assert nodes[1].endswith("4 nvidia.com/gpu, 1 vpc.amazonaws.com/efa; 2 of 2 that it chooses could give that")
    groups = {"job": set(), "pyTorchJob": {"kubeflow.org"}, "jobSet": {"jobset.x-k8s.io"}}
    served = {message.partition(" is served")[0] for _, message in of(found, "operators") if " is served" in message}
    assert served == {*groups.get(kind, {"trainer.kubeflow.org", "jobset.x-k8s.io"}), "kueue.x-k8s.io"}


def test_only_questions_are_asked_and_no_secret_is_read(place):
    given = furnished(place)
    before = len(place.stage.record.calls)
    place.look(**given)
    calls = place.stage.record.calls[before:]
    assert {one.method for one in calls} == {"GET", "POST"}
    sent = {one.target.partition("?")[0].rpartition("/")[2] for one in calls if one.method == "POST"}
    assert sent == {"selfsubjectreviews", "selfsubjectaccessreviews"}
    told = KubernetesClient().read(
        kubernetes_call("get", "Secret", namespace=SPACE, name="huggingface", metadataOnly=True)
    )
    assert (told["metadata"]["name"], "data" in told) == ("huggingface", False)
    asked = [one for one in calls if "/secrets/" in one.target]
    assert len(asked) == 2
    assert all("as=PartialObjectMetadata" in dict(one.headers)["accept"] for one in asked)


def kubernetes_call(operation: str, kind: str, **parameters: Any) -> Call:
    return Call(service="kubernetes", operation=operation, parameters={"apiVersion": "v1", "kind": kind, **parameters})


def test_what_does_not_exist_is_told_with_the_command_that_makes_it(place):
    found = place.look(
        namespace="nowhere",
        serviceAccount="nobody",
        priorityClass="top",
        queue="none",
        imagePullSecrets=["registry"],
        volumes=[{"claim": "fsx-claim", "mountPath": "/fsx"}],
        runtime={"env": [{"name": "HF_TOKEN", "secret": "k8s:huggingface/token"}]},
    )
    assert problems(found) == [
        ("namespace", "namespace nowhere does not exist"),
        ("queue", "queue none does not exist in namespace nowhere: the job would not be started"),
        ("priority", "priority class top does not exist"),
        ("account", "service account nobody does not exist in namespace nowhere"),
        ("secrets", "secret huggingface does not exist in namespace nowhere"),
        ("secrets", "secret registry does not exist in namespace nowhere"),
        ("volumes", "claim fsx-claim does not exist in namespace nowhere"),
    ]
    assert hint(found, "namespace") == "kubectl create namespace nowhere"
    assert hint(found, "account") == "kubectl -n nowhere create serviceaccount nobody"
    assert hint(found, "secrets") == ("kubectl -n nowhere create secret generic huggingface --from-file=token=<file>")
    assert "infrastructure/eks/storage" in hint(found, "volumes")
    wheres = {one.check: one.where for one in found if one.status == "problem"}
    assert wheres["queue"] == "spec.infrastructure.spec.queue"


def test_a_queue_that_is_not_there_names_those_that_are(place):
    furnished(place)
    found = place.look(queue="trainign")
    assert hint(found, "queue") == "there are training"


# --- nodes


def test_groups_scaled_to_none_are_unknown_not_missing(place):
    place.node("system", "m7i.xlarge")
    found = place.look(cluster=None)
    assert of(found, "nodes") == [
        (
            "unknown",
            "no node with node.kubernetes.io/instance-type=g5.12xlarge is there now; there are m7i.xlarge",
        )
    ]
    assert "eksctl scale nodegroup --cluster <cluster>" in hint(found, "nodes")
    assert problems(found) == []


@pytest.mark.parametrize(
    ("kind", "missing", "chart"),
    [
        ("g5.12xlarge", "nvidia.com/gpu", "nvidia-device-plugin"),
        ("g5.12xlarge", "vpc.amazonaws.com/efa", "aws-efa-k8s-device-plugin"),
        ("trn1.32xlarge", "aws.amazon.com/neuron", "neuron-helm-chart"),
    ],
)
def test_nodes_that_offer_no_devices_lack_a_plugin(place, kind, missing, chart):
    place.node("n0", kind, without=(missing,))
    place.node("n1", kind, without=(missing,))
    found = place.look(instanceType=kind)
    assert problems(found) == [("nodes", f"2 x {kind} offer no {missing}")]
    assert f"helm upgrade --install {'neuron' if 'neuron' in missing else ''}" in hint(found, "nodes")
    assert chart in hint(found, "nodes")


def test_neuron_devices_may_be_given_by_claims(place):
    place.node("n0", "trn1.32xlarge", without=("aws.amazon.com/neuron", "aws.amazon.com/neuroncore"))
    place.make("DeviceClass", "neuron.aws.com", space=None, spec={})
    found = place.look(instanceType="trn1.32xlarge")
    assert "by resource claims" in problems(found)[0][1]


def test_nodes_that_have_too_little_or_do_not_want_the_job(place):
    place.node("n0", taints=({"key": "team", "value": "a", "effect": "NoSchedule"},))
    found = place.look()
    ((status, message),) = of(found, "nodes")
    assert (status, "n0: taint team=a:NoSchedule" in message) == ("problem", True)
    assert hint(found, "nodes") == "tolerations: [{key: team, operator: Exists}] in the spec"
    assert problems(place.look(tolerations=[{"key": "team", "operator": "Exists"}])) == []
    ((status, message),) = of(place.look(tolerations=[{"key": "team", "operator": "Exists"}]), "nodes")
    assert (status, message.endswith("1 of 1 that it chooses could give that")) == ("warning", True)
    found = place.look(
        resources={"requests": {"memory": "4Ti"}, "limits": {"memory": "4Ti"}},
        tolerations=[{"key": "team", "operator": "Exists"}],
    )
    ((_, message),) = problems(found)
    assert message.startswith("each node takes 4096Gi memory, and g5.12xlarge has ")
    assert hint(found, "nodes").startswith("ask for less: resources: {requests: {memory: ...}}")


def test_hyperpod_calls_its_machines_otherwise(place):
    place.node("n0", "ml.g5.12xlarge")
    found = place.look()
    assert problems(found) == [("nodes", "no node is g5.12xlarge, and some are ml.g5.12xlarge")]
    assert hint(found, "nodes") == "instanceType: ml.g5.12xlarge"


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        ({"operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Exists"}, {"key": "a", "value": "1", "effect": "NoExecute"}, True),
        ({"key": "a", "operator": "Exists", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}, False),
        ({"key": "a", "value": "1"}, {"key": "a", "value": "1", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Equal", "value": "2"}, {"key": "a", "value": "1", "effect": "NoSchedule"}, False),
        ({"key": "b", "operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}, False),
    ],
)
def test_which_pods_nodes_take(toleration, taint, expected):
    assert kubernetes_nodes.tolerates(toleration, taint) is expected


# --- kinds


@pytest.mark.parametrize(
    ("kind", "without", "command"),
    [
        ("pyTorchJob", "training-operator", "kubectl apply --server-side -k infrastructure/eks/operators"),
        ("trainJob", "trainer", "kubeflow-trainer --version"),
        ("jobSet", "jobset", "charts/jobset --version"),
    ],
)
def test_kinds_that_are_not_served_name_their_operator(tmp_path, kind, without, command):
    operators = [one for one in ("training-operator", "trainer", "jobset", "kueue") if one != without]
    with cluster_place(tmp_path, operators=operators) as place:
        found = place.look(kind=kind)
    missing = [one for one in found if one.check == "operators" and "is not installed" in one.message]
    assert [one.status for one in missing] == ["problem"]
    assert command in missing[0].hint


def test_an_operator_that_was_removed_or_does_not_run(place):
    named = ("Deployment", "kubeflow", "training-operator")
    gone = place.cluster.objects.get(*named)
    place.cluster.objects.delete(*named)
    found = place.look(kind="pyTorchJob")
    assert [status for status, _ in of(found, "operators")] == ["warning"]
    place.make(named[0], named[2], space=named[1], spec=gone["spec"], status={"replicas": 1})
    assert problems(place.look(kind="pyTorchJob")) == [
        ("operators", "kubeflow.org is served, and its operator training-operator does not run")
    ]


def test_train_jobs_of_another_version_are_told_which(tmp_path):
    with cluster_place(tmp_path, trainer_api="v2.1") as place:
        (problem,) = [one for one in place.look(kind="trainJob") if one.status == "problem"]
        assert problem.message == "the cluster's TrainJobs are those of v2.1, and the job is written for v2.2"
        assert (problem.hint, problem.where) == ("trainerApi: v2.1", "spec.infrastructure.spec.trainerApi")
        assert problems(place.look(kind="trainJob", trainerApi="v2.1")) == []


# --- what the namespace allows


def test_volumes_of_one_node_are_no_volumes_of_two(place):
    given = furnished(place)
    volume(place, "ReadWriteOnce")
    assert problems(place.look(**given)) == [
        ("volumes", "claim fsx-claim is ReadWriteOnce, and 2 nodes are to mount it")
    ]
    assert problems(place.look(**{**given, "runtime": {**given["runtime"], "replicas": 1}})) == []


def test_a_claim_without_volume_or_driver(place):
    given = furnished(place)
    volume(place, phase="Pending")
    assert of(place.look(**given), "volumes")[0] == ("warning", "claim fsx-claim has no volume yet: it is Pending")
    place.make(
        "StorageClass", "fsx", space=None, provisioner="fsx.csi.aws.com", volumeBindingMode="WaitForFirstConsumer"
    )
    assert of(place.look(**given), "volumes")[0][0] == "ok"
    place.cluster.objects.delete("CSIDriver", None, "fsx.csi.aws.com")
    found = place.look(**given)
    assert problems(found) == [("volumes", "driver fsx.csi.aws.com is not installed: its volumes cannot be mounted")]
    assert hint(found, "volumes") == "eksctl create addon --cluster <cluster> --name aws-fsx-csi-driver"


def test_a_queue_that_takes_no_jobs_says_why(place):
    given = furnished(place)
    stopped = [{"type": "Active", "status": "False", "reason": "Stopped", "message": "Can't submit new workloads"}]
    place.make("LocalQueue", "training", spec={"clusterQueue": "all"}, status={"conditions": stopped})
    found = place.look(**given)
    assert problems(found) == [("queue", "queue training takes no jobs now: Can't submit new workloads")]
    assert hint(found, "queue") == "kubectl describe clusterqueue all says why"


def test_kueue_ignores_pytorchjobs_unless_it_is_told_to_manage_them(place):
    given = furnished(place)
    text = "integrations:\n  frameworks:\n  - batch/job\n  # - kubeflow.org/pytorchjob\n"
    place.make("ConfigMap", CONFIG, space="kueue-system", data={"controller_manager_config.yaml": text})
    found = place.look(kind="pyTorchJob", **given)
    assert problems(found) == [("queue", "Kueue ignores PyTorchJobs: the job would start past its queue")]
    assert "integrations.frameworks" in hint(found, "queue")


def test_quotas_limits_and_pod_security(place):
    given = furnished(place)
    hard, used = {"requests.nvidia.com/gpu": "8", "pods": "10"}, {"requests.nvidia.com/gpu": "4", "pods": "0"}
    place.make("ResourceQuota", "q", spec={"hard": hard}, status={"hard": hard, "used": used})
    found = place.look(**given)
    assert of(found, "quota")[0] == ("warning", "the job takes 8 nvidia.com/gpu, and quota q leaves 4")
    hard = {"requests.nvidia.com/gpu": "4"}
    place.make("ResourceQuota", "q", spec={"hard": hard}, status={"hard": hard, "used": {}})
    limits = {"limits": [{"type": "Container", "max": {"nvidia.com/gpu": "2"}}]}
    place.make("LimitRange", "l", spec=limits)
    level = {"pod-security.kubernetes.io/enforce": "baseline"}
    place.cluster.objects.update("Namespace", None, SPACE, lambda thing: thing["metadata"].update(labels=level))
    given["volumes"] = [*given["volumes"], {"hostPath": "/data", "mountPath": "/data"}]
    assert problems(place.look(**given)) == [
        (
            "namespace",
            "namespace training is held to baseline Pod Security, which lets no pod mount paths of nodes: /data",
        ),
        ("quota", "the job takes 8 nvidia.com/gpu, and quota q leaves 4"),
        ("quota", "a node of the job takes 4 nvidia.com/gpu, and namespace training allows a container 2"),
    ]


def test_steps_of_a_pipeline_are_looked_at_each_and_what_they_share_once(place):
    given = furnished(place)
    volume(place, "ReadWriteOnce")
    spec = {"namespace": SPACE, "instanceType": "g5.12xlarge", "image": "img:1", "volumes": given["volumes"]}
    infrastructure = {"kind": "infrastructure", "type": "eksJob", "spec": spec}

    def step(name: str, nodes: int) -> dict[str, Any]:
        what = {"command": "torchrun train.py", "replicas": nodes}
        return {
            "name": name,
            "job": {"name": name, "runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": what}},
        }

    steps = [step("one", 1), {**step("two", 2), "needs": ["one"]}, {**step("again", 2), "needs": ["two"]}]
    file = place.folder / "pipeline.json"
    file.write_text(
        json.dumps({"kind": "pipeline", "spec": {"name": "p", "infrastructure": infrastructure, "steps": steps}})
    )
    found = document.read(file, environ=os.environ)
    findings = carried_out(places.checks(found.subjects, Surroundings(environ=os.environ)))
    assert [status for status, _ in of(findings, "volumes")] == ["ok", "ok", "problem"]  # one node, the driver, two
    assert len(of(findings, "nodes")) == 2
    assert len(of(findings, "cluster")) == len(of(findings, "rights")) == len(of(findings, "namespace")) == 1


# --- rights


def test_the_rights_of_infrastructure_are_enough_for_doctor(place):
    given = furnished(place)
    place.cluster.access.granted = on_cluster(SPACE)
    found = place.look(kind="trainJob", **given)
    assert {one.status for one in found} == {"ok"}, [one for one in found if one.status != "ok"]
    assert of(found, "rights") == [("ok", "you may do what running such a job takes in namespace training")]


def test_a_right_that_is_missing_is_named_with_its_rule(place):
    given = furnished(place)
    place.cluster.access.granted = on_cluster(SPACE) - {"get pods/log@training", "list nodes"}
    found = place.look(**given)
    (problem,) = [one for one in found if one.status == "problem"]
    assert problem.message == "you may not get pods/log in namespace training: watch and logs read what nodes print"
    assert problem.statements == (rights.rights("kubernetes")["users.logs"].statement(),)
    assert "kubectl apply -k infrastructure/eks/rights" in problem.hint
    (nodes,) = [one for one in found if one.check == "nodes"]
    assert (nodes.status, nodes.message) == ("unknown", "you may not look at nodes of the cluster")
    assert json.loads(nodes.statements[0])["resources"] == ["nodes", "namespaces", "persistentvolumes"]


def test_a_cluster_that_is_not_there_is_said_once(place, monkeypatch):
    (found,) = place.look(context="no-such-context")
    assert (found.check, found.where) == ("cluster", "spec.infrastructure.spec.context")
    assert found.status in {"problem", "unknown"}
    assert "no-such-context" in found.message


def test_a_cluster_that_does_not_answer_is_unknown_within_seconds(place):
    place.cluster.add_context("gone", server="https://127.0.0.1:1")
    (found,) = place.look(context="gone")
    assert (found.check, found.status) == ("cluster", "unknown")
    assert found.message.startswith("the cluster of context gone: the cluster is not reached: ")
    assert found.hint == "check the network, the VPN, and the address: kubectl cluster-info"


def test_a_cluster_that_is_still_to_be_filled_in_is_not_asked_for(place):
    assert place.look(cluster="<your-cluster>", region="us-west-2") == ()
    assert place.look(context="<your-context>") == ()


def test_nobody_signed_in_is_said_once(place):
    place.cluster.access.end_tokens()
    place.look()
    place.cluster.access.end_tokens()
    (found,) = place.look()
    assert (found.check, found.status) == ("cluster", "problem")


# --- quantities


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8), (8, 8), ("500m", "0.5"), ("1e3", 1000), ("2Gi", 2**31), ("1.5k", 1500), ("lots", None), ("", None)],
)
def test_quantities_are_numbers(text, number):
    found = amount(text)
    assert (None if found is None else str(found.normalize() if found else found)) == (
        None if number is None else str(amount(number).normalize())
    )
