"""Models imported into Bedrock: the real SDK and s3fs against the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

import cloudtune
from cloudtune import storage
from cloudtune.cli import cli
from cloudtune.errors import CloudtuneError, NotAllowed, RunNotFound, ServiceError, UsageError
from cloudtune.rehearsal import faults
from tests.aws_place import aws_place, until
from tests.registries.bedrock import Filing
from tests.rehearsal.aws.serving import COMMAND
from tests.rehearsal.conftest import namespaces
from tests.tiny import random_model
from tests.weights.checks.checkable import TEMPLATE, change

pytest.importorskip("botocore")
pytest.importorskip("s3fs")
__all__ = ["namespaces"]
SERVICE = "aws.bedrock"
FAULTS = {
    "500": faults.refused("*", status=500),
    "lost": faults.lost("*"),
    "cut": faults.cut("*"),
}
#: Times that the client asks before it gives up.
TRIES = 6


def read_by_nobody(piece: str) -> None:
    """Fail as writing does where the reader went away."""
    raise BrokenPipeError(piece)


@pytest.fixture
def filing(tmp_path: Path) -> Iterator[Filing]:
    with aws_place(tmp_path, speed=5000.0) as place:
        yield Filing(place, tmp_path)


def test_a_model_is_sent_imported_asked_and_deleted(filing: Filing, namespaces: None) -> None:
    from cloudtune.rehearsal.aws.bedrock_runtime import BedrockRuntime

    filing.place.cloud.part(BedrockRuntime).command = COMMAND
    said: list[str] = []
    record = filing.file(filing.model(), progress=said.append)
    (arn,) = (one["modelArn"] for one in filing.client.list_imported_models()["modelSummaries"])
    assert (record.name, record.version, record.uri) == ("llama", "1", f"bedrock-model://{arn}")
    assert "model.safetensors.index.json" in record.checksums
    assert said[-2:] == ["import: completed", f"llama:1 is {arn}"]
    staged = filing.client.get_imported_model(modelIdentifier=arn)["modelDataSource"]["s3DataSource"]["s3Uri"]
    assert staged.startswith(f"s3://{filing.place.bucket}/models/llama/")
    # asked: cold at first, then in each form
    assert cloudtune.invoke("llama", "how are you") == "how are you"
    pieces: list[str] = []
    assert cloudtune.invoke("llama:1", "how are you", show=pieces.append) == "how are you"
    assert pieces == ["how", " are", " you"]
    bodies: list[dict[str, Any]] = [
        {"prompt": "x y", "max_gen_len": 5},
        {"prompt": "x y", "max_tokens": 5},
        {"messages": [{"role": "user", "content": "x y"}], "max_tokens": 5},
        {"messages": [{"role": "user", "content": [{"text": "x y"}]}], "inferenceConfig": {"maxTokens": 5}},
        {"messages": [{"role": "user", "content": [{"text": "x y"}]}], "stream": True},
    ]
    for body in bodies:
        assert cloudtune.invoke("llama", body=body) == "x y"
        assert cloudtune.invoke("llama", body=body, show=pieces.append) == "x y"
    assert pieces[3:] == ["x", " y"] * 5
    (filing.folder / "a.png").write_bytes(b"png")
    assert cloudtune.invoke("llama", "what is it?", image=[filing.folder / "a.png"]) == "image_url text"
    with pytest.raises(ServiceError, match="the answer broke off"):
        cloudtune.invoke("llama", "now break it", show=pieces.append)
    with pytest.raises(BrokenPipeError):
        cloudtune.invoke("llama", "how are you", show=read_by_nobody)
    runtime, done = "aws.bedrock_runtime", filing.place.stage.record.calls
    for operation, fault in (("invoke_model", faults.cut("*")), ("converse", faults.lost("*"))):
        count = sum(call.call == (runtime, operation) for call in done)
        numbers = (count + 1, count + 2)
        filing.place.stage.faults.add(attrs.evolve(fault, service=runtime, operation=operation, numbers=numbers))
    assert cloudtune.invoke("llama", body=bodies[0]) == "x y"
    assert cloudtune.invoke("llama", "how are you") == "how are you"
    assert filing.place.stage.faults.left() == ()
    with pytest.raises(UsageError, match="Unknown parameter") as caught:
        cloudtune.invoke("llama", body={**bodies[3], "nonsense": 1})
    assert caught.value.hint == "look at the body that was given"
    with pytest.raises(ServiceError, match="extraneous key"):
        cloudtune.invoke("llama", body={"prompt": "x", "nonsense": 1})
    answer = CliRunner().invoke(cli, ["invoke", "llama", "hello there"])
    assert (answer.exit_code, answer.stdout) == (0, "hello there\n")
    with pytest.raises(UsageError, match="Amazon Bedrock, where its files are not read"):
        cloudtune.register("llama", name="other")
    with pytest.raises(UsageError, match="answer without being deployed"):
        cloudtune.deploy("llama", to="bedrock")
    cloudtune.delete("llama", outputs=True)
    assert (filing.models(), storage.listing(staged), cloudtune.list(models=True)) == ([], (), ())
    with pytest.raises(RunNotFound):
        cloudtune.invoke("llama", "hello")


@pytest.mark.heavy
def test_a_real_model_answers_from_bedrock_and_from_an_endpoint(filing: Filing, namespaces: None) -> None:
    """The stand-in's own servers load a model and let it speak, in every form."""
    folder = filing.folder / "real"
    shutil.copytree(random_model(), folder)
    change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", chat_template=TEMPLATE)
    filing.file(folder)
    assert cloudtune.invoke("llama", "hello")
    assert cloudtune.invoke("llama", body={"prompt": "hello", "max_gen_len": 4})
    assert cloudtune.invoke("llama", "hello", show=str)
    assert cloudtune.invoke("llama", body={"prompt": "hello", "max_gen_len": 4}, show=str)
    uri = f"s3://{filing.place.bucket}/runs/real"
    storage.upload(folder, uri)
    cloudtune.deploy(uri, to="sagemaker", shape="ml.inf2.8xlarge")
    assert cloudtune.invoke("real", "hello")
    assert cloudtune.invoke("real", "hello", show=str)
    cloudtune.delete("real")


