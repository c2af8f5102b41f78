"""The stock ``oci`` command line against the stand-in: a client that nobody here has written.

It lives in an environment of its own (``python3 -m venv DIR && DIR/bin/pip install oci-cli``); CLOUDTUNE_OCI_CLI names
it, else it is looked for on PATH.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oci_place import OciPlace
from tests.rehearsal.oci.science import Science, until

Oci = Callable[..., Any]
WAIT = ("--wait-interval-seconds", "1", "--max-wait-seconds", "60", "--wait-for-state")


@pytest.fixture
def oci(place: OciPlace, tmp_path: Path) -> Oci:
    """Return what runs the command and reads its answer; it signs as the user of the stand-in."""
    command = os.environ.get("CLOUDTUNE_OCI_CLI") or shutil.which("oci")
    if not command or not Path(command).exists():
        pytest.skip("the oci command line is not installed: set CLOUDTUNE_OCI_CLI to it")

    def run(*words: str, fails: str = "") -> Any:
        argv = [command, "--endpoint", place.cloud.url, "--no-retry", *words]
        how: Any = {"env": place.environ, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run(argv, check=False, **how)
        if fails:
            assert done.returncode != 0
            assert fails in done.stderr
            return None
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["data"] if done.stdout.strip() else None

    return run


@pytest.mark.heavy  # the command takes seconds to start, each time
def test_a_job_is_created_run_followed_and_deleted(oci: Oci, place: OciPlace, tmp_path: Path, namespaces: None) -> None:
    owner = ("--compartment-id", place.compartment, "--project-id", place.project)
    details = Science(place).grouped(2)
    node = json.dumps(details["jobNodeConfigurationDetails"])
    logs = json.dumps(details["jobLogConfigurationDetails"])
    (tmp_path / "hello.sh").write_text("echo hello from $NODE_RANK of $INITIAL_CLUSTER_SIZE")
    words = ("data-science", "job", "create", *owner, "--display-name", "by hand")
    job = oci(*words, "--job-node-configuration-details", node, "--log-configuration-details", logs, *WAIT, "ACTIVE")
    assert (job["display-name"], job["lifecycle-state"]) == ("by hand", "ACTIVE")
    upload = ("data-science", "job", "create-job-artifact", "--job-id", job["id"], "--job-artifact-file", "hello.sh")
    oci(*upload, "--content-disposition", "attachment; filename=hello.sh")
    run = oci("data-science", "job-run", "create", *owner, "--job-id", job["id"])
    assert run["lifecycle-state"] == "ACCEPTED"
    over = until(lambda: found if (found := _get(oci, run["id"]))["lifecycle-state"] == "SUCCEEDED" else None)
    assert over["node-group-details-list"][0]["name"] == "g0"
    hour, now = dt.timedelta(hours=1), dt.datetime.now(dt.timezone.utc)
    stream = f"{place.compartment}/{over['log-details']['log-group-id']}/{over['log-details']['log-id']}"
    query = f"search \"{stream}\" | where source = '*{run['id']}' and data.message = 'hello*'"
    window = ("--time-start", (now - hour).isoformat(), "--time-end", (now + hour).isoformat())
    found = oci("logging-search", "search-logs", "--search-query", query, *window)["results"]
    said = {row["data"]["logContent"]["data"]["message"] for row in found}
    assert said == {"hello from 0 of 2", "hello from 1 of 2"}
    assert [row["id"] for row in oci("data-science", "job-run", "list", *owner[:2], "--job-id", job["id"])] == [
        run["id"]
    ]
    delete = ("data-science", "job", "delete", "--force", "--job-id", job["id"])
    oci(*delete, fails="IncorrectState")
    oci(*delete, "--delete-related-job-runs", "true")
    assert Science(place).run(run["id"]).lifecycle_state == "DELETED"


def _get(oci: Oci, run_id: str) -> Any:
    return oci("data-science", "job-run", "get", "--job-run-id", run_id)
