"""Runs over groups of nodes: ranks, names, the file of the cluster, order, how many must end well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal import faults
from tests.oci_place import oci_place
from tests.rehearsal.oci.science import Science, refused, until

pytestmark = pytest.mark.usefixtures("namespaces")
#: Each node waits for the whole file, sends its rank to node 0 and says what it sees.
MEET = """
import json, os, pathlib, socket, time

rank, size = int(os.environ["NODE_RANK"]), int(os.environ["INITIAL_CLUSTER_SIZE"])
file, looks, rows = pathlib.Path(os.environ["CLUSTER_NODES_METADATA_FILE"]), 0, []
while len(rows) < size:
    time.sleep(0.01)
    looks += 1
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError):
        continue
addresses = {row["Rank"]: row["IPAddress"] for row in rows}
if rank == 0:
    with socket.create_server((addresses[0], 7000)) as server:
        ranks = {0}
        while len(ranks) < size:
            with server.accept()[0] as peer:
                ranks.add(int(peer.recv(10)))
    print("met", sorted(ranks), looks > 1, flush=True)
else:
    while True:
        try:
            with socket.create_connection((addresses[0], 7000)) as main:
                main.send(str(rank).encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
known = socket.gethostbyname(os.environ["FQDN"]) == addresses[rank]
print(json.dumps([rank, socket.gethostname(), known, os.environ["JOB_RUN_OCID"], os.environ.get("GROUP")]))
"""


def groups_of(details: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = details["jobNodeConfigurationDetails"]["jobNodeGroupConfigurationDetailsList"]
    return found


def test_nodes_find_each_other(science: Science) -> None:
    details = science.grouped(2, 1, startupOrder="IN_ORDER")
    for group in groups_of(details):
        group["jobConfigurationDetails"]["environmentVariables"] = {"GROUP": group["name"]}
    run_id = science.start(science.job(details, MEET.encode()))
    until(lambda: science.run(run_id).lifecycle_state == "IN_PROGRESS")
    assert {group.lifecycle_state for group in science.run(run_id).node_group_details_list} == {"ACTIVE"}
    run = science.ended(run_id)
    said = science.said(run_id)
    assert run.lifecycle_state == "SUCCEEDED", said
    assert "met [0, 1, 2] True" in said
    assert sorted(json.loads(line) for line in said if line.startswith("[")) == [
        [0, "node-0", True, run_id, "g0"],
        [1, "node-1", True, run_id, "g0"],
        [2, "node-2", True, run_id, "g1"],
    ]
    assert [(group.name, group.lifecycle_state) for group in run.node_group_details_list] == [
        ("g0", "DELETED"),
        ("g1", "DELETED"),
    ]


def test_a_run_overrides_its_groups(science: Science) -> None:
    job = science.job(science.grouped(1), b"import os, sys; print(os.environ['A'], sys.argv[1:])")
    configuration = {"jobType": "DEFAULT", "environmentVariables": {"A": "run"}, "commandLineArguments": "x y"}
    node = {
        "jobNodeType": "MULTI_NODE",
        "jobNodeGroupConfigurationDetailsList": [{"name": "g0", "jobConfigurationDetails": configuration}],
    }
    run = science.ended(science.start(job, jobNodeConfigurationOverrideDetails=node))
    assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["run ['x', 'y']"])
    with refused(400, "InvalidParameter"):  # of one node each: they would be lost without a word
        science.start(job, jobConfigurationOverrideDetails=configuration)
    node["jobNodeGroupConfigurationDetailsList"][0]["name"] = "other"  # type: ignore[index]
    with refused(400, "InvalidParameter"):
        science.start(job, jobNodeConfigurationOverrideDetails=node)


def test_how_many_nodes_must_end_well(science: Science) -> None:
    """One of three may fail; of two, then, the others are ended with it."""
    some = "import os, sys, time\nrank = int(os.environ['NODE_RANK'])\ntime.sleep(0 if rank < {bad} else {long})\nsys.exit(rank + 5 if rank < {bad} else 0)"
    details = science.grouped(3)
    groups_of(details)[0]["minimumSuccessReplicas"] = 2
    runs = [
        science.start(science.job(details, some.format(bad=bad, long=long).encode())) for bad, long in ((1, 0), (2, 60))
    ]
    ends = [science.ended(run) for run in runs]
    assert [run.lifecycle_state for run in ends] == ["SUCCEEDED", "FAILED"]
    assert ends[1].lifecycle_details in {f"Job run artifact execution failed with exit code {code}." for code in (5, 6)}
    assert {group.lifecycle_state for group in ends[1].node_group_details_list} == {"FAILED"}


def test_a_node_that_dies_takes_the_run_along(tmp_path: Path) -> None:
    with oci_place(tmp_path, faults=[faults.node_dies("node-1", after_lines=2)]) as place:
        science = Science(place)
        script = b"echo first; echo second; echo third; sleep 60"
        run = science.ended(science.start(science.job(science.grouped(2), script, "a.sh")))
        assert (run.lifecycle_state, run.lifecycle_details) == ("FAILED", "Job run failed: node-1 stopped responding.")
        assert place.stage.faults.left() == ()
        assert sorted(science.said(run.id)).count("second") == 2


def test_groups_wait_for_those_before_them(science: Science) -> None:
    details = science.grouped(1, 1, startupOrder="IN_ORDER", maximumRuntimeInMinutes=600)
    run_id = science.start(
        science.job(details, b"import os, time; print(os.environ['NODE_RANK'], flush=True); time.sleep(1)")
    )
    assert science.ended(run_id).lifecycle_state == "SUCCEEDED"
    assert science.said(run_id) == ["0", "1"]
