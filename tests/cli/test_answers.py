"""What the verbs print: data on stdout in the form that was asked for, talk on stderr."""

from __future__ import annotations

import json
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import yaml
from click.testing import CliRunner

from cloudtune import display, finishing
from cloudtune.cli import cli, delete_
from cloudtune.deployments import local
from cloudtune.store import Deployment, Model, Record, Store
from tests.cli.calling import call
from tests.deployments.test_local import PIECES, Speaker


@pytest.fixture
def job(tmp_path: Path) -> str:
    """Return a job file whose run leaves one file."""
    return write_job(tmp_path / "job.yaml", 'echo working; echo 1 > "$CLOUDTUNE_OUTPUT_DIR/a.txt"')


def write_job(file: Path, command: str) -> str:
    runtime = {"type": "pyTorchDistributed", "spec": {"command": command}}
    file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
    return str(file)


@pytest.fixture
def run(job: str) -> str:
    """Return the id of a run that has succeeded."""
    return call("run", "-q", "-f", job).out.strip()


def test_run_tells_the_id_first_and_ends_with_the_result(job: str) -> None:
    answer = call("run", "-f", job)
    assert answer.code == 0
    (record,) = Store().runs()
    said = answer.err.splitlines()
    assert said[0] == f"run {record.id} (j)"
    assert f"run {record.id} succeeded" in said
    assert "[0/0] working" in answer.out.splitlines()


@pytest.mark.parametrize("more", [(), ("-d",)])
def test_a_quiet_run_prints_its_id_alone_or_its_data_alone(more: tuple[str, ...], job: str) -> None:
    plain = call("run", "-q", *more, "-f", job)
    assert (plain.code, plain.err) == (0, "")
    assert plain.out.strip() in {record.id for record in Store().runs()}
    as_json = call("run", "-q", "-o", "json", *more, "-f", job)
    assert json.loads(as_json.out)["id"] in {record.id for record in Store().runs()}
    assert as_json.err == ""
    assert yaml.safe_load(call("run", "-q", "-o", "yaml", *more, "-f", job).out)["name"] == "j"