def test_a_model_that_converse_does_not_take_answers_in_another_form(filing: Filing, namespaces: None) -> None:
    from cloudtune.rehearsal.aws.bedrock_runtime import BedrockRuntime

    filing.place.cloud.part(BedrockRuntime).command = COMMAND
    folder = filing.model()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    filing.file(folder)
    assert cloudtune.invoke("llama", "how are you") == "how are you"
    assert cloudtune.invoke("llama", "how are you", show=str) == "how are you"


def test_the_same_model_is_imported_once(filing: Filing) -> None:
    uri = f"s3://{filing.place.bucket}/runs/x/model"
    storage.upload(filing.model(), uri)
    first = filing.file(uri)
    said: list[str] = []
    assert (filing.file(uri, progress=said.append).uri, len(filing.jobs())) == (first.uri, 1)
    assert "it is there already, as version 1" in said
    # another name, and another model, are imports of their own
    assert filing.file(filing.model(), name="second").version == "1"
    assert filing.file(filing.model("other", hidden_act="gelu")).version == "2"
    assert filing.models() == ["llama-1", "llama-2", "second-1"]
    for version in ("1", "2"):
        with pytest.raises(UsageError, match="already"):
            filing.file(filing.model("third", hidden_act="relu"), version=version)
    # deleted, it is imported anew; what lies in the user's own place stays
    cloudtune.delete("llama:1", outputs=True)
    assert (filing.models(), bool(storage.listing(uri))) == (["llama-2", "second-1"], True)
    assert filing.file(uri).version == "3"
    cloudtune.delete("llama", all_versions=True)
    assert filing.models() == ["llama-2", "llama-3", "second-1"]


