"""What a node of a job run finds and does: secrets, git with a key, ranks, mounts, GPU metrics, outputs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.errors import UsageError
from cloudtune.rehearsal import faults
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.spec.job import JobSpec
from cloudtune.spec.oci import DataScienceJob, StorageMount
from cloudtune.spec.runtime import Conda, GitSource, Runtime
from cloudtune.spec.runtimes import (
    ContainerRuntime,
    GitPythonRuntime,
    NotebookRuntime,
    PythonRuntime,
    PyTorchDistributedRuntime,
    ScriptRuntime,
)
from cloudtune.store import Entry
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import Science, until

pytest.importorskip("oci", reason="the oci SDK is not installed")
pytestmark = pytest.mark.usefixtures("namespaces")

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----"
TOKEN = "hf_thisIsWhatNobodyMaySee"
MAIN = """
echo "network $NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME"
echo "rank $CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES"
echo "token $HUGGING_FACE_HUB_TOKEN has $(printf %s "$HUGGING_FACE_HUB_TOKEN" | wc -c) letters"
ls -a "$HOME/cloudtune/$CLOUDTUNE_RUN_ID/.agent" | grep -c key
echo "inputs $(cat in/a in/deep/b)"
mkdir -p out && echo $CLOUDTUNE_NODE_RANK > out/rank
until [ -e /mnt/tools/go ]; do sleep 0.05; done
"""
# what the real ones are asked for, answered by files of the mount
SSH = """#!/bin/bash
[ "$3" = -G ] && exit
while [ "$1" != -i ]; do shift; done
echo "$(stat -c %a "$2") $(cat "$2" | tr '\\n' ' ')" >> "/mnt/tools/asked-$NODE_RANK"
eval "${@: -1:1}"
"""
SMI = """#!/bin/sh
echo "00000000:00:04.0, 41.5, 40, $((90 + NODE_RANK)), 1000, 250"
echo "00000000:00:05.0, [N/A], 42, [N/A], 1000, 0"
"""


class Memory:
    """A journal that forgets."""

    def read(self) -> Mapping[str, Entry]:
        return {}

    def write(self, step: str, phase: str, reply: object = None) -> None:
        pass


def sent(place: OciPlace, runtime: Runtime, *mounts: StorageMount, name: str = "abcdefgh", **changes: Any) -> str:
    """Plan a job, send it by the backend's client; return its run's OCID."""
    from cloudtune.backends.oci import OciBackend
    from cloudtune.clients.oci import OciClient
    from cloudtune.submit import submit

    where = DataScienceJob(
        compartment_id=place.compartment,
        project_id=place.project,
        log_group_id=place.log_group,
        shape_name="VM.Standard2.1",
        block_storage_size=50,
        storage_mount=mounts,
        subnet_id=place.subnet if mounts else None,
    )
    where = attrs.evolve(where, **changes)
    plan = OciBackend().plan(JobSpec(name="inside", infrastructure=where, runtime=runtime), name)
    assert plan.refused == ()
    return str(submit(plan, OciClient(), Memory(), sleep=lambda _: time.sleep(0.02))["run"]["id"])


def shared_files(place: OciPlace, target: str, export: str) -> Path:
    """Return the folder of a file system that nodes mount."""
    folder = place.stage.folder / "mounted-files" / target / export
    folder.mkdir(parents=True)
    return folder


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def repository(folder: Path, **files: str) -> None:
    """Make a bare repository with one commit."""
    work = folder / "work"
    settings = {
        **os.environ,
        **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    work.mkdir()
    for name, text in files.items():
        (work / name.replace("__", ".")).write_text(text)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-q", "-m", "one"],
        ["clone", "-q", "--bare", ".", "../code.git"],
    ):
        subprocess.run(["git", *words], cwd=work, env=settings, check=True)


def test_a_node_has_its_secrets_code_rank_network_and_gpus_metrics(tmp_path: Path) -> None:
    from cloudtune.rehearsal.oci.buckets import Buckets
    from cloudtune.rehearsal.oci.monitoring import Monitoring
    from cloudtune.rehearsal.oci.vault import Vault

    trouble = [
        faults.refused("*", "post_metric_data", status=500),
        faults.refused("*", "get_secret_bundle", status=429),
    ]
    with oci_place(tmp_path, faults=trouble) as place:
        cloud = place.cloud
        key, token, target, export = (
            new_ocid(kind) for kind in ("vaultsecret", "vaultsecret", "mounttarget", "export")
        )
        cloud.part(Vault).put(key, KEY)
        cloud.part(Vault).put(token, TOKEN)
        shelf = cloud.part(Buckets).make("data", namespace="ns")
        for name in ("a", "deep/b"):
            place.sdk("object_storage", "ObjectStorageClient").put_object("ns", "data", f"rows/{name}", name.encode())
        tools = shared_files(place, target, export)
        repository(tools, main__sh=MAIN)
        executable(tools / "ssh", SSH)
        executable(tools / "nvidia-smi", SMI)
        runtime = (
            PyTorchDistributedRuntime(command="sh main.sh", replicas=2, processes_per_node=1, output_dir="out")
            .with_git(GitSource(url="ssh://git@code.test/mnt/tools/code.git", git_secret_id=key))
            .with_inputs({"oci://data@ns/rows": "in"})
            .with_output_uri("oci://data@ns/runs/x")
            .with_environment_variable(
                HUGGING_FACE_HUB_TOKEN={"secret": token},
                OCI__METRICS_NAMESPACE="tuning",
                CLOUDTUNE_METRICS_SECONDS="0.2",
                PATH=f"/mnt/tools:{os.environ['PATH']}",
            )
        )
        run_id = sent(place, runtime, StorageMount(src=f"{target}:{export}", dest="tools"))
        science = Science(place)
        told = cloud.part(Monitoring)

        def enough() -> bool:
            nodes = [dict(one.dimensions)["node"] for one in told.metrics if one.name == "gpu.power_draw"]
            return science.run(run_id).lifecycle_state == "FAILED" or min(map(nodes.count, "01")) > 2

        until(enough, timeout_s=120)
        (tools / "go").touch()
        run = science.ended(run_id)
        said = science.said(run_id)
        assert run.lifecycle_state == "SUCCEEDED", said
        metrics = {
            (one.name, dict(one.dimensions)["node"], dict(one.dimensions)["pci_bus"][-4:]): one for one in told.metrics
        }
        values = {name: one.value for name, one in metrics.items()}
        asked = [(tools / f"asked-{node}").read_text() for node in range(2)]
        objects = sorted(one.name for one in shelf.find().objects)
        left = [path for path in place.stage.folder.rglob("*") if path.name in ("git-key", "known_hosts")]
    texts = [line.split(maxsplit=4)[-1] for line in said]
    assert values == {
        **{("gpu.power_draw", node, "04.0"): 41.5 for node in "01"},
        **{("gpu.temperature", node, bus): heat for node in "01" for bus, heat in (("04.0", 40), ("05.0", 42))},
        **{("gpu.gpu_utilization", node, "04.0"): 90 + int(node) for node in "01"},
        **{("gpu.memory_usage", node, bus): part for node in "01" for bus, part in (("04.0", 25), ("05.0", 0))},
    }
    one = metrics["gpu.temperature", "0", "04.0"]
    assert (one.compartment, one.namespace) == (place.compartment, "tuning")
    assert dict(one.dimensions) | {"node": "0"} == {
        "pci_bus": "00000000:00:04.0",
        "job_run_ocid": run_id,
        "job_ocid": run.job_id,
        "node": "0",
    }
    assert sum("warning: no GPU metrics for now: OCI answers 500" in text for text in texts) == 1
    assert sum("GPU metrics go to OCI Monitoring every 0.2 s, namespace tuning" in text for text in texts) == 2
    assert asked == ["600 " + KEY.replace("\n", " ") + " \n"] * 2
    assert left == []
    assert (texts.count("network lo lo"), texts.count("0")) == (2, 2)  # the key was gone before the command
    assert {"rank 0 of 2", "rank 1 of 2", "inputs adeep/b", f"token *** has {len(TOKEN)} letters"} <= set(texts)
    assert not any(secret in line for line in said for secret in (TOKEN, *KEY.splitlines()))
    assert [name for name in objects if name.endswith("rank")] == ["runs/x/node-1/rank", "runs/x/rank"]


def test_a_secret_that_the_run_may_not_read_ends_it_with_the_right_that_is_missing(place: OciPlace) -> None:
    secret = new_ocid("vaultsecret")
    runtime = PyTorchDistributedRuntime(command="true").with_environment_variable(HF_TOKEN={"secret": secret})
    science = Science(place)
    run = science.ended(sent(place, runtime))
    (words,) = [line for line in science.said(run.id) if " A error: " in line]
    assert (run.lifecycle_state, run.lifecycle_details[-4:]) == ("FAILED", "125.")
    assert f"cannot read secret HF_TOKEN ({secret}): OCI answers 404" in words
    assert "not allowed to read secret-bundles in its compartment" in words


@pytest.mark.parametrize(
    ("field", "has_subnet"),
    [
        ("notebookSessionConfigDetails", True),
        ("notebookSessionConfigDetails", False),
        ("notebookSessionConfigurationDetails", True),
    ],
)
def test_a_job_from_a_notebook_session_belongs_where_the_session_does(
    place: OciPlace, monkeypatch: pytest.MonkeyPatch, field: str, has_subnet: bool
) -> None:
    from cloudtune.rehearsal.oci.neighbours import Sessions

    session = new_ocid("datasciencenotebooksession")
    details = {"subnetId": place.subnet} if has_subnet else {}
    place.cloud.part(Sessions).said[session] = {
        "compartmentId": place.compartment,
        "projectId": place.project,
        field: {"shape": "VM.Standard2.1", **details},
    }
    monkeypatch.setenv("NB_SESSION_OCID", session)
    science = Science(place)
    run = science.run(sent(place, PyTorchDistributedRuntime(command="true"), compartment_id=None, project_id=None))
    assert (run.compartment_id, run.project_id) == (place.compartment, place.project)
    machine = science.client.get_job(run.job_id).data.job_infrastructure_configuration_details
    found = (machine.job_infrastructure_type, getattr(machine, "subnet_id", None))
    assert found == (("STANDALONE", place.subnet) if has_subnet else ("ME_STANDALONE", None))


def test_mounts_of_all_three_kinds(place: OciPlace) -> None:
    from cloudtune.rehearsal.oci.buckets import Buckets
    from cloudtune.rehearsal.oci.finder import Finder

    finder = place.cloud.part(Finder)
    place.cloud.part(Buckets).make("data", namespace="ns")
    target, export = new_ocid("mounttarget"), new_ocid("export")
    address = finder.known("PrivateIp", "10.0.0.7")
    named = (finder.known("MountTarget", address), finder.known("Export", "/one/path"))
    (shared_files(place, target, export) / "said").write_text("by OCIDs\n")
    (shared_files(place, *named) / "said").write_text("by address\n")
    runtime = PyTorchDistributedRuntime(command="cat /mnt/ids/said /deep/address/said > /mnt/bucket/both")
    mounts = (
        StorageMount(src="oci://data@ns/runs", dest="bucket"),
        StorageMount(src=f"{target}:{export}", dest="ids"),
        StorageMount(src="10.0.0.7:/one/path", dest="/deep/address"),
    )
    science = Science(place)
    run = science.ended(sent(place, runtime, *mounts))
    assert run.lifecycle_state == "SUCCEEDED", science.said(run.id)
    client = place.sdk("object_storage", "ObjectStorageClient")
    assert client.get_object("ns", "data", "runs/both").data.content == b"by OCIDs\nby address\n"
    finder.twice.add("/one/path")
    place.cloud.absent.add("10.0.0.8")
    before = len(place.stage.record.calls)
    with pytest.raises(UsageError, match="step mount-2-export finds 2 Export where it should find one"):
        sent(place, runtime, *mounts)
    with pytest.raises(UsageError, match="step mount-0-address finds no PrivateIp"):
        sent(place, runtime, StorageMount(src="10.0.0.8:/other", dest="x"))
    assert {call.operation for call in place.stage.record.calls[before:]} == {"search_resources"}


def test_every_runtime_runs(place: OciPlace, tmp_path: Path) -> None:
    target, export = new_ocid("mounttarget"), new_ocid("export")
    tools = shared_files(place, target, export)
    repository(tools, lib__py="WORD = 'from git'", go__py="import sys, lib\nprint(lib.WORD, *sys.argv[1:])")
    code = tmp_path / "code"
    (code / "pkg" / "deep").mkdir(parents=True)
    (code / "say.sh").write_text('echo "script $1 $WHERE"')
    (code / "pkg" / "deep" / "more.py").write_text("WORD = 'python'")
    (code / "pkg" / "main.py").write_text(
        "import os, more\ndef go(name, *, key): print(more.WORD, name, key, os.path.basename(os.getcwd()))"
    )
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": []}
    slow = {**cell, "id": "b", "metadata": {"tags": ["slow"]}, "source": "1/0"}
    book = {
        "cells": [{**cell, "source": "print('note' + 'book')"}, slow],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (code / "book.ipynb").write_text(json.dumps(book))
    conda = Conda(type="service", slug="pytorch20_p39_gpu_v2")
    runtimes = {
        "script two there": ScriptRuntime(
            script_path_uri=str(code), entrypoint="say.sh", args=("two",), conda=conda
        ).with_environment_variable(WHERE="there"),
        "python one two pkg": PythonRuntime(
            script_path_uri=str(code),
            entrypoint="main.py",
            entry_function="go",
            working_dir="pkg",
            python_path=("deep",),
            args=("one", "--key", "two"),
        ),
        "from git a b": GitPythonRuntime(url="file:///mnt/tools/code.git", entrypoint="go.py", args=("a", "b")),
        "notebook": NotebookRuntime(notebook_path_uri=str(code / "book.ipynb"), exclude_tags=("slow",)),
        "container mine": ContainerRuntime(
            image="iad.ocir.io/ns/image:1", entrypoint=("sh", "-c"), cmd=("echo container $WHOSE",)
        ).with_environment_variable(WHOSE="mine"),
    }
    mount = StorageMount(src=f"{target}:{export}", dest="tools")
    science = Science(place)
    runs = {
        words: sent(place, runtime, mount, name=f"abcdefg{number}")
        for number, (words, runtime) in enumerate(runtimes.items())
    }
    for words, run_id in runs.items():
        run = science.ended(run_id)
        said = science.said(run_id)
        assert (run.lifecycle_state, any(line.endswith(words) for line in said)) == ("SUCCEEDED", True), said
