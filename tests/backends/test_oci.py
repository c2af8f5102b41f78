"""The plan of OCI Data Science jobs, by itself."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import jobs
from cloudtune.backends.oci import ENTRY, OciBackend
from cloudtune.backends.oci_surroundings import surroundings
from cloudtune.errors import RunNotFound, SpecError
from cloudtune.plan import FromShell, Masked, Plan, Step
from cloudtune.spec.document import load
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import DataScienceJob, ShapeConfig, StorageMount
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import (
    Conda,
    ContainerRuntime,
    GitPythonRuntime,
    NeuronDistributedRuntime,
    PyTorchDistributedRuntime,
    Runtime,
    ScriptRuntime,
)
from cloudtune.workspace import pack

EXAMPLE = Path(__file__).parents[2] / "cloudtune" / "examples" / "oci-llama2-lora" / "job.yaml"
GOLDEN = Path(__file__).parents[1] / "golden" / "oci-llama2-lora" / "oci.json"
PLACE = DataScienceJob(
    compartment_id="ocid1.compartment.oc1..c",
    project_id="ocid1.datascienceproject.oc1.iad.p",
    log_group_id="ocid1.loggroup.oc1.iad.g",
    log_id="ocid1.log.oc1.iad.l",
    shape_name="VM.GPU.A10.2",
)
SUBNET = attrs.evolve(PLACE, subnet_id="ocid1.subnet.oc1.iad.s")
TRAIN = PyTorchDistributedRuntime(command="torchrun train.py", output_uri="oci://b@n/out")
GIT = GitPythonRuntime(url="https://example.com/r.git", entrypoint="a.py", output_uri="oci://b@n/out")
CONTAINER = ContainerRuntime(image="iad.ocir.io/t/i:1", entrypoint=("/bin/sh", "-c"), cmd=("sleep 5",))


def plan(runtime: Runtime = TRAIN, place: DataScienceJob = PLACE) -> Plan:
    return OciBackend().plan(JobSpec(name="j", infrastructure=place, runtime=runtime), "abcdefgh")


def step(found: Plan, name: str) -> Step:
    return next(one for one in found.steps if one.id == name)


def details(found: Plan) -> Any:
    return step(found, "job").parameters


def group(found: Plan) -> Any:
    (only,) = details(found)["jobNodeConfigurationDetails"]["jobNodeGroupConfigurationDetailsList"]
    return only


def refused(found: Plan) -> set[str]:
    return {note.path for note in found.refused} - {"spec.infrastructure.type"}


def order_in(found: Plan) -> Any:
    return next(json.loads(file.content or b"") for file in step(found, "artifact").files if file.path == "order.json")


def test_the_seed_job_is_the_golden_plan() -> None:
    """Compare the whole plan; CLOUDTUNE_GOLDEN=write writes it anew.

    The agent and the order are shown as what they are, not by a digest that every change of the agent moves.
    """
    job = load(EXAMPLE)
    assert isinstance(job, JobSpec)
    found = jobs.plan_job(job, "abcdefgh")
    shown = found.to_dict()
    for one in shown["steps"]:
        for file in one.get("files", ()):
            if file["path"] in {"agent.pyz", "order.json"}:
                file.update(bytes="...", sha256="...")
    text = json.dumps({"plan": shown, "order": order_in(found)}, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("CLOUDTUNE_GOLDEN") == "write":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_steps_refer_to_each_other_and_carry_the_runs_id() -> None:
    found = plan()
    assert [(one.id, one.operation) for one in found.steps] == [
        ("job", "create_job"),
        ("artifact", "create_job_artifact"),
        ("run", "create_job_run"),
    ]
    assert {one.token for one in found.steps} == {f"cloudtune-abcdefgh-{one.id}" for one in found.steps}
    shown = found.to_dict()["steps"]
    assert [one["parameters"].get("jobId") for one in shown] == [None, "${job.id}", "${job.id}"]
    assert shown[2]["parameters"]["displayName"] == "j-abcdefgh"
    assert found.outputs == ("oci://b@n/out",)
    assert plan().to_json() == found.to_json()


def test_files_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("echo hi\n")
    found = plan(ScriptRuntime(script_path_uri=str(tmp_path), entrypoint="a.sh"))
    files = {file.path: file for file in step(found, "artifact").files}
    assert set(files) == {"agent.pyz", "order.json", ENTRY, "code/a.sh"}
    for file in files.values():
        content = file.content if file.source is None else Path(file.source).read_bytes()
        assert content is not None
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert order_in(found)["code"] == {"kind": "archive", "path": "code.tar.gz"}
    assert order_in(plan(GIT))["code"]["kind"] == "git"


def test_an_archive_that_is_named_is_the_code(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK whatever")
    runtime = ScriptRuntime(script_path_uri=str(tmp_path / "mine.zip"), entrypoint="a.sh")
    sources = {file.path: file.source for file in step(plan(runtime), "artifact").files}
    assert sources["code.tar.gz"] == str(tmp_path / "mine.zip")
    assert not [path for path in sources if path.startswith("code/")]


def test_the_entry_starts_the_agent_beside_it(tmp_path: Path) -> None:
    artifact = {file.path: file.content for file in step(plan(), "artifact").files}
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / ENTRY).write_bytes(artifact[ENTRY] or b"")
    (tmp_path / "at" / "agent.pyz").write_text("import json, sys\nprint(json.dumps(sys.argv))\n")
    environ = {**os.environ, "HOME": str(tmp_path), "CLOUDTUNE_RUN_ID": "abcdefgh"}
    command = [sys.executable, str(tmp_path / "at" / ENTRY), "--ignored", "arguments of the job"]
    told = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, check=True, timeout=60)
    work = tmp_path / "cloudtune" / "abcdefgh"
    at = str(tmp_path / "at")
    assert json.loads(told.stdout) == [
        f"{at}/agent.pyz", "run", "--order", f"{at}/order.json", "--directory", str(work)
    ]  # fmt: skip
    assert work.is_dir()


def test_an_artifact_of_one_node_runs(tmp_path: Path) -> None:
    """Unpack the artifact as a node would and start it with the planned variables and arguments."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.sh").write_text('echo "$1 $A $CLOUDTUNE_NUM_NODES" && exit 3\n')
    runtime = ScriptRuntime(script_path_uri=str(tmp_path / "src"), entrypoint="a.sh", args=("b c",), env={"A": "1"})
    found = plan(runtime, attrs.evolve(PLACE, shape_name="VM.Standard2.1"))
    at = tmp_path / "artifact"
    at.mkdir()
    code = []
    for file in step(found, "artifact").files:
        if file.content is not None:
            (at / file.path).write_bytes(file.content)
        else:
            code.append(attrs.evolve(file, path=file.path.removeprefix("code/")))
    pack(code, at / "code.tar.gz")
    job = details(found)["jobConfigurationDetails"]
    variables = job["environmentVariables"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    command = [sys.executable, str(at / variables["JOB_RUN_ENTRYPOINT"]), *shlex.split(job["commandLineArguments"])]
    told = subprocess.run(command, env=environ, cwd=at, capture_output=True, text=True, check=False, timeout=60)
    assert "b c 1 1" in told.stdout
    assert told.returncode == 3


@pytest.mark.parametrize("replicas", [None, 1])
def test_one_node_is_the_single_form(replicas: int | None) -> None:
    found = plan(attrs.evolve(TRAIN, replicas=replicas))
    assert "jobNodeConfigurationDetails" not in details(found)
    assert details(found)["jobInfrastructureConfigurationDetails"] == {
        "jobInfrastructureType": "ME_STANDALONE",
        "shapeName": "VM.GPU.A10.2",
        "blockStorageSizeInGBs": 50,
    }
    assert len(found.steps) == 3


def test_several_nodes_are_one_run_of_a_group() -> None:
    found = plan(attrs.evolve(TRAIN, replicas=3, maximum_runtime_in_minutes=90, args=("--x", "a b")))
    assert "jobConfigurationDetails" not in details(found)
    assert details(found)["jobNodeConfigurationDetails"]["jobNetworkConfiguration"] == {
        "jobNetworkType": "DEFAULT_NETWORK"
    }
    assert (group(found)["replicas"], group(found)["minimumSuccessReplicas"]) == (3, 3)
    assert group(found)["jobInfrastructureConfigurationDetails"] == {
        "jobInfrastructureType": "MULTI_NODE",
        "shapeName": "VM.GPU.A10.2",
    }
    # the API needs it of a group, where Oracle ADS sends none
    assert refused(found) == {"spec.infrastructure.spec.blockStorageSize"}
    assert refused(plan(attrs.evolve(TRAIN, replicas=3), attrs.evolve(PLACE, block_storage_size=50))) == set()
    assert group(found)["jobConfigurationDetails"]["maximumRuntimeInMinutes"] == 90
    assert group(found)["jobConfigurationDetails"]["commandLineArguments"] == "--x 'a b'"
    assert [one.operation for one in found.steps].count("create_job_run") == 1


def test_a_flag_for_the_nodes_wins() -> None:
    found = plan(attrs.evolve(TRAIN, command="torchrun --nnodes 4 train.py", replicas=2))
    assert group(found)["replicas"] == 4


def test_the_older_form_has_a_run_for_each_node_and_is_not_run() -> None:
    found = plan(attrs.evolve(TRAIN, replicas=3), attrs.evolve(PLACE, multi_node="jobRuns"))
    runs = [one["parameters"] for one in found.to_dict()["steps"] if one["operation"] == "create_job_run"]
    assert [run["displayName"] for run in runs] == ["j-0", "j-1", "j-2"]
    assert [run["jobConfigurationOverrideDetails"]["environmentVariables"] for run in runs] == [
        {"NODE_COUNT": "3", "NODE_RANK": "0"},
        {"NODE_COUNT": "3", "NODE_RANK": "1", "MAIN_JOB_RUN_OCID": "${run-0.id}"},
        {"NODE_COUNT": "3", "NODE_RANK": "2", "MAIN_JOB_RUN_OCID": "${run-0.id}"},
    ]
    assert "jobNodeConfigurationDetails" not in details(found)
    assert refused(found) == {"spec.infrastructure.spec.multiNode"}


def test_a_subnet_settles_the_type_and_the_network() -> None:
    place = attrs.evolve(PLACE, subnet_id="s", job_infrastructure_type="ME_STANDALONE", block_storage_size=99)
    found = details(plan(TRAIN, place))["jobInfrastructureConfigurationDetails"]
    assert (found["jobInfrastructureType"], found["subnetId"], found["blockStorageSizeInGBs"]) == (
        "STANDALONE",
        "s",
        99,
    )
    several = plan(attrs.evolve(TRAIN, replicas=2), place)
    assert details(several)["jobNodeConfigurationDetails"]["jobNetworkConfiguration"]["subnetId"] == "s"
    assert "subnetId" not in group(several)["jobInfrastructureConfigurationDetails"]


def test_a_flexible_shape_has_a_size() -> None:
    size = ShapeConfig(ocpus=2, memory_in_gbs=16, cpu_baseline="BASELINE_1_8")
    found = plan(GIT, attrs.evolve(PLACE, shape_name="VM.Standard.E4.Flex", shape_config_details=size))
    assert details(found)["jobInfrastructureConfigurationDetails"]["jobShapeConfigDetails"] == {
        "ocpus": 2,
        "memoryInGBs": 16,
        "cpuBaseline": "BASELINE_1_8",
    }


def test_logs_are_kept_as_the_spec_says() -> None:
    def logs(**ids: str | None) -> Any:
        return details(plan(TRAIN, attrs.evolve(PLACE, **ids))).get("jobLogConfigurationDetails")

    assert logs(log_group_id=None, log_id=None) is None
    assert logs(log_group_id="g", log_id=None) == {
        "enableLogging": True,
        "enableAutoLogCreation": True,
        "logGroupId": "g",
    }
    assert logs(log_group_id="g", log_id="l")["enableAutoLogCreation"] is False
    assert refused(plan(TRAIN, attrs.evolve(PLACE, log_group_id=None))) == {"spec.infrastructure.spec.logGroupId"}


@pytest.mark.parametrize(
    ("src", "dest", "mount"),
    [
        (
            "oci://b@n/a/b/",
            "outputs",
            {
                "storageType": "OBJECT_STORAGE",
                "bucket": "b",
                "namespace": "n",
                "prefix": "a/b",
                "destinationDirectoryName": "outputs",
            },
        ),
        (
            "oci://b@n",
            "/mnt/data/outputs/",
            {
                "storageType": "OBJECT_STORAGE",
                "bucket": "b",
                "namespace": "n",
                "destinationDirectoryName": "outputs",
                "destinationPath": "/mnt/data",
            },
        ),
        (
            "ocid1.mounttarget.oc1.iad.m:ocid1.export.oc1.iad.e",
            "/data",
            {
                "storageType": "FILE_STORAGE",
                "mountTargetId": "ocid1.mounttarget.oc1.iad.m",
                "exportId": "ocid1.export.oc1.iad.e",
                "destinationDirectoryName": "data",
                "destinationPath": "/",
            },
        ),
    ],
)
def test_mounts(src: str, dest: str, mount: dict[str, str]) -> None:
    found = plan(TRAIN, attrs.evolve(SUBNET, storage_mount=(StorageMount(src=src, dest=dest),)))
    assert details(found)["jobStorageMountConfigurationDetailsList"] == [mount]
    assert refused(found) == set()


def test_a_file_system_is_looked_up_where_the_job_will_be() -> None:
    """Other regions may have the same addresses, and the user's profile may be of one of those."""
    project = "ocid1.datascienceproject.oc1.eu-frankfurt-1.p"
    place = attrs.evolve(SUBNET, project_id=project, storage_mount=(StorageMount(src="10.0.0.1:/export", dest="a"),))
    steps = plan(TRAIN, place).to_dict()["steps"]
    assert {step["parameters"].get("region") for step in steps if step["operation"] == "search_resources"} == {
        "eu-frankfurt-1"
    }


def test_a_file_system_by_address_is_looked_up() -> None:
    mounts = (
        StorageMount(src="10.0.0.1:/export", dest="a"),
        StorageMount(src="ocid1.mounttarget.oc1.iad.t:/export/b", dest="b"),
    )
    found = plan(TRAIN, attrs.evolve(SUBNET, storage_mount=mounts, region="us-ashburn-1")).to_dict()["steps"]
    common = {"type": "FreeText", "matchingContextType": "NONE", "region": "us-ashburn-1"}
    assert [(one["id"], one["operation"], one["parameters"]) for one in found[:4]] == [
        ("mount-0-address", "search_resources", {**common, "text": "10.0.0.1"}),
        (
            "mount-0-target",
            "search_resources",
            {**common, "text": "${mount-0-address.items[resourceType=PrivateIp].identifier}"},
        ),
        ("mount-0-export", "search_resources", {**common, "text": "/export"}),
        ("mount-1-export", "search_resources", {**common, "text": "/export/b"}),
    ]
    (job,) = (one for one in found if one["operation"] == "create_job")
    file_storage = {"storageType": "FILE_STORAGE"}
    assert job["parameters"]["jobStorageMountConfigurationDetailsList"] == [
        {
            **file_storage,
            "mountTargetId": "${mount-0-target.items[resourceType=MountTarget].identifier}",
            "exportId": "${mount-0-export.items[resourceType=Export].identifier}",
            "destinationDirectoryName": "a",
        },
        {
            **file_storage,
            "mountTargetId": "ocid1.mounttarget.oc1.iad.t",
            "exportId": "${mount-1-export.items[resourceType=Export].identifier}",
            "destinationDirectoryName": "b",
        },
    ]


def test_a_file_system_needs_a_subnet_and_a_mount_of_nothing_is_a_fault() -> None:
    address = StorageMount(src="10.0.0.1:/export", dest="a")
    found = plan(TRAIN, attrs.evolve(PLACE, storage_mount=(address,)))
    assert refused(found) == {"spec.infrastructure.spec.subnetId"}
    mounts = (address, StorageMount(src="s3://bucket/x", dest="b"), StorageMount(src="oci://bucket/x", dest="c"))
    with pytest.raises(SpecError) as caught:
        plan(TRAIN, attrs.evolve(PLACE, storage_mount=mounts))
    assert [fault.path for fault in caught.value.faults] == [
        "spec.infrastructure.spec.storageMount[1].src",
        "spec.infrastructure.spec.storageMount[2].src",
    ]


@pytest.mark.parametrize(
    ("namespace", "taken"), [("tuning_13b", True), ("oci_gpu", False), ("a-b", False), ("1a", False)]
)
def test_a_namespace_that_monitoring_does_not_take_is_said(namespace: str, taken: bool) -> None:
    runtime = TRAIN.with_environment_variable(OCI__METRICS_NAMESPACE=namespace)
    said = [notice.message for notice in plan(runtime).warnings if "OCI__METRICS_NAMESPACE" in notice.message]
    assert [namespace in message for message in said] == ([] if taken else [True])


@pytest.mark.parametrize(
    ("environ", "compartment", "project"),
    [
        ({"NB_SESSION_COMPARTMENT_OCID": "n", "JOB_RUN_COMPARTMENT_OCID": "j", "PROJECT_OCID": "p"}, "n", "p"),
        ({"PROJECT_COMPARTMENT_OCID": "c", "JOB_RUN_COMPARTMENT_OCID": "j", "PIPELINE_PROJECT_OCID": "q"}, "c", "q"),
        ({"PIPELINE_RUN_COMPARTMENT_OCID": "r"}, "r", None),
        ({}, None, None),
    ],
)
def test_what_a_job_takes_from_where_it_is_submitted(
    environ: dict[str, str], compartment: str | None, project: str | None
) -> None:
    found = surroundings(DataScienceJob(), environ)
    assert (found.compartment, found.project, found.subnet, found.look_up) == (compartment, project, None, None)


def test_a_notebook_session_is_asked_for_what_its_variables_do_not_say() -> None:
    session = {"NB_SESSION_OCID": "ocid1.datasciencenotebooksession.oc1.iad.s", "NB_SESSION_COMPARTMENT_OCID": "n"}
    found = surroundings(DataScienceJob(), session)
    assert found.look_up is not None
    assert (found.look_up.operation, found.compartment) == ("get_notebook_session", "n")
    assert (str(found.project), str(found.subnet)) == (
        "${session.projectId}",
        "${session.notebookSessionConfigDetails|notebookSessionConfigurationDetails.subnetId}",
    )
    # who asks for the service's own network gets no subnet, and who says all needs no look-up
    assert surroundings(DataScienceJob(job_infrastructure_type="ME_STANDALONE"), session).subnet is None
    assert surroundings(SUBNET, session).look_up is None


def test_tags_of_both_levels_are_on_the_job_and_its_run() -> None:
    place = attrs.evolve(PLACE, freeform_tags={"a": "1", "b": "1"}, defined_tags={"Ops": {"x": "1", "y": "1"}})
    runtime = attrs.evolve(TRAIN, freeform_tags={"b": "2"}, defined_tags={"Ops": {"y": "2"}, "Own": {"z": "2"}})
    found = plan(runtime, place)
    for name in ("job", "run"):
        parameters = step(found, name).parameters
        assert parameters["freeformTags"] == {"a": "1", "b": "2"}
        assert parameters["definedTags"] == {"Ops": {"x": "1", "y": "2"}, "Own": {"z": "2"}}


def test_variables_keep_their_leaves_and_the_agents_own_win() -> None:
    env = (
        EnvironmentVariable(name="A", value="1"),
        EnvironmentVariable(name="HF_TOKEN", value="hf_q"),
        EnvironmentVariable(name="FROM_SHELL"),
        EnvironmentVariable(name="SECRET_ONE", secret="ocid1.vaultsecret.oc1.iad.s"),
        EnvironmentVariable(name="JOB_RUN_ENTRYPOINT", value="mine.py"),
    )
    found = plan(attrs.evolve(TRAIN, env=env, conda=Conda(slug="slug")))
    assert details(found)["jobConfigurationDetails"]["environmentVariables"] == {
        "A": "1",
        "HF_TOKEN": Masked("HF_TOKEN", "hf_q"),
        "FROM_SHELL": FromShell("FROM_SHELL"),
        "CONDA_ENV_TYPE": "service",
        "CONDA_ENV_SLUG": "slug",
        "JOB_RUN_ENTRYPOINT": ENTRY,
        "CLOUDTUNE_PLACE": "oci",
        "CLOUDTUNE_RUN_ID": "abcdefgh",
    }
    assert any("JOB_RUN_ENTRYPOINT" in warning.message for warning in found.warnings)
    order = order_in(found)
    assert order["inherited"] == ["FROM_SHELL", "HF_TOKEN"]
    assert order["secrets"] == {"SECRET_ONE": "ocid1.vaultsecret.oc1.iad.s"}
    everything = found.to_json() + "".join(str(file.content) for one in found.steps for file in one.files)
    assert "hf_q" not in everything


@pytest.mark.parametrize("reference", ["k8s:name/key", "env:NAME", "arn:aws:secretsmanager:r:1:secret:x"])
def test_secrets_of_other_places_are_refused(reference: str) -> None:
    env = (EnvironmentVariable(name="S", secret=reference),)
    assert refused(plan(attrs.evolve(TRAIN, env=env))) == {"spec.runtime.spec.env[0].secret"}


def test_paths_of_this_machine_and_of_the_node_alone_are_told() -> None:
    mounted = attrs.evolve(PLACE, storage_mount=[{"src": "oci://b@n/rows", "dest": "data"}])
    here = attrs.evolve(TRAIN, output_uri="kept", inputs={"rows.jsonl": "rows"})
    told = {warning.path: warning.message for warning in plan(here, mounted).warnings}
    assert "kept is a folder of the node and ends with it" in told["spec.runtime.spec.outputUri"]
    assert "rows.jsonl is looked up on the node" in told["spec.runtime.spec.inputs"]
    there = attrs.evolve(TRAIN, output_uri="/mnt/data/kept", inputs={"/mnt/data/rows.jsonl": "rows"})
    assert not [warning for warning in plan(there, mounted).warnings if warning.path.startswith("spec.runtime.spec")]


def test_the_region_of_a_published_conda_environment() -> None:
    def variables(conda: Conda, place: DataScienceJob = PLACE) -> Plan:
        return plan(attrs.evolve(GIT, conda=conda), attrs.evolve(place, shape_name="VM.Standard2.1"))

    pack = Conda(type="published", uri="oci://b@n/dir/pack")
    found = details(variables(pack))["jobConfigurationDetails"]["environmentVariables"]
    assert {key: found[key] for key in found if key.startswith("CONDA")} == {
        "CONDA_ENV_TYPE": "published",
        "CONDA_ENV_REGION": "us-ashburn-1",
        "CONDA_ENV_NAMESPACE": "n",
        "CONDA_ENV_BUCKET": "b",
        "CONDA_ENV_OBJECT_NAME": "dir/pack",
    }
    for conda, place, region in (
        (attrs.evolve(pack, region="eu-zurich-1"), PLACE, "eu-zurich-1"),
        (pack, attrs.evolve(PLACE, region="ap-tokyo-1"), "ap-tokyo-1"),
        (pack, attrs.evolve(PLACE, project_id="ocid1.datascienceproject.oc1.sa-saopaulo-1.p"), "sa-saopaulo-1"),
    ):
        found = details(variables(conda, place))["jobConfigurationDetails"]["environmentVariables"]
        assert found["CONDA_ENV_REGION"] == region
    nowhere = attrs.evolve(PLACE, project_id="ocid1.datascienceproject.p", log_group_id="ocid1.loggroup.g")
    assert refused(variables(pack, nowhere)) == {"spec.runtime.spec.conda.region"}
    with pytest.raises(SpecError, match=r"conda\.uri"):
        variables(attrs.evolve(pack, uri="s3://b/pack"))


def test_a_container_runs_as_given() -> None:
    container = attrs.evolve(CONTAINER, image_digest="sha256:d", image_signature_id="ocid1.s", args=("a b",))
    found = plan(container)
    assert [one.id for one in found.steps] == ["job", "run"]
    assert details(found)["jobEnvironmentConfigurationDetails"] == {
        "jobEnvironmentType": "OCIR_CONTAINER",
        "image": "iad.ocir.io/t/i:1",
        "imageDigest": "sha256:d",
        "imageSignatureId": "ocid1.s",
        "entrypoint": ["/bin/sh", "-c"],
        "cmd": ["sleep 5"],
    }
    assert details(found)["jobConfigurationDetails"] == {"jobType": "DEFAULT", "commandLineArguments": "'a b'"}
    (note,) = [note for note in found.fields if note.status == "approximated"]
    assert "without cloudtune's agent" in note.reason


def test_text_of_a_container_is_split_on_commas_and_said_so() -> None:
    found = plan(attrs.evolve(CONTAINER, entrypoint="/bin/sh,-c", cmd="echo a b"))
    container = details(found)["jobEnvironmentConfigurationDetails"]
    assert (container["entrypoint"], container["cmd"]) == (["/bin/sh", "-c"], ["echo a b"])
    assert sum("a list is exact" in warning.message for warning in found.warnings) == 2


def test_files_of_a_container_travel_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"1")
    one = step(plan(attrs.evolve(CONTAINER, script_path_uri=str(tmp_path / "model.bin"))), "artifact")
    assert one.parameters["contentDisposition"] == "attachment; filename=model.bin"
    assert [file.path for file in one.files] == ["model.bin"]
    (tmp_path / "b").write_bytes(b"2")
    many = step(plan(attrs.evolve(CONTAINER, script_path_uri=str(tmp_path))), "artifact")
    assert many.parameters["contentDisposition"] == "attachment; filename=artifact.zip"


