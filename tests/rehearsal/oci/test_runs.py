"""Runs of one node: what it sees, how it ends, and what the run says of that."""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal import faults
from cloudtune.rehearsal.oci.run_control import NEEDS_ATTENTION
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import Science, refused, until, zipped

pytestmark = pytest.mark.usefixtures("namespaces")
LOOK = """
import json, os, sys
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "file": __file__}))
print("to stderr", file=sys.stderr)
"""
SLEEP = "import time, signal\nprint('asleep', flush=True)\ntime.sleep(60)"


def test_a_run_from_accepted_to_succeeded(science: Science) -> None:
    job = science.job(
        science.details(CONDA_ENV_TYPE="service", CONDA_ENV_SLUG="pytorch28_p312"), LOOK.encode(), "look.py"
    )
    run_id = science.start(job, displayName="first")
    first = science.run(run_id)
    assert (first.lifecycle_state, first.display_name, first.log_details) == ("ACCEPTED", "first", None)
    assert first.time_started is None
    run = science.ended(run_id)
    assert (run.lifecycle_state, run.lifecycle_details) == ("SUCCEEDED", "Job run artifact execution succeeded.")
    assert run.time_accepted < run.time_started < run.time_finished
    assert run.job_infrastructure_configuration_details.shape_name == "VM.Standard2.1"
    log = science.place.sdk("logging", "LoggingManagementClient").get_log(
        run.log_details.log_group_id, run.log_details.log_id
    )
    assert (log.data.display_name, log.data.lifecycle_state) == (run_id, "ACTIVE")
    seen = json.loads(next(line for line in science.said(run_id) if line.startswith("{")))
    environment = seen["env"]
    assert {name: environment[name] for name in ("JOB_OCID", "JOB_RUN_OCID", "PROJECT_OCID")} == {
        "JOB_OCID": job,
        "JOB_RUN_OCID": run_id,
        "PROJECT_OCID": science.place.project,
    }
    assert environment["JOB_RUN_COMPARTMENT_OCID"] == science.place.compartment
    assert environment["CONDA_ENV_SLUG"] == environment["CONDA_DEFAULT_ENV"] == "pytorch28_p312"
    assert environment["CONDA_PREFIX"] == sys.prefix
    assert environment["HOME"] == "/home/datascience"
    assert "NODE_RANK" not in environment
    work = "/home/datascience/decompressed_artifact"
    assert (seen["cwd"], seen["file"]) == (work, f"{work}/look.py")
    found = until(lambda: rows if len(rows := [row for page in science.pages(run) for row in page]) >= 4 else None)
    kinds = {row["data"]["message"][:20]: row["type"].rpartition(".")[2] for row in found}
    assert kinds["to stderr"] == "stderr"
    assert kinds["rehearsed: substitut"] == "stdout"


def test_arguments_variables_and_entry_points(science: Science) -> None:
    """A run's variables are added to the job's, its arguments replace them; archives say what starts."""
    details = science.details(A="job", B="job", JOB_RUN_ENTRYPOINT="src/start.sh")
    details["jobConfigurationDetails"]["commandLineArguments"] = "of the job"
    script = 'echo "$A $B $C $#:$2"; python "$(dirname "$0")/look.py" "$@"'
    job = science.job(details, zipped(**{"src/start__sh": script, "src/look__py": LOOK}), "code.zip")
    plain = science.start(job)
    override = {
        "jobType": "DEFAULT",
        "environmentVariables": {"B": "run", "C": "run"},
        "commandLineArguments": "'one two' x",
    }
    other = science.start(job, jobConfigurationOverrideDetails=override)
    assert {science.ended(run).lifecycle_state for run in (plain, other)} == {"SUCCEEDED"}
    assert science.said(plain)[0] == "job job  3:the"
    assert science.said(other)[0] == "job run run 2:x"
    assert json.loads(next(line for line in science.said(other) if line.startswith("{")))["argv"][1:] == [
        "one two",
        "x",
    ]


def test_a_tar_keeps_links_and_bits(science: Science) -> None:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as pack:
            entry = tarfile.TarInfo("link.py")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hosts"
            pack.addfile(entry)
        file.seek(0)
        hostile = file.read()
    outcome = science.ended(science.start(science.job(science.details(JOB_RUN_ENTRYPOINT="link.py"), hostile, "x.tgz")))
    assert outcome.lifecycle_state == "FAILED"
    assert "could not be unpacked" in outcome.lifecycle_details


def test_runs_that_fail_say_why(science: Science) -> None:
    entry, archive = {"JOB_RUN_ENTRYPOINT": "b.py"}, zipped(a__py="print()")
    cases: list[tuple[dict[str, str], bytes, str, str]] = [
        ({}, b"raise SystemExit(21)", "a.py", "Job run artifact execution failed with exit code 21."),
        ({}, b"kill -9 $$", "a.sh", "Job run artifact execution failed with exit code 137."),
        ({}, archive, "a.zip", "JOB_RUN_ENTRYPOINT must name"),
        ({"JOB_RUN_ENTRYPOINT": "a.jar"}, zipped(a__jar="x"), "a.zip", "neither a Python nor a shell file"),
        (entry, archive, "a.zip", "failed with exit code 2."),
        (entry, b"no archive", "a.zip", "could not be unpacked"),
    ]
    runs = [
        science.start(science.job(science.details(**variables), artifact, name))
        for variables, artifact, name, _ in cases
    ]
    for run, (*_, details) in zip(map(science.ended, runs), cases, strict=True):
        assert run.lifecycle_state == "FAILED"
        assert details in run.lifecycle_details


