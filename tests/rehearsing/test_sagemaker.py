"""A rehearsal of SageMaker by the command line, of a file in which nothing is filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudtune.rehearsing.adapting import filled_in
from cloudtune.spec.document import load
from tests.cli.calling import call
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("botocore", reason="botocore is not installed")
pytest.importorskip("moto", reason="moto is not installed")

JOB = """
kind: job
spec:
  name: hello
  infrastructure:
    kind: infrastructure
    type: sageMakerTrainingJob
    spec:
      region: us-west-2
      roleArn: arn:aws:iam::<your-account>:role/<your-role>
      instanceType: ml.g5.12xlarge
      image: <your-account>.dkr.ecr.us-west-2.amazonaws.com/image:1
      outputPath: s3://<your-bucket>/out
      compressOutput: false
      inputs:
        - {channel: rows, uri: "s3://<your-bucket>/rows"}
  runtime:
    kind: runtime
    type: pyTorchDistributed
    spec:
      replicas: 4
      command: 'cat "$SM_CHANNEL_ROWS/rows"; echo "$CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES" | tee "$CLOUDTUNE_OUTPUT_DIR/told"; test -n "$TOKEN"'
      env:
        - {name: TOKEN, secret: "arn:aws:secretsmanager:us-west-2:<your-account>:secret:<your-secret>"}
"""


@pytest.mark.usefixtures("namespaces", "home")
def test_a_job_is_rehearsed_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "rows").write_text("a row\n")
    kept = tmp_path / "kept"
    words = ["-f", str(tmp_path / "job.yaml"), "--nodes", "2", "--processes", "1", "-o", str(kept)]
    done = call("rehearse", *words, "--put", f"s3://your-bucket/rows/rows={tmp_path / 'rows'}")
    assert done.code == 0, done.err
    assert "rehearsed on this machine alone: AWS" in done.err
    assert "nothing is at" not in done.err
    (told,) = (kept / "files").glob("your-bucket/out/hello-*/output/model/told")
    assert told.read_text() == "0 of 2\n"
    (log,) = (kept / "logs").iterdir()
    assert log.read_text().count("a row") == 2
    assert "SageMaker: downloading the image" in log.read_text()
    calls = [json.loads(line) for line in (kept / "calls.jsonl").read_text().splitlines()]
    assert [one["operation"] for one in calls].count("create_training_job") == 1


@pytest.mark.usefixtures("namespaces", "home")
def test_a_channel_that_nobody_has_filled_is_told_before_the_service_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    done = call("rehearse", "-f", str(tmp_path / "job.yaml"), "--nodes", "1", "--processes", "1")
    assert done.code != 0
    told = "warning: nothing is at s3://your-bucket/rows, which hello reads: --put s3://your-bucket/rows=PATH"
    assert told in done.err
    assert "your-bucket/rows" in done.err.split(told)[1]


def test_what_is_to_be_filled_in_becomes_what_aws_has() -> None:
    text = JOB.replace("arn:aws:iam::<your-account>:role/<your-role>", "<role arn>")
    text = text.replace('"arn:aws:secretsmanager:us-west-2:<your-account>:secret:<your-secret>"', "<your-secret-arn>")
    _, filled = filled_in(load(text), lambda kind: kind)
    assert filled["<role arn>"] == "arn:aws:iam::111122223333:role/role-arn"
    assert filled["<your-secret-arn>"].startswith("arn:aws:secretsmanager:us-west-2:111122223333:secret:")
    assert filled["<your-bucket>"] == "your-bucket"
