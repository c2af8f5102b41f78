"""A rehearsal of jobs on a cluster by the command line, of files in which nothing is filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudtune.rehearsing.adapting import filled_in
from cloudtune.spec.document import load
from tests.cli.calling import call
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

for module in ("botocore", "kubernetes", "moto"):
    pytest.importorskip(module, reason=f"{module} is not installed")

JOB = """
kind: job
spec:
  name: hello
  infrastructure:
    kind: infrastructure
    type: eksJob
    spec:
      cluster: <your-cluster>
      region: eu-west-1
      namespace: training
      instanceType: ml.p5.48xlarge
      image: <your-account>.dkr.ecr.eu-west-1.amazonaws.com/image:1
      jobKind: KIND
      queue: team
      priorityClass: high
      serviceAccount: trainer
      imagePullSecrets: [registry]
      nodeSelector: {team: vision}
      volumes: [{claim: fsx-claim, mountPath: /fsx}]
  runtime:
    kind: runtime
    type: pyTorchDistributed
    spec:
      replicas: 4
      command: COMMAND
      outputUri: s3://<your-bucket>/out
      env:
        - {name: TOKEN, secret: "k8s:huggingface/token"}
"""
HELLO = (
    '\'test -n "$TOKEN"; echo "$CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES" | tee "$CLOUDTUNE_OUTPUT_DIR/told"; '
    "cat /fsx/rows > /fsx/$CLOUDTUNE_NODE_RANK'"
)
TRAIN = """
import os
import sys

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print(f"rank {dist.get_rank()} of {dist.get_world_size()} has {total.item():g}")
with open(os.path.join(os.environ["CLOUDTUNE_OUTPUT_DIR"], f"rank-{dist.get_rank()}"), "w") as file:
    file.write(f"{total.item():g}")
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # a thread of Gloo may still free a tensor, which aborts where the interpreter is going: pytorch#179291
"""


def rehearsed(folder: Path, kind: str, command: str) -> tuple[str, Path]:
    """Rehearse the job with two nodes; return what was said, and the folder with what was left."""
    text = JOB.replace("KIND", kind).replace("COMMAND", command)
    if kind == "trainJob":  # which cannot say it
        text = text.replace("      priorityClass: high\n", "")
    (folder / "job.yaml").write_text(text)
    kept = folder / f"kept-{kind}"
    (folder / "rows").write_text("a row\n")
    words = ["-f", str(folder / "job.yaml"), "--nodes", "2", "--processes", "1", "-o", str(kept)]
    done = call("rehearse", *words, "--put", f"pvc://training/fsx-claim/rows={folder / 'rows'}")
    assert done.code == 0, done.err
    return done.err, kept


@pytest.mark.usefixtures("namespaces", "home")
@pytest.mark.parametrize("kind", ["job", "jobSet"])
def test_a_job_is_rehearsed_as_it_stands(tmp_path: Path, kind: str) -> None:
    said, kept = rehearsed(tmp_path, kind, HELLO)
    assert "rehearsed on this machine alone: EKS" in said
    files = kept / "files"
    assert (files / "your-bucket" / "out" / "told").read_text() == "0 of 2\n"
    assert (files / "your-bucket" / "out" / "node-1" / "told").read_text() == "1 of 2\n"
    assert (files / "training" / "fsx-claim" / "1").read_text() == "a row\n"
    (log,) = (kept / "logs").iterdir()
    # by the digest that the registry has told
    assert "rehearsed: substituted: image 111122223333.dkr.ecr.eu-west-1.amazonaws.com/image@sha256:" in log.read_text()
    calls = [json.loads(line) for line in (kept / "calls.jsonl").read_text().splitlines()]
    asked = {one["operation"] for one in calls}
    assert {"describe_cluster", f"create_{kind.lower()}s", "create_configmaps", "read_log"} <= asked


@pytest.mark.usefixtures("namespaces", "home")
@pytest.mark.parametrize("place", ["pvc://fsx-claim/rows", "pvc://training/fsx-claim", "pvc://fsx-claim/rows/a"])
def test_data_for_a_place_on_no_claim_is_refused_with_how_it_is_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("KIND", "job").replace("COMMAND", "'true'"))
    done = call("rehearse", "-f", str(tmp_path / "job.yaml"), "--nodes", "1", "--put", f"{place}={tmp_path}")
    assert done.code == 2
    assert "no kind of storage" not in done.err
    assert "write --put pvc://NAMESPACE/CLAIM/PATH=FOLDER" in done.err


@pytest.mark.usefixtures("namespaces", "home")
def test_what_is_read_from_a_claim_and_not_there_is_told_before_it_fails(tmp_path: Path) -> None:
    inputs = "'true'\n      inputs: {file:///fsx/rows: rows, /fsx/base: base}"
    (tmp_path / "job.yaml").write_text(JOB.replace("KIND", "job").replace("COMMAND", inputs))
    (tmp_path / "rows").write_text("a row\n")
    put = f"pvc://training/fsx-claim/rows={tmp_path / 'rows'}"
    done = call("rehearse", "-f", str(tmp_path / "job.yaml"), "--nodes", "1", "--put", put)
    assert done.code == 100, done.err
    warned = [line for line in done.err.splitlines() if line.startswith("warning: nothing is at")]
    base = "pvc://training/fsx-claim/base"
    assert warned == [f"warning: nothing is at {base}, which hello reads: --put {base}=PATH puts your data there"]


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces", "home")
def test_torchrun_trains_over_two_pods_of_a_trainjob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator says where node 0 is; the examples train by an Indexed Job and by a PyTorchJob."""
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(TRAIN)
    _, kept = rehearsed(tmp_path, "trainJob", "torchrun train.py\n      scriptPathURI: code")
    (log,) = (kept / "logs").iterdir()
    assert {f"rank {rank} of 2 has 3" for rank in (0, 1)} <= {
        line.split(" ", 2)[2] for line in log.read_text().splitlines()
    }
    found = sorted(path.name for path in (kept / "files" / "your-bucket" / "out").rglob("rank-*"))
    assert found == ["rank-0", "rank-1"]


def test_what_is_to_be_filled_in_becomes_what_a_cluster_has() -> None:
    text = JOB.replace("KIND", "job").replace("COMMAND", "'true'").replace('"k8s:huggingface/token"', "<your-secret>")
    _, filled = filled_in(load(text), lambda kind: kind)
    assert filled["<your-secret>"] == "k8s:your-secret/value"
    assert filled["<your-account>"] == "111122223333"
    assert filled["<your-cluster>"] == "your-cluster"