@pytest.mark.parametrize("form", ["json", "yaml", "text"])
def test_a_form_of_outputs_makes_no_folder(
    form: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("outputs", run, "-o", form)
    assert not (tmp_path / form).exists()
    assert "a.txt" in answer.out
    if form != "text":
        assert answer.out == call("outputs", run, "-o", form, "-o", "here").out
        assert [file["bytes"] for file in yaml.safe_load(answer.out) if file["uri"].endswith("/a.txt")] == [2]
        assert (tmp_path / "here" / "a.txt").exists()


def test_outputs_go_into_any_folder_that_is_named_as_a_path(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("outputs", run, "-o", "./json")
    assert (answer.code, answer.out) == (0, "")
    assert "-> ./json" in answer.err
    assert (tmp_path / "json" / "a.txt").read_text() == "1\n"
    again = call("outputs", run, "-o", "./json")
    assert again.code == 2
    assert "is there already" in again.err
    assert call("outputs", run, "-o", "./json", "--force").code == 0
    for wrong in (("-o", "a", "-o", "b"), ("-o", "json", "-o", "yaml"), ("-o", "")):
        assert "one place and one form" in call("outputs", run, *wrong).err


def test_merge_prints_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    @attrs.frozen
    class Result:
        path: str
        checksums: dict[str, str]
        notes: tuple[str, ...] = ()
        base: str = "base"
        adapters: tuple[str, ...] = ("adapter",)

    asked: dict[str, Any] = {}

    def merge(base: str, adapter: tuple[str, ...], **options: Any) -> Result:
        asked.update(options)
        return Result(options["output"], {"a": "0"}, ("it was quantized",))

    monkeypatch.setattr(finishing, "merge", merge)
    told = call("merge", "base", "adapter", "-o", "there", "--weight", "0.5", "--no-checksums", "--for", "bedrock")
    assert told.out == "there\n"
    assert told.err == "note: it was quantized\nmerged adapter into base\n"
    assert (asked["weight"], asked["checksums"], asked["for_"], asked["notebook"]) == ((0.5,), False, "bedrock", False)
    answer = call("merge", "base", "adapter", "-o", "there", "-o", "json")
    assert json.loads(answer.out) == {
        "path": "there",
        "checksums": {"a": "0"},
        "notes": ["it was quantized"],
        "base": "base",
        "adapters": ["adapter"],
    }
    assert asked["output"] == "there"
    call("merge", "base", "adapter", "-o", "json")
    assert asked["output"] is None


def test_init_prints_paths_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(call("init", "quickstart", "-o", "json").out) == ["quickstart.yaml"]
    known = {one["name"]: one["summary"] for one in json.loads(call("init", "-o", "json").out)}
    assert known["quickstart"]


def test_an_answer_of_a_model_is_data_too(tmp_path: Path) -> None:
    server = ThreadingHTTPServer((local.HOST, 0), Speaker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{local.HOST}:{server.server_port}"
    served = local.LocalDeployment(name="mine", url=url, model="m", mark="serve-none", pid=0, log="l")
    Store().add_deployment(Deployment(name="mine", backend="local", model="m", url=url, details=attrs.asdict(served)))
    body = tmp_path / "body.json"
    body.write_text('{"messages": []}')
    try:
        whole = "".join(PIECES)
        assert json.loads(call("invoke", "mine", "Why?", "-o", "json").out) == {"answer": whole}
        assert json.loads(call("invoke", "mine", "--body", str(body), "-o", "json").out) == {"answer": whole}
        assert call("invoke", "mine", stdin="Why?").out == f"{whole}\n"
        body.write_text("[]")
        assert "holds no JSON object" in call("invoke", "mine", "--body", str(body)).err
    finally:
        server.shutdown()
        server.server_close()


def test_lists_have_the_contracts_keys(run: str) -> None:
    Store().add_model(Model(name="m", version="1", uri="/x", created=1.0))
    (model,) = json.loads(call("list", "--models", "-o", "json").out)
    assert list(model) == ["name", "version", "uri", "base", "run", "checksums", "metrics"]
    assert [one["id"] for one in json.loads(call("list", "-o", "json").out)] == [run]
    assert call("list", "--models", "--state", "failed").code == 2


def test_delete_says_what_goes_and_what_stays(run: str, home: Path, tmp_path: Path) -> None:
    Store().add_model(Model(name=run, version="1", uri=str(tmp_path), created=1.0))
    assert f"model {run} deleted\n  stays: {tmp_path}\n" == call("delete", f"{run}:1").err.replace(":1", "")
    place = home / "runs" / run / "outputs"
    assert f"run {run} deleted\n  removed: {place}\n" == call("delete", run, "--outputs").err
    assert not (home / "runs" / run).exists()


def test_a_model_is_not_forgotten_by_a_name_that_was_its_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    store.add_model(Model(name="clerk", version="1", uri=str(tmp_path), created=1.0))
    details = {"name": "clerk", "url": "u", "model": "m", "mark": "serve-none", "pid": 0, "log": "l"}
    store.add_deployment(Deployment(name="clerk", backend="local", model="m", details=details))
    assert "deployment clerk deleted" in call("delete", "clerk").err
    again = call("delete", "clerk")
    assert (again.code, "cloudtune delete clerk:1" in again.err) == (2, True)
    assert [one.version for one in store.models("clerk")] == ["1"]
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(delete_, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    refused = CliRunner().invoke(cli, ["delete", "clerk"], input="n\n")
    assert (refused.exit_code, "forget the registered model clerk:1?" in refused.stderr) == (1, True)
    assert len(store.models("clerk")) == 1
    assert CliRunner().invoke(cli, ["delete", "clerk"], input="y\n").exit_code == 0
    assert store.models("clerk") == ()


def pending() -> str:
    now = time.time()
    Store().add_run(Record(id="abcdefgh", name="j", backend="local", state="pending", created=now, updated=now))
    return "abcdefgh"


def test_a_run_that_was_cut_off_is_told_how_to_go_on() -> None:
    run = pending()
    for verb in ("watch", "status"):
        answer = call(verb, run)
        assert answer.code == 101
        assert "cloudtune run --resume abcdefgh" in answer.err
    assert call("watch", run, "-o", "json") == (101, "", "")


def test_a_difference_is_shown_whole(job: str, tmp_path: Path) -> None:
    place = tmp_path / "cloud.yaml"
    subnets = [f"subnet-{'0' * 16}{index}" for index in range(9)]
    spec = {"instanceType": "ml.g5.12xlarge", "subnetIds": subnets, "securityGroupIds": ["sg-1"]}
    place.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))
    answer = call("diff", "-f", job, "--infrastructure", "local", str(place))
    assert answer.code == 0
    second, _, first = answer.out.partition("\n\n")
    rows = [line.split("\t") for line in first.splitlines()]
    assert rows[0] == ["differs", "local", str(place)]
    assert ["backend", "local", "sagemaker"] in rows
    assert ["steps[job]", "", "aws.sagemaker create_training_job"] in rows
    keys = [line.split("\t") for line in second.splitlines() if "\t" in line]
    assert keys[:2] == [["key", "local", str(place)], ["spec.name", "supported", "supported"]]
    assert ["spec.infrastructure.spec.subnetIds", "", "supported"] in keys
    assert ["spec.infrastructure.spec.outputPath", "", "refused"] in keys
    assert {len(row) for row in (*rows, *keys)} == {3}
    assert f"\n{place}: refused: spec.infrastructure.spec.outputPath: " in second
    assert f"\n{place}: warning: " in second
    assert "\nlocal: refused" not in second
    # two places of one service differ in what their requests hold, and no cell is cut
    other = tmp_path / "other.yaml"
    spec["image"] = "x" * 200
    other.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))
    first = call("diff", "-f", job, "--infrastructure", str(place), str(other)).out.partition("\n\n")[2]
    assert f"steps[job].parameters.AlgorithmSpecification.TrainingImage\t\t{'x' * 200}\n" in f"{first}\n"
    data = json.loads(call("diff", "-f", job, "--infrastructure", "local", str(place), "-o", "json").out)
    assert [one["place"] for one in data["fields"]] == ["local", str(place)]
    assert [f"{one['path']}: {one['message']}" for one in data["fields"][1]["warnings"]] == [
        line.partition(": warning: ")[2] for line in second.splitlines() if line.startswith(f"{place}: warning: ")
    ]


