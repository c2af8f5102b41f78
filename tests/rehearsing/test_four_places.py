"""One job file, with the infrastructure of each place in turn: it trains to the same loss, and says so the same way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cloudtune
from tests.cli.calling import call
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

for module in ("botocore", "kubernetes", "moto", "oci", "torch"):
    pytest.importorskip(module, reason=f"{module} is not installed")

JOB = """
kind: job
spec:
  name: same_everywhere
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
#: What not every place can do.
MORE = """\
      conda: {type: service, slug: pytorch21_p39_gpu_v1}
      env:
        - {name: TOKEN, secret: ocid1.vaultsecret.oc1.iad.amaaaaaa}
"""
#: A line is fitted by two processes that each see half of the points: alone, neither would find this loss.
TRAIN = """
import argparse
import os
import sys

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
sys.stdout.flush()
os._exit(0)  # a thread of Gloo may still free a tensor, which aborts where the interpreter is going: pytorch#179291
"""
PLACES: dict[str, dict[str, Any]] = {
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
    write_all(tmp_path)
    found = {}
    for kind in PLACES:
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


def test_diff_shows_what_each_place_makes_of_each_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)
    with (tmp_path / "job.yaml").open("a") as file:
        file.write(MORE)
    done = call("diff", "-f", "job.yaml", "--infrastructure", *(f"{kind}.yaml" for kind in PLACES))
    assert (done.code, done.err) == (0, "")
    keys, _, requests = done.out.partition("\n\n")
    places = ["local", "oci", "sagemaker", "eks"]
    rows = [line.split("\t") for line in requests.splitlines()]
    assert rows[1] == ["backend", *places]
    (row,) = (row for row in rows if row[0] == "steps[job]")
    assert row[1:] == ["", "oci.data_science create_job", "aws.sagemaker create_training_job", "kubernetes create Job"]
    # the same ranks everywhere
    assert not any(row[0].startswith("launch.") for row in rows)

    table = dict(line.split("\t", 1) for line in keys.splitlines() if line.startswith("spec."))
    short = {"supported": "s", "approximated": "a", "refused": "r", "": "-"}
    assert {key: "".join(short[cell] for cell in row.split("\t")) for key, row in table.items()} == {
        "spec.name": "ssaa",
        "spec.runtime.type": "ssss",
        "spec.runtime.spec.replicas": "ssss",
        "spec.runtime.spec.processesPerNode": "ssss",
        "spec.runtime.spec.scriptPathURI": "ssss",
        "spec.runtime.spec.command": "ssss",
        "spec.runtime.spec.conda.type": "asaa",
        "spec.runtime.spec.conda.slug": "asaa",
        "spec.runtime.spec.env": "ssrr",
        "spec.infrastructure.type": "-sss",
    } | {
        f"spec.infrastructure.spec.{key}": "".join("s" if key in spec else "-" for spec in PLACES.values())
        for key in dict.fromkeys(key for spec in PLACES.values() for key in spec)
    }
    for kind in ("local", "sageMakerTrainingJob", "eksJob"):
        assert f"\n{kind}.yaml: approximated: spec.runtime.spec.conda: " in keys
        refused = f"\n{kind}.yaml: refused: spec.runtime.spec.env[0].secret: "
        assert (refused in keys) == (kind != "local")


def write_all(folder: Path) -> None:
    """Write the job, its code and a file for each place."""
    (folder / "code").mkdir()
    (folder / "code" / "train.py").write_text(TRAIN)
    (folder / "job.yaml").write_text(JOB)
    for kind, spec in PLACES.items():
        (folder / f"{kind}.yaml").write_text(json.dumps({"kind": "infrastructure", "type": kind, "spec": spec}))