def test_containers_on_several_nodes_are_in_the_group() -> None:
    found = plan(attrs.evolve(CONTAINER, replicas=2))
    assert group(found)["jobEnvironmentConfigurationDetails"]["image"] == "iad.ocir.io/t/i:1"
    assert group(found)["jobConfigurationDetails"]["environmentVariables"] == {"NODE_COUNT": "2"}


def test_what_only_the_agent_can_do_is_refused_of_a_container() -> None:
    secret = EnvironmentVariable(name="S", secret="ocid1.vaultsecret.oc1.iad.s")
    found = plan(attrs.evolve(CONTAINER, inputs={"oci://b@n/x": "x"}, output_uri="oci://b@n/y", env=(secret,)))
    assert refused(found) == {"spec.runtime.spec.inputs", "spec.runtime.spec.outputUri", "spec.runtime.spec.env"}


def test_what_the_place_must_know_is_asked_for() -> None:
    found = plan(TRAIN, DataScienceJob(shape_name="VM.GPU.A10.2", staging_uri="oci://b@n/s"))
    assert refused(found) == {"spec.infrastructure.spec.compartmentId", "spec.infrastructure.spec.projectId"}
    assert any(note.path == "spec.infrastructure.spec.stagingUri" for note in found.fields)
    assert any("log group" in warning.message for warning in found.warnings)


