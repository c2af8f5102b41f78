"""Many processes at once on one record of runs: nothing is lost, and nobody waits for ever.

CLOUDTUNE_MANY=100 says how many; without it there are as many as two cores manage in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from cloudtune.home import runs_folder
from cloudtune.store import Store

MANY = int(os.environ.get("CLOUDTUNE_MANY", "12"))
#: Seconds that one command may take while all others want the same two cores; only one that is stuck takes longer.
STUCK_S = 60 + 6 * MANY


def cloudtune(*arguments: str) -> tuple[str, str]:
    """Run a command that must succeed; return what it printed and what it said."""
    command = [sys.executable, "-m", "cloudtune", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STUCK_S, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def test_many_processes_start_list_and_delete_runs_at_once(tmp_path: Path) -> None:
    runtime = {"kind": "runtime", "type": "pyTorchDistributed", "spec": {"command": "true"}}
    (tmp_path / "job.yaml").write_text(json.dumps({"kind": "job", "spec": {"name": "many", "runtime": runtime}}))
    together = Barrier(MANY)

    def user(number: int) -> str | None:
        """Start a run, list all, and delete the run if the number is odd; return the id of a run that is kept."""
        together.wait()
        printed, said = cloudtune("run", "-q", "-f", str(tmp_path / "job.yaml"))
        run_id = printed.strip()
        assert said == ""
        printed, said = cloudtune("list", "-o", "json")
        assert {run["id"]: run["state"] for run in json.loads(printed)}[run_id] == "succeeded"
        assert said == ""
        if number % 2 == 0:
            return run_id
        _, said = cloudtune("delete", "--outputs", run_id)
        assert said.startswith(f"run {run_id} deleted\n")
        assert all(line.startswith("  removed: ") for line in said.splitlines()[1:])
        return None

    with ThreadPoolExecutor(MANY) as users:
        kept = {run_id for run_id in users.map(user, range(MANY)) if run_id is not None}
    assert len(kept) == (MANY + 1) // 2
    assert {record.id: record.state for record in Store().runs()} == dict.fromkeys(kept, "succeeded")
    assert {path.name for path in runs_folder().iterdir()} == kept
    assert {run["id"] for run in json.loads(cloudtune("list", "-o", "json")[0])} == kept