def test_a_run_that_is_cancelled(science: Science) -> None:
    job = science.job(science.details(), SLEEP.encode())
    run = science.start(job)
    until(lambda: science.said(run))
    with refused(409, "IncorrectState"):
        science.client.delete_job_run(run)
    science.client.cancel_job_run(run)
    assert science.run(run).lifecycle_state in ("CANCELING", "CANCELED")
    ended = science.ended(run)
    assert (ended.lifecycle_state, ended.lifecycle_details) == ("CANCELED", "Job run canceled.")
    assert ended.time_finished is not None
    with refused(409, "IncorrectState"):
        science.client.cancel_job_run(run)
    early = science.start(job)  # before it has any machine
    science.client.cancel_job_run(early)
    assert science.ended(early).lifecycle_state == "CANCELED"
    assert science.said(early) == []
    science.client.delete_job_run(run)
    assert science.run(run).lifecycle_state == "DELETED"


def test_cancelling_gives_a_node_time_and_then_ends_it(science: Science) -> None:
    tidy = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('tidy', flush=True), sys.exit()))\nprint(1, flush=True)\ntime.sleep(60)"
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"
    runs = [science.start(science.job(science.details(), text.encode())) for text in (tidy, deaf)]
    for run in runs:
        until(lambda run=run: science.said(run))
        science.client.cancel_job_run(run)
    assert [science.ended(run).lifecycle_state for run in runs] == ["CANCELED", "CANCELED"]
    assert [science.said(run) for run in runs] == [["1", "tidy"], ["1"]]


def test_a_run_must_not_take_longer_than_it_may(science: Science) -> None:
    details = science.details()
    details["jobConfigurationDetails"]["maximumRuntimeInMinutes"] = 30
    run = science.start(science.job(details, SLEEP.encode()))
    until(lambda: science.said(run))
    assert science.run(run).lifecycle_state == "IN_PROGRESS"
    science.place.stage.clock.push(30 * 60)
    ended = science.ended(run)
    assert (ended.lifecycle_state, "maximum runtime of 30 minutes" in ended.lifecycle_details) == ("FAILED", True)


def test_what_a_run_must_not_be(science: Science) -> None:
    bare = science.job(science.details())
    with refused(409, "IncorrectState"):
        science.start(bare)
    with refused(404, "NotAuthorizedOrNotFound"):
        science.start("ocid1.datasciencejob.oc1.iad.none")
    job = science.job(science.details(), b"print()")
    wrong: list[dict[str, Any]] = [
        {"jobConfigurationOverrideDetails": {"jobType": "DEFAULT", "environmentVariables": {"a-b": "c"}}},
        {"jobConfigurationOverrideDetails": {"jobType": "DEFAULT", "maximumRuntimeInMinutes": 0}},
        {"jobLogConfigurationOverrideDetails": {"enableLogging": True}},
        {"displayName": "x" * 256},
        {
            "jobNodeConfigurationOverrideDetails": {
                "jobNodeType": "MULTI_NODE",
                "jobNodeGroupConfigurationDetailsList": [{"name": "g0"}],
            }
        },
    ]
    for details in wrong:
        with refused(400, "InvalidParameter"):
            science.start(job, **details)
    assert science.client.list_job_runs(science.place.compartment).data == []


def test_runs_are_listed_and_renamed(science: Science) -> None:
    job, other = (science.job(science.details(), b"print()") for _ in range(2))
    runs = [science.start(job, displayName="a"), science.start(other, displayName="b")]
    for run in runs:
        science.ended(run)

    def names(**query: Any) -> list[str]:
        return [run.display_name for run in science.client.list_job_runs(science.place.compartment, **query).data]

    assert names() == ["b", "a"]
    assert names(job_id=job) == ["a"]
    assert names(lifecycle_state="SUCCEEDED", sort_order="ASC") == ["a", "b"]
    assert science.client.update_job_run(runs[0], {"displayName": "c"}).data.display_name == "c"
    assert names(job_id=job) == ["c"]


def test_a_token_makes_one_run(science: Science) -> None:
    job = science.job(science.details(), b"print()")
    body = {**science.owner, "jobId": job}
    made = {science.client.create_job_run(body, opc_retry_token="token").data.id for _ in range(2)}
    assert len(made) == 1
    with refused(409, "InvalidatedRetryToken"):
        science.client.create_job_run({**body, "displayName": "x"}, opc_retry_token="token")
    science.ended(made.pop())


