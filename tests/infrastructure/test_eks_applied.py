"""infrastructure/eks applied to a rehearsed cluster by the stock kubectl: then doctor misses nothing of the page's job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cloudtune
from tests.aws_place import until
from tests.eks_place import eks_place
from tests.rights import on_cluster

FOLDER = Path(__file__).parents[2] / "infrastructure" / "eks"
pytest.importorskip("kubernetes", reason="kubernetes is not installed")


def page_job(folder: Path) -> Path:
    """Write the job of the page into a folder."""
    found = re.search(r"```yaml\n(kind: job\n.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert found is not None
    path = folder / "job.yaml"
    path.write_text(found[1])
    return path


def test_a_cluster_takes_it_and_doctor_finds_what_the_job_of_the_page_names(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    with eks_place(tmp_path, nodes=0) as place:

        def apply(name: str) -> str:
            argv = ["kubectl", "apply", "-k", str(FOLDER / name)]
            environ = {**os.environ, **place.environ}
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        def problems() -> dict[str, str]:
            report = cloudtune.doctor(file, set=["spec.infrastructure.spec.context=rehearsed"])
            assert [one for one in report.findings if one.check == "cluster" and one.status == "ok"]
            # nobody is signed in to S3 here
            found = [one for one in report.findings if one.status not in {"ok", "warning"} and one.where]
            return {one.check: one.message for one in found if one.check not in {"storage", "job"}}

        file = page_job(tmp_path)
        assert set(problems()) == {"namespace", "nodes", "queue", "account", "volumes"}
        for name in ("rights", "queues", "storage"):
            assert "created" in apply(name)
            assert "created" not in apply(name)
        driver = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "fsx.csi.aws.com"}}
        place.cluster.objects.create({**driver, "spec": {}})
        place.control.add_nodes("p5.48xlarge", 2)
        place.cluster.access.granted = on_cluster("training")
        until(lambda: problems() == {}, timeout_s=60)