def test_what_surrounds_a_model_is_looked_at(filing: Filing) -> None:
    folder = filing.model()
    iam = filing.place.sdk("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    version = {"Version": "2012-10-17"}
    iam.create_role(RoleName="training", AssumeRolePolicyDocument=json.dumps({**version, "Statement": [trust]}))
    with pytest.raises(UsageError, match="role training does not let Bedrock take it on"):
        filing.file(folder)
    both = {**trust, "Principal": {"Service": ["sagemaker.amazonaws.com", "bedrock.amazonaws.com"]}}
    iam.update_assume_role_policy(RoleName="training", PolicyDocument=json.dumps({**version, "Statement": both}))
    with pytest.raises(UsageError, match=r"'a\.b' cannot be the name"):
        filing.file(folder, name="a.b")
    uri = f"s3://{filing.place.bucket}/a=b/model"
    storage.upload(folder, uri)
    with pytest.raises(UsageError, match="has characters that are not taken"):
        filing.file(uri)
    filing.profile(region="eu-west-1")
    with pytest.raises(UsageError, match="Bedrock imports no models in eu-west-1"):
        filing.file(folder)
    filing.profile(roleArn="")
    with pytest.raises(UsageError, match="nothing says with which role"):
        filing.file(folder)
    filing.profile()
    with pytest.raises(UsageError, match="--public is for the Hub"):
        filing.file(folder, public=True)
    filing.place.cloud.absent.add(filing.place.role)
    with pytest.raises(ServiceError, match="could not assume the role"):
        filing.file(folder)
    filing.place.cloud.denied.add("bedrock:CreateModelImportJob")
    with pytest.raises(NotAllowed, match="you lack bedrock:CreateModelImportJob"):
        filing.file(folder)
    assert filing.jobs() == []


def test_a_failed_import_is_told_and_tried_again(filing: Filing) -> None:
    filing.place.stage.faults.add(faults.event("import fails", "llama-1"))
    with pytest.raises(ServiceError, match="rehearsed fault"):
        filing.file(filing.model())
    assert filing.file(filing.model()).version == "1"
    assert [job["status"] for job in filing.jobs()] == ["Completed", "Failed"]


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_every_call_may_fail_once(kind: str, filing: Filing) -> None:
    record = filing.place.stage.record

    def all_of_it() -> None:
        filing.file(filing.model())
        cloudtune.delete("llama", outputs=True)

    all_of_it()
    calls = [call.call for call in record.calls if call.service == SERVICE]
    for one in faults.each_once(calls, FAULTS[kind]):
        done = calls.count((one.service, one.operation))
        filing.place.stage.faults.add(attrs.evolve(one, numbers=(done + 1,)))
    all_of_it()
    assert filing.place.stage.faults.left() == ()
    assert (len(filing.jobs()), filing.models()) == (2, [])


def test_a_call_that_fails_for_good_is_told_and_registering_goes_on(filing: Filing) -> None:
    record = filing.place.stage.record
    filing.file(filing.model())
    flow = dict.fromkeys(call.call for call in record.calls if call.service == SERVICE)
    cloudtune.delete("llama", outputs=True)
    for service, operation in flow:
        jobs = len(filing.jobs())
        done = sum(call.call == (service, operation) for call in record.calls)
        kind = "lost" if operation.startswith("create_") else "500"
        numbers = tuple(range(done + 1, done + 1 + TRIES))
        fault = attrs.evolve(FAULTS[kind], service=service, operation=operation, numbers=numbers)
        filing.place.stage.faults.add(fault)
        with pytest.raises(CloudtuneError):
            filing.file(filing.model())
        filing.file(filing.model())
        assert (len(filing.jobs()), filing.models()) == (jobs + 1, ["llama-1"])
        cloudtune.delete("llama", outputs=True)


def test_an_interrupted_import_is_followed_by_the_next_call(filing: Filing) -> None:
    main, said = threading.main_thread().ident, list[str]()
    assert main is not None

    def interrupt(line: str) -> None:
        said.append(line)
        if line == "import: in progress":
            signal.pthread_kill(main, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            filing.file(filing.model(), progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert said[-1] == "the import goes on; register again to follow it"
    assert filing.file(filing.model()).version == "1"
    assert (len(filing.jobs()), filing.models()) == (1, ["llama-1"])


def test_an_import_whose_starter_was_killed_is_followed_by_the_next_call(filing: Filing) -> None:
    tries: dict[str, Any] = {"operation": "create_model_import_job", "numbers": range(1, TRIES + 1)}
    filing.place.stage.faults.add(faults.slow(SERVICE, seconds=2.0, **tries), faults.lost(SERVICE, **tries))
    words = ["register", str(filing.model()), "--to", "bedrock", "--name", "llama"]
    environ = {**os.environ, **filing.place.environ}
    process = subprocess.Popen([sys.executable, "-m", "cloudtune", *words], env=environ, stderr=subprocess.PIPE)
    until(filing.jobs)
    process.kill()
    process.communicate()
    assert cloudtune.list(models=True) == ()
    assert filing.file(filing.model()).version == "1"
    assert len(filing.jobs()) == 1
