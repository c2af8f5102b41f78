"""What tests do with Data Science through the SDK: make a job, give it its artifact, run it, read what it said."""

from __future__ import annotations

import copy
import datetime as dt
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.oci_place import OciPlace

OVER = ("SUCCEEDED", "FAILED", "CANCELED", "DELETED")


class Science:
    """The user of a stand-in, with the SDK's own clients."""

    def __init__(self, place: OciPlace) -> None:
        self.place = place
        self.client = place.sdk("data_science", "DataScienceClient")
        self.search = place.sdk("loggingsearch", "LogSearchClient")

    @property
    def owner(self) -> dict[str, str]:
        return {"compartmentId": self.place.compartment, "projectId": self.place.project}

    def details(self, **variables: str) -> dict[str, Any]:
        """Return the body of a job of one node."""
        return {
            **self.owner,
            "displayName": "test",
            "jobConfigurationDetails": {"jobType": "DEFAULT", "environmentVariables": variables},
            "jobInfrastructureConfigurationDetails": {
                "jobInfrastructureType": "ME_STANDALONE",
                "shapeName": "VM.Standard2.1",
                "blockStorageSizeInGBs": 50,
            },
            "jobLogConfigurationDetails": {
                "enableLogging": True,
                "enableAutoLogCreation": True,
                "logGroupId": self.place.log_group,
            },
        }

    def grouped(self, *replicas: int, **changes: Any) -> dict[str, Any]:
        """Return the body of a job of groups of nodes, called g0, g1, ..."""
        details = self.details()
        configuration = details.pop("jobConfigurationDetails")
        machine = {**details.pop("jobInfrastructureConfigurationDetails"), "jobInfrastructureType": "MULTI_NODE"}
        groups = [
            {
                "name": f"g{number}",
                "replicas": count,
                "jobConfigurationDetails": copy.deepcopy(configuration),
                "jobInfrastructureConfigurationDetails": machine,
            }
            for number, count in enumerate(replicas)
        ]
        node = {"jobNodeType": "MULTI_NODE", "jobNodeGroupConfigurationDetailsList": groups, **changes}
        return {**details, "jobNodeConfigurationDetails": node}

    def job(self, details: Mapping[str, Any], artifact: bytes | None = None, name: str = "main.py") -> str:
        """Make a job and wait until it is ACTIVE; return its OCID."""
        job = self.client.create_job(dict(details)).data
        until(lambda: self.client.get_job(job.id).data.lifecycle_state == "ACTIVE")
        if artifact is not None:
            self.client.create_job_artifact(job.id, artifact, content_disposition=f"attachment; filename={name}")
        return str(job.id)

    def start(self, job_id: str, **details: Any) -> str:
        """Begin a run; return its OCID."""
        return str(self.client.create_job_run({**self.owner, "jobId": job_id, **details}).data.id)

    def run(self, run_id: str) -> Any:
        """Return a run as it is."""
        return self.client.get_job_run(run_id).data

    def ended(self, run_id: str) -> Any:
        """Return a run once it is over."""
        return until(lambda: found if (found := self.run(run_id)).lifecycle_state in OVER else None)

    def outcome(self, details: Mapping[str, Any], artifact: str, **options: Any) -> tuple[str, str]:
        """Run a Python file as a job; return the run's last state and details."""
        run = self.ended(self.start(self.job(details, artifact.encode(), **options)))
        return run.lifecycle_state, run.lifecycle_details

    def said(self, run_id: str) -> list[str]:
        """Return what the nodes of a run have written, whatever Logging makes of it."""
        from cloudtune.rehearsal.oci.job_runs import JobRuns

        return [line.text for line in self.place.cloud.part(JobRuns).said[run_id].read()]

    def query(self, run: Any, rest: str = "| sort by datetime asc") -> dict[str, Any]:
        """Return the body of a search for what a run has written in the last hour."""
        now = dt.datetime.now(dt.timezone.utc)
        stream = f"{run.compartment_id}/{run.log_details.log_group_id}/{run.log_details.log_id}"
        hour = dt.timedelta(hours=1)
        return {
            "timeStart": (now - hour).isoformat(),
            "timeEnd": (now + hour).isoformat(),
            "searchQuery": f"search \"{stream}\" | where source = '*{run.id}' {rest}",
        }

    def pages(self, run: Any, *, limit: int = 1000) -> Iterator[list[Mapping[str, Any]]]:
        """Yield what can be found of a run's log now, page by page."""
        asked, page = self.query(run), None
        while True:
            reply = self.search.search_logs(asked, limit=limit, **({"page": page} if page else {}))
            yield [result.data["logContent"] for result in reply.data.results]
            page = reply.headers.get("opc-next-page")
            if page is None:
                return


def until(true: Callable[[], Any], *, timeout_s: float = 60) -> Any:
    """Return the first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := true()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)
    return answer


def refused(status: int, code: str | None) -> Any:
    """Expect the SDK's error for a refusal of this status and code."""
    import oci

    class Refusal:
        def __enter__(self) -> Any:
            self.raised = pytest.raises(oci.exceptions.ServiceError)
            self.info = self.raised.__enter__()
            return self.info

        def __exit__(self, *what: Any) -> bool:
            if not self.raised.__exit__(*what):
                return False
            found = self.info.value
            assert (found.status, found.code) == (status, code), found
            assert found.request_id
            return True

    return Refusal()


def zipped(**files: str) -> bytes:
    """Return a zip of files; ``__`` in a name stands for a dot."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as pack:
        for name, text in files.items():
            pack.writestr(name.replace("__", "."), text)
    return data.getvalue()