def test_ocids_of_something_else_are_refused() -> None:
    tenancy = attrs.evolve(SUBNET, compartment_id="ocid1.tenancy.oc1..t")
    open_still = attrs.evolve(SUBNET, project_id="<project ocid>", log_id="ocid1.log.oc1.iad.xxxx")
    assert refused(plan(TRAIN, tenancy)) == refused(plan(TRAIN, open_still)) == set()
    found = plan(TRAIN, attrs.evolve(SUBNET, compartment_id="root", subnet_id="ocid1.vcn.oc1.iad.v"))
    assert {note.path.rpartition(".")[2]: note.reason for note in found.refused} == {
        "compartmentId": "'root' is no OCID of a compartment: those begin with ocid1.compartment.",
        "subnetId": "'ocid1.vcn.oc1.iad.v' is no OCID of a subnet: those begin with ocid1.subnet.",
    }


def test_a_job_is_no_run() -> None:
    found = OciBackend().recognise("ocid1.datasciencejobrun.oc1.iad.r")
    assert found is not None
    assert found.scope == "us-ashburn-1"
    with pytest.raises(RunNotFound, match="is a job, and what is followed is a run of it"):
        OciBackend().recognise("ocid1.datasciencejob.oc1.iad.j")


def test_neuron_cores_are_refused() -> None:
    place = attrs.evolve(PLACE, shape_name="VM.Standard2.1").with_accelerator(neuron_cores=2)
    found = plan(NeuronDistributedRuntime(command="torchrun t.py", processes_per_node=2), place)
    assert "spec.runtime.type" in refused(found)


def test_overrides_change_a_step_and_unknown_steps_are_named() -> None:
    patch = {"job": {"description": "mine", "projectId": None}, "run": {"displayName": "x"}}
    found = plan(TRAIN, attrs.evolve(PLACE, overrides=patch))
    assert details(found)["description"] == "mine"
    assert "projectId" not in details(found)
    assert step(found, "run").parameters["displayName"] == "x"
    with pytest.raises(SpecError, match="steps: job, artifact, run"):
        plan(TRAIN, attrs.evolve(PLACE, overrides={"train": {}}))


def test_planning_imports_no_sdk_and_opens_no_socket() -> None:
    script = (
        "import socket, sys\n"
        "socket.socket = None\n"
        "from cloudtune import verbs\n"
        f"verbs.plan(verbs.read({os.fspath(EXAMPLE)!r}))\n"
        "print(sorted({'oci', 'ocifs', 'boto3', 'kubernetes', 'torch', 'fsspec', 'rich'} & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.strip() == "[]"
