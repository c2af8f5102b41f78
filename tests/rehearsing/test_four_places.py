"""One job file, with the infrastructure of each place in turn: it trains to the same loss, and says so the same way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import cloudtune
from tests.cli.calling import call
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

for module in ("botocore", "kubernetes", "moto", "oci", "torch"):
    pytest.importorskip(module, reason=f"{module} is not installed")

JOB = """
kind: job
spec:
  name: same
  infrastructure: {kind: infrastructure, type: local}
  runtime:
    kind: runtime
    type: pyTorchDistributed
    spec:
      replicas: 2
      processesPerNode: 1
      scriptPathURI: code
      command: python3 train.py --steps 30
"""
#: A line is fitted by two processes that each see half of the points: alone, neither would find this loss.
TRAIN = """
import argparse

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
steps = parser.parse_args().steps
dist.init_process_group("gloo")
torch.manual_seed(0)
torch.set_num_threads(1)
points = torch.randn(64, 8)[dist.get_rank() :: dist.get_world_size()]
target = points.sum(dim=1, keepdim=True)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(steps):
    loss = torch.nn.functional.mse_loss(model(points), target)
    optimizer.zero_grad()
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
    optimizer.step()
total = loss.detach().clone()
dist.all_reduce(total)
print(f"rank {dist.get_rank()} loss {total.item():.10f}", flush=True)
dist.destroy_process_group()
"""
PLACES = {
    "local": {},
    "dataScienceJob": {
        "shapeName": "VM.Standard2.4",
        "blockStorageSize": 50,
        "logGroupId": "ocid1.loggroup.oc1.iad.<unique-id>",
    }
    | {
        "compartmentId": "ocid1.compartment.oc1..<unique-id>",
        "projectId": "ocid1.datascienceproject.oc1.iad.<unique-id>",
    },
    "sageMakerTrainingJob": {"region": "us-west-2", "instanceType": "ml.m5.xlarge", "image": "image:1"}
    | {"roleArn": "arn:aws:iam::<your-account>:role/<your-role>", "outputPath": "s3://<your-bucket>/out"},
    "eksJob": {"cluster": "training", "region": "us-west-2", "instanceType": "m5.xlarge", "image": "image:1"},
}
_LOSS = re.compile(r"rank (\d) loss (\d+\.\d{10})")


@pytest.mark.heavy
@pytest.mark.usefixtures("namespaces", "home")
def test_it_trains_to_the_same_loss_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(TRAIN)
    (tmp_path / "job.yaml").write_text(JOB)
    found = {}
    for kind, spec in PLACES.items():
        place = {"kind": "infrastructure", "type": kind, "spec": spec}
        (tmp_path / f"{kind}.yaml").write_text(json.dumps(place))
        words = ("-f", "job.yaml", "--infrastructure", f"{kind}.yaml")
        if kind == "local":
            run = cloudtune.run("job.yaml")
            assert run.wait(300).state == "succeeded", f"{run.status}: {[line.text for line in run.logs()]}"
            said = "\n".join(line.text for line in run.logs())
        else:
            done = call("rehearse", *words, "-o", str(tmp_path / f"kept-{kind}"))
            assert done.code == 0, f"{kind}: {done.err}"
            (log,) = (tmp_path / f"kept-{kind}" / "logs").iterdir()
            said = log.read_text()
        found[kind] = dict(_LOSS.findall(said))
        assert set(found[kind]) == {"0", "1"}, f"{kind}: {said}"
    assert found == dict.fromkeys(PLACES, found["local"])
    done = call("diff", "-f", "job.yaml", "--infrastructure", *(f"{kind}.yaml" for kind in PLACES), "-o", "json")
    shown = json.loads(done.out)
    assert len(shown["fields"]) == 4
    assert next(row["values"] for row in shown["differences"] if row["path"] == "backend") == [
        *("local", "oci", "sagemaker", "eks"),
    ]
