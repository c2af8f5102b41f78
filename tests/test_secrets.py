"""Secrets that a spec holds in clear reach the job, and lie nowhere afterwards: whole runs on this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune import Job, LocalJob, Pipeline, PyTorchDistributedRuntime, Run, verbs
from cloudtune.spec.job import PipelineStep

SECRETS = (b"hf_abcdef", b"pw4input", b"ovr_token")


@pytest.fixture
def data() -> Iterator[str]:
    """Return the URI, with a password, of a file on a server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == "Basic bWU6cHc0aW5wdXQ="
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"data")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://me:pw4input@127.0.0.1:{server.server_port}/data"
        server.shutdown()
        thread.join()


def job(data: str) -> Job:
    runtime = PyTorchDistributedRuntime(
        command='echo "$(cat data) ${#HF_TOKEN} ${#HEADER} ${#OTHER_TOKEN}"; env',
        env={"HF_TOKEN": "hf_abcdef", "HEADER": "Bearer hf_abcdef"},
        inputs={data: "data"},
    )
    place = LocalJob(overrides={"run": {"environment": {"OTHER_TOKEN": "ovr_token"}}})
    return Job(name="secrets", runtime=runtime, infrastructure=place)


def check(run: Run, home: Path) -> None:
    """Assert that the run had its secrets, and that none of them lies anywhere."""
    assert run.state == "succeeded", run.status
    assert "data 9 16 9" in [line.text for line in run.lines()]
    found = [
        (path, secret)
        for path in home.rglob("*")
        if path.is_file()
        for secret in SECRETS
        if secret in path.read_bytes()
    ]
    assert found == []


def test_a_run_leaves_no_secret_behind(data: str, home: Path) -> None:
    run = job(data).run(wait=True)
    check(run, home)
    assert "pw4input" not in str(run.to_dict())


def test_a_pipeline_leaves_no_secret_behind(data: str, home: Path) -> None:
    run = Pipeline(name="p", steps=(PipelineStep(name="one", job=job(data)),)).run()
    run.wait()
    check(run, home)


def plain(output_uri: str | None = None) -> Job:
    runtime = PyTorchDistributedRuntime(command="echo kept > $CLOUDTUNE_OUTPUT_DIR/file", output_uri=output_uri)
    return Job(name="plain", runtime=runtime)


@pytest.mark.parametrize(
    "folder", ["o%20ut", "o ut", "h$HOME x", "${CLOUDTUNE_RUN_ID}-x", "of-$WHO", "a$$WHO", "$NOBODY"]
)
def test_outputs_are_where_they_are_looked_for(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "me")
    monkeypatch.delenv("NOBODY", raising=False)
    run = plain(f"file://{tmp_path}/{folder}").run(wait=True)
    assert run.state == "succeeded", run.status
    (file,) = (one["uri"] for one in verbs.outputs(run.id) if one["uri"].endswith("/file"))
    assert Path(file.removeprefix("file://")).read_text() == "kept\n"


def test_a_home_with_a_dollar_sign_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "h$HOME x"
    monkeypatch.setenv("CLOUDTUNE_HOME", str(home))
    first = plain().run(wait=True)
    assert first.state == "succeeded", first.status
    (place,) = first.outputs()
    assert place == str(home / "runs" / first.id / "outputs")
    assert (Path(place) / "file").is_file()
    # what one run left is found by the next
    runtime = PyTorchDistributedRuntime(command="cat here/file", inputs={place: "here"})
    second = Job(name="second", runtime=runtime).run(wait=True)
    assert "kept" in [line.text for line in second.lines()]
