"""What a plan sends to a cluster, carried out: pods of all four kinds start the agent, and it starts the command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from cloudtune.backends.eks import EksBackend
from cloudtune.clients.kubernetes_files import with_files
from cloudtune.plan import Masked, Plan, Ref, substitute
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import ContainerRuntime, PyTorchDistributedRuntime, Runtime
from tests.backends.test_sagemaker_node import TRAPS
from tests.manifests import KINDS
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsal.kubernetes.acting import Acting, acting

pytestmark = pytest.mark.usefixtures("namespaces")
PLACE = EKSJob(context="c", image="img:1")
#: Says its own words and variables, as one line.
TELL = """
import json, os, sys
words = [os.fsencode(word).hex() for word in sys.argv[1:]]
known = ("CLOUDTUNE_", "PET_", "RANK", "WORLD_SIZE", "MASTER_", "NODE_RANK", "LOCAL_", "A_", "MY_")
seen = {name: value for name, value in os.environ.items() if name.startswith(known)}
seen |= {name: value[::-1] for name, value in seen.items() if name in ("MY_TOKEN", "MY_KEY")}  # not as the log masks it
print("told", json.dumps({"argv": words, "seen": seen}))
"""
RUNTIME = PyTorchDistributedRuntime(
    command=("python3", "-c", TELL, *TRAPS),
    replicas=2,
    processes_per_node=1,
    env={"A_B": "$(HOME) $${X} \u00e9", "MY_TOKEN": "0123456789"},
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acting]:
    with acting(tmp_path_factory.mktemp("cluster")) as found:
        yield found


def submitted(here: Acting, runtime: Runtime, kind: str, run_id: str) -> Plan:
    """Make the objects of a plan as a client would."""
    place = attrs.evolve(PLACE, job_kind=kind)
    plan = EksBackend().plan(JobSpec(name="j", infrastructure=place, runtime=runtime), run_id)
    assert plan.refused == ()
    uid = ""

    def resolved(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            assert (leaf.step, leaf.field) == ("job", "metadata.uid")
            return uid
        assert isinstance(leaf, Masked)
        return leaf.value

    for step in plan.steps:
        made = here.make(with_files(substitute(step.parameters, resolved), step.files))
        uid = uid or made["metadata"]["uid"]
    return plan


def told(here: Acting, run_id: str) -> dict[str, dict[str, Any]]:
    """Return what the command of each pod said, by the node's rank."""
    found = {}
    for pod in here.pods(**{"cloudtune.dev/run-id": run_id}):
        name = next(one["name"] for one in pod["spec"]["containers"] if one["name"] in {"pytorch", "node"})
        lines = [line for line in here.log(pod, name) if " told " in line]
        assert len(lines) == 1, here.told()
        words = json.loads(lines[0].partition(" told ")[2])
        found[words["seen"]["CLOUDTUNE_NODE_RANK"]] = words
    return found


def test_the_same_spec_says_and_sees_the_same_on_all_four_kinds(here: Acting) -> None:
    seen = {}
    for kind in KINDS:
        run_id = f"run{kind.lower()}"
        plan = submitted(here, RUNTIME, kind, run_id)
        job = plan.steps[0].parameters
        ended, reason = here.over(job["kind"], job["metadata"]["name"])
        assert ended in {"Complete", "Completed", "Succeeded"}, f"{kind}: {reason}: {here.told()}"
        words = told(here, run_id)
        assert sorted(words) == ["0", "1"], here.told()
        for one in words.values():
            assert one["argv"] == [os.fsencode(word).hex() for word in TRAPS]
            assert (one["seen"]["A_B"], one["seen"]["MY_TOKEN"]) == ("$(HOME) ${X} \u00e9", "9876543210")
            assert one["seen"].pop("CLOUDTUNE_RUN_ID") == run_id
            for name in ("MASTER_ADDR", "PET_MASTER_ADDR", "CLOUDTUNE_MAIN_ADDR"):
                assert "j-run" in one["seen"].pop(name)
            for name in ("MASTER_PORT", "PET_MASTER_PORT", "CLOUDTUNE_MAIN_PORT", "CLOUDTUNE_OUTPUT_DIR"):
                del one["seen"][name]
            one["seen"].pop("PET_LOCAL_ADDR", None)
        seen[kind] = words
    assert seen == dict.fromkeys(KINDS, seen["job"])


def test_a_container_runs_what_its_manifest_says_to_the_letter(here: Acting) -> None:
    words = ("$(HOME)", "$$(HOME)", "$$", "$", "$(A_B)", "$HOME", "$$HOME")
    runtime = ContainerRuntime(
        entrypoint=("python3", "-c", TELL),
        cmd=words,
        env={"A_B": "one", "MY_C": "$(A_B) $$ $$", "MY_KEY": "0123456789"},
    )
    plan = submitted(here, runtime, "job", "runcontainer")
    assert here.over("Job", plan.steps[0].parameters["metadata"]["name"])[0] == "Complete", here.told()
    (pod,) = here.pods(**{"cloudtune.dev/run-id": "runcontainer"})
    said = json.loads("".join(here.log(pod)).partition("told ")[2])
    assert [bytes.fromhex(word).decode() for word in said["argv"]] == list(words)
    own = {name: value for name, value in said["seen"].items() if not name.startswith("CLOUDTUNE_")}
    assert own == {"A_B": "one", "MY_C": "$(A_B) $ $", "MY_KEY": "9876543210"}
