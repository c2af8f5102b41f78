"""Images by Docker and Podman: programs of these names that do as the real ones, and write down what they were asked."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cloudtune
from cloudtune.cli import cli
from cloudtune.errors import CloudtuneError, UsageError

REPOSITORY = "iad.ocir.io/ns/vllm"
PROGRAM = """#!/bin/sh
echo "$0 $*" >> {asked}
case "$1" in
  build) echo "step 1"; echo "step 2" >&2; {build} ;;
  push) {push} ;;
  image) echo '["elsewhere@sha256:bad", "{repository}@sha256:c0ffee"]' ;;
esac
"""


class Tools:
    """A folder of programs that is all that is found."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder / "bin", folder / "asked"
        self.folder.mkdir()

    def add(self, name: str, *, build: str = "true", push: str = "true") -> None:
        path = self.folder / name
        path.write_text(PROGRAM.format(asked=self.asked, build=build, push=push, repository=REPOSITORY))
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.asked.read_text().splitlines()] if self.asked.exists() else []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    found = Tools(tmp_path)
    monkeypatch.setenv("PATH", str(found.folder))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "My Image"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM scratch\n")
    return made


def test_an_image_is_built_and_pushed(tools: Tools, folder: Path, tmp_path: Path) -> None:
    tools.add("docker")
    said: list[str] = []
    built = cloudtune.build(folder, push=REPOSITORY, context=tmp_path, build_arg=["A=1 2", "B="], progress=said.append)
    assert (built.digest, built.image.rpartition(":")[0]) == ("sha256:c0ffee", REPOSITORY)
    build, push, look = tools.calls()
    made = f"{folder}/Dockerfile".split(" ")
    assert build[1:] == [
        *("build", "--platform", "linux/amd64", "--tag", built.image, "--file", *made),
        *("--build-arg", "A=1", "2", "--build-arg", "B=", str(tmp_path)),
    ]
    assert push[1:] == ["push", built.image]
    assert look[1:3] == ["image", "inspect"]
    assert said[1:3] == ["step 1", "step 2"]
    assert built.commands[0][-3:] == ("--build-arg", "B=", str(tmp_path))


def test_the_tag_says_what_the_folder_holds(folder: Path) -> None:
    def image(push: str | None = None) -> str:
        return cloudtune.build(folder, push=push, dry_run=True).image

    first = image()
    assert first == image()
    assert first.startswith("cloudtune-my-image:")
    (folder / "more").write_text("x")
    assert image() != first
    assert image("h:5000/a:v1") == "h:5000/a:v1"
    assert image("h:5000/a").startswith("h:5000/a:")


def test_what_cannot_be_is_said_before_anything_runs(tools: Tools, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CloudtuneError, match="no docker and no podman on this machine"):
        cloudtune.build(folder)
    tools.add("podman")
    with pytest.raises(CloudtuneError, match="no docker on this machine"):
        cloudtune.build(folder, tool="docker")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"push": "Iad.ocir.io/NS/vllm"}, "names no image"),
        ({"push": "a/b:a tag"}, "names no image"),
        ({"build_arg": ["A"]}, "no argument of a build"),
        ({"tool": "kaniko"}, "not known to build"),
    ]
    for options, words in wrong:
        with pytest.raises(UsageError, match=words):
            cloudtune.build(folder, **options)
    with pytest.raises(UsageError, match="has no Dockerfile"):
        cloudtune.build(tmp_path)
    assert tools.calls() == []
    cloudtune.build(folder)
    assert [call[0].rpartition("/")[2] for call in tools.calls()] == ["podman"]


@pytest.mark.parametrize(
    ("repository", "options", "words", "hint"),
    [
        (REPOSITORY, {"build": "echo 'no such file'; exit 3"}, "exit code 3:\n.*no such file", "build again"),
        (REPOSITORY, {"build": "echo Cannot connect to the daemon; exit 1"}, "Cannot connect", "docker info"),
        (REPOSITORY, {"push": "echo denied; exit 1"}, "denied", "docker login iad.ocir.io, as TENANCY_NAMESPACE/USER"),
        ("1.dkr.ecr.eu-west-1.amazonaws.com/a", {"push": "exit 1"}, "push", "get-login-password --region eu-west-1"),
        ("reg.example/a", {"push": "exit 1"}, "push", "docker login reg.example;"),
    ],
)
def test_a_failure_says_what_to_do(
    repository: str, options: dict[str, str], words: str, hint: str, tools: Tools, folder: Path
) -> None:
    tools.add("docker", **options)
    with pytest.raises(CloudtuneError, match=f"(?s){words}") as error:
        cloudtune.build(folder, push=repository)
    assert hint in (error.value.hint or "")


def test_the_command_line_shows_the_commands(tools: Tools, folder: Path) -> None:
    done = CliRunner().invoke(cli, ["build", str(folder), "--push", f"{REPOSITORY}:1", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1] == f"docker push {REPOSITORY}:1"
    assert "'" in done.stdout.splitlines()[0]  # what holds a space can be pasted
    assert tools.calls() == []
    tools.add("docker")
    done = CliRunner().invoke(cli, ["build", str(folder), "--push", f"{REPOSITORY}:1"])
    assert (done.exit_code, done.stdout) == (0, f"{REPOSITORY}:1\n")
    done = CliRunner().invoke(cli, ["build", str(folder), "--push", f"{REPOSITORY}:1", "-o", "json"])
    assert json.loads(done.stdout)["digest"] == "sha256:c0ffee"