@pytest.mark.parametrize("repeated", [(), ("b",), ("b", "c")])
def test_places_are_named_in_a_row_or_each_by_the_option(repeated: tuple[str, ...], job: str, tmp_path: Path) -> None:
    places = {}
    for name in ("a", "b", "c"):
        place = tmp_path / f"{name}.yaml"
        place.write_text(json.dumps({"kind": "infrastructure", "type": "local", "spec": {}}))
        places[name] = str(place)
    words = [word for name in places for word in (("--infrastructure",) if name in ("a", *repeated) else ()) + (name,)]
    answer = call("diff", "-f", job, *(places.get(word, word) for word in words), "-o", "json")
    assert answer.code == 0
    assert json.loads(answer.out)["places"] == list(places.values())


def test_a_cell_of_a_table_is_one_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    display.table(("a", "b"), [("one\ntwo", "x\ty")], empty="")
    assert capsys.readouterr().out == "a\tb\none\\ntwo\tx\\ty\n"


def test_a_long_path_breaks_between_its_keys_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    path = "steps[job].parameters.spec.template.spec.containers[0].command[8]"
    display.table(("differs", "here", "there"), [(path, "v" * 40, "w" * 40)], empty="")
    column = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert column[0] == "differs"
    assert "".join(column[1:]) == path
    assert all(line.startswith((".", "[")) for line in column[2:] if line)
    # what fits as it is stays on one line
    display.table(("differs", "here"), [(path[:50], "v")], empty="")
    assert f"{path[:50]}  v" in capsys.readouterr().out


def test_a_file_in_the_place_of_a_form_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "for a file write -o json > report" in call("check", "m", "-o", "report").err
    assert "for a file write -o yaml > r.yaml" in call("check", "m", "-o", "r.yaml").err
    monkeypatch.delenv("CLOUDTUNE_OUTPUT_DIR", raising=False)
    answer = call("merge", "b", "hf://o/a", "-o", "json")
    assert answer.code == 2
    assert "add -o FOLDER_OR_URI; -o json alone is the form of the answer" in answer.err
    assert "a folder that is called like a form is ./json" in call("merge", "b", "a", "-o", "x", "-o", "y").err


@pytest.mark.parametrize("known", [False, True])
def test_an_abort_by_gloo_at_the_end_comes_with_a_hint(known: bool, tmp_path: Path) -> None:
    said = "terminate called without an active exception" if known else "out of patience"
    answer = call("run", "-f", write_job(tmp_path / "job.yaml", f"echo {said} >&2; kill -ABRT $$"))
    assert answer.code == 100
    (record,) = Store().runs()
    for words in (answer.err, call("status", record.id).out):
        assert said in words
        assert ("  hint: if all was saved before" in words) is known


def test_an_abort_behind_an_exception_comes_without_the_hint(tmp_path: Path) -> None:
    raised = "[rank0]: Traceback (most recent call last):\\n[rank0]:   File x\\n[rank0]: ValueError: labels\\n"
    line = f"printf '{raised}terminate called without an active exception\\n' >&2; kill -ABRT $$"
    answer = call("run", "-f", write_job(tmp_path / "job.yaml", line))
    assert answer.code == 100
    assert "ValueError: labels" in answer.err
    assert "if all was saved before" not in answer.err


def test_a_cancelled_run_has_no_second_reason_and_no_files_so_far(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", "sleep 100")
    run = call("run", "-d", "-q", "-f", job).out.strip()
    assert "no files so far" in call("outputs", run).err
    assert call("cancel", run).code == 0
    watched = call("watch", run)
    assert (watched.code, watched.err.splitlines()) == (103, [f"run {run} cancelled"])