def test_storage_is_mounted_where_it_should_be(science: Science) -> None:
    objects = {"storageType": "OBJECT_STORAGE", "namespace": "ns", "bucket": "data", "prefix": "in/2026"}
    files = {
        "storageType": "FILE_STORAGE",
        "mountTargetId": "ocid1.mounttarget.oc1.iad.a",
        "exportId": "ocid1.export.oc1.iad.a",
    }
    details = science.details()
    network = {"jobInfrastructureType": "STANDALONE", "subnetId": science.place.subnet}
    details["jobInfrastructureConfigurationDetails"] |= network
    details["jobStorageMountConfigurationDetailsList"] = [
        {**objects, "destinationDirectoryName": "data"},
        {**files, "destinationDirectoryName": "shared", "destinationPath": "/opt/team"},
    ]
    write = "echo here >> /mnt/data/mine; cat /mnt/data/mine; cp /mnt/data/mine /opt/team/shared/"
    job = science.job(details, write.encode(), "a.sh")
    for count in (1, 2):
        run = science.ended(science.start(job))
        assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["here"] * count)
    assert not Path("/mnt/data").exists()


def test_what_a_container_is_in_a_rehearsal(science: Science) -> None:
    details = science.details()
    image = {"jobEnvironmentType": "OCIR_CONTAINER", "image": "iad.ocir.io/ns/image:1", "entrypoint": ["bash", "-c"]}
    details["jobEnvironmentConfigurationDetails"] = {**image, "cmd": ["echo in $HOSTNAME"]}
    run = science.ended(science.start(science.job(details)))
    assert run.lifecycle_state == "SUCCEEDED"
    assert science.said(run.id) == ["in node-0"]
    own = {"jobEnvironmentType": "OCIR_CONTAINER", "image": "iad.ocir.io/ns/image:1"}
    details["jobEnvironmentConfigurationDetails"] = own
    run = science.ended(science.start(science.job(details)))
    assert (run.lifecycle_state, "own command" in run.lifecycle_details) == ("FAILED", True)


def test_without_a_log_group_there_is_no_run(science: Science) -> None:
    job = science.job(science.details(), b"print()")
    science.place.cloud.absent.add(science.place.log_group)
    run = science.ended(science.start(job))
    assert run.lifecycle_state == "FAILED"
    assert run.lifecycle_details.startswith("The specified log group is not found or not authorized.")
    silent = {key: value for key, value in science.details().items() if key != "jobLogConfigurationDetails"}
    run = science.ended(science.start(science.job(silent, b"print()")))
    assert (run.lifecycle_state, run.log_details) == ("SUCCEEDED", None)


def test_no_capacity_a_dead_node_and_a_run_that_needs_attention(tmp_path: Path) -> None:
    plan = (
        faults.no_capacity("VM.Standard2.2"),
        faults.node_dies("node-0", after_lines=1),
        faults.event(NEEDS_ATTENTION, "sick"),
    )
    with oci_place(tmp_path, faults=plan) as place:
        science = Science(place)
        poor = science.details()
        poor["jobInfrastructureConfigurationDetails"]["shapeName"] = "VM.Standard2.2"
        run = science.ended(science.start(science.job(poor, b"print()")))
        assert (run.lifecycle_state, run.lifecycle_details) == ("FAILED", "Out of host capacity.")
        job = science.job(science.details(), SLEEP.encode())
        run = science.ended(science.start(job))
        assert (run.lifecycle_state, run.lifecycle_details) == ("FAILED", "Job run failed: node-0 stopped responding.")
        sick = science.start(job, displayName="sick")
        until(lambda: science.run(sick).lifecycle_state == "NEEDS_ATTENTION")
        science.client.cancel_job_run(sick)
        assert science.ended(sick).lifecycle_state == "CANCELED"
        assert place.stage.faults.left() == ()


def test_a_run_signs_by_its_own_right_while_it_goes_on(place: OciPlace) -> None:
    science = Science(place)
    ask = """
import os, oci
signer = oci.auth.signers.get_resource_principals_signer()
client = oci.data_science.DataScienceClient({}, signer=signer, service_endpoint=os.environ["CLOUDTUNE_OCI_ENDPOINT"])
print(signer.tenancy_id == os.environ["TENANCY_OCID"], client.get_job_run(os.environ["JOB_RUN_OCID"]).data.lifecycle_state)
print(open(os.environ["OCI_RESOURCE_PRINCIPAL_RPST"]).read() + " " + open(os.environ["OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM"]).read().replace("\\n", "|"))
"""
    import oci

    run = science.ended(science.start(science.job(science.details(), ask.encode())))
    words, token = science.said(run.id)
    assert (run.lifecycle_state, words) == ("SUCCEEDED", "True IN_PROGRESS")
    text, _, key = token.partition(" ")
    private = oci.signer.load_private_key(key.replace("|", "\n"), None)
    client = place.sdk("data_science", "DataScienceClient", signer=oci.auth.signers.SecurityTokenSigner(text, private))
    with refused(401, "NotAuthenticated"):
        client.get_job_run(run.id)
