"""cloudtune's own job on the stand-in: planned, carried out by its client, run by the agent on two nodes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtune.errors import NotAllowed
from cloudtune.plan import Call, Plan
from cloudtune.rehearsal import faults
from cloudtune.spec.infrastructure import DataScienceJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.submit import submit
from tests.journal import Journal
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import OVER, until

pytest.importorskip("oci", reason="the oci SDK is not installed")
pytestmark = pytest.mark.usefixtures("namespaces")
RUN_ID = "abcdefgh"


TRAIN = """
import os
import sys

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
sum_ = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(sum_)
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {sum_.item():g}", flush=True)
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # a thread of Gloo may still free a tensor, which aborts where the interpreter is going: pytorch#179291
"""


def planned(place: OciPlace, code: Path, command: str, **changes: Any) -> Plan:
    from cloudtune.backends.oci import OciBackend

    where: dict[str, Any] = {
        "compartment_id": place.compartment,
        "project_id": place.project,
        "log_group_id": place.log_group,
        "shape_name": "VM.Standard2.1",
        "block_storage_size": 50,
    }
    infrastructure = DataScienceJob(**{**where, **changes})
    runtime = PyTorchDistributedRuntime(command=command, replicas=2, script_path_uri=str(code))
    return OciBackend().plan(JobSpec(name="tuned", infrastructure=infrastructure, runtime=runtime), RUN_ID)


def send(plan: Plan, notes: Journal | None = None) -> dict[str, Any]:
    from cloudtune.clients.oci import OciClient

    return dict(submit(plan, OciClient(), notes or Journal(), environ={}, sleep=lambda _: time.sleep(0.02)))


def followed(run_id: str) -> dict[str, Any]:
    from cloudtune.clients.oci import OciClient

    client, look = (
        OciClient(),
        Call(service="oci.data_science", operation="get_job_run", parameters={"jobRunId": run_id}),
    )
    return dict(until(lambda: run if (run := client.read(look))["lifecycleState"] in OVER else None))


def lines(place: OciPlace, run_id: str) -> list[str]:
    from cloudtune.rehearsal.oci.job_runs import JobRuns

    return [line.text for line in place.cloud.part(JobRuns).said[run_id].read()]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "say.sh").write_text('echo "$CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES at $CLOUDTUNE_MAIN_ADDR"\n')
    return folder


def test_the_agent_runs_a_job_over_two_nodes(place: OciPlace, code: Path) -> None:
    plan = planned(place, code, "bash say.sh; [ $CLOUDTUNE_NODE_RANK = 0 ] || sleep 1")
    assert [step.operation for step in plan.steps] == ["create_job", "create_job_artifact", "create_job_run"]
    replies = send(plan)
    run = followed(replies["run"]["id"])
    said = lines(place, run["id"])
    assert run["lifecycleState"] == "SUCCEEDED", said
    words = sorted(found[1] for line in said if (found := re.search(r" O (\d of 2 at .*)", line)))
    main = words[0].rpartition(" ")[2]
    assert main.startswith("127.")
    assert words == [f"0 of 2 at {main}", f"1 of 2 at {main}"]
    reports = []
    for node in range(2):
        work = place.stage.folder / "runs" / run["id"] / f"node-{node}" / "machine" / "home" / "cloudtune" / RUN_ID
        reports.append(json.loads((work / "report.json").read_text()))
    assert [(report["node"], report["exitCode"], report["failure"]) for report in reports] == [
        (0, 0, None),
        (1, 0, None),
    ]
    order = json.loads(next(step for step in plan.steps if step.files).files[2].content or b"")
    assert order["nodes"] == 2


@pytest.mark.heavy
def test_torchrun_meets_over_two_nodes(place: OciPlace, code: Path) -> None:
    (code / "train.py").write_text(TRAIN)
    plan = planned(place, code, "torchrun train.py")
    run = followed(send(plan)["run"]["id"])
    said = lines(place, run["id"])
    assert run["lifecycleState"] == "SUCCEEDED", said
    assert sorted(found[1] for line in said if (found := re.search(r"(rank \d of 2: 3)$", line))) == [
        "rank 0 of 2: 3",
        "rank 1 of 2: 3",
    ]


def test_a_rank_that_fails_ends_the_run_with_its_code(place: OciPlace, code: Path) -> None:
    plan = planned(place, code, "[ $CLOUDTUNE_NODE_RANK = 1 ] && exit 7; sleep 30")
    run = followed(send(plan)["run"]["id"])
    assert (run["lifecycleState"], run["lifecycleDetails"]) == (
        "FAILED",
        "Job run artifact execution failed with exit code 7.",
    )


@pytest.mark.parametrize(
    "fault", [faults.refused("*", status=429), faults.refused("*", status=500), faults.lost("*"), faults.cut("*")]
)
def test_every_call_fails_once_and_there_is_one_run(tmp_path: Path, code: Path, fault: faults.Fault) -> None:
    calls = [("oci.data_science", name) for name in ("create_job", "get_job", "create_job_artifact", "create_job_run")]
    plan = [*faults.each_once(calls, fault), *faults.each_once([("oci.data_science", "get_job_run")] * 3, fault)]
    with oci_place(tmp_path, faults=plan) as place:
        run_id = send(planned(place, code, "true"))["run"]["id"]
        run = followed(run_id)
        assert run["lifecycleState"] == "SUCCEEDED", (run["lifecycleDetails"], *lines(place, run_id))
        assert [len(place.stage.store.all(kind)) for kind in ("oci.job", "oci.job_run")] == [1, 1]
        assert place.stage.faults.left() == ()


def test_a_session_that_ends_is_gone_until_somebody_signs_in(tmp_path: Path, code: Path) -> None:
    from cloudtune.clients.oci import OciClient
    from cloudtune.rehearsal.oci.cloud import SESSION_EXPIRES

    plan = [faults.event(SESSION_EXPIRES, "get_job", numbers=(2,))]
    with oci_place(tmp_path, faults=plan, session=True) as place:
        client = OciClient()
        job = client.send(
            Call(
                service="oci.data_science",
                operation="create_job",
                parameters=planned(place, code, "true").steps[0].parameters,
            )
        )
        look = Call(service="oci.data_science", operation="get_job", parameters={"jobId": job["id"]})
        assert client.read(look)["id"] == job["id"]
        for _ in range(2):
            with pytest.raises(NotAllowed, match="does not know you"):
                client.read(look)
        place.cloud.principals.sign_in()
        assert client.read(look)["id"] == job["id"]
