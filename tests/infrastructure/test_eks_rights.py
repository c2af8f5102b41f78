"""The rights of infrastructure/eks are enough to run jobs, and no more: tried on a rehearsed cluster."""

from __future__ import annotations

import pytest

from cloudtune import jobs, rights, runs
from cloudtune.errors import NotAllowed, RunNotFound
from tests.eks_place import NAMESPACE, eks_place, job
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rights import on_cluster

pytest.importorskip("kubernetes", reason="kubernetes is not installed")


@pytest.mark.usefixtures("namespaces")
def test_feature_jobs_is_enough_to_run_watch_cancel_and_delete(tmp_path):
    with eks_place(tmp_path) as place:
        place.cluster.access.granted = on_cluster(NAMESPACE, "jobs")
        run = jobs.start(job("echo one; test $CLOUDTUNE_NODE_RANK = 0 || exit 3"))
        status = run.wait(120)
        assert (status.state, status.failure and status.failure.exit_code) == ("failed", 3), status
        assert "one" in {line.text for line in run.lines()}
        run.delete()
        with pytest.raises(RunNotFound):
            runs.get(run.id)
        longer = jobs.start(job("sleep 300"))
        assert longer.cancel().state == "cancelled"


def test_without_rights_nothing_is_made_and_the_role_is_named(tmp_path):
    with eks_place(tmp_path, acts=False) as place:
        place.cluster.access.granted = on_cluster(NAMESPACE, "queues")
        with pytest.raises(NotAllowed) as caught:
            jobs.start(job("echo one"))
        assert caught.value.policy == "infrastructure/eks"
        assert 'cannot create resource "jobs"' in caught.value.message
        right = rights.rights("kubernetes")["users.jobs"]
        assert caught.value.hint is not None
        assert caught.value.hint.endswith(
            f"kubectl apply -k infrastructure/eks/rights (feature jobs, {right.statement()})"
        )
        assert place.things("Job") == place.things("ConfigMap") == []
