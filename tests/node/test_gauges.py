"""What a node knows of its GPUs, and how Monitoring is told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudtune.node import gauges
from cloudtune.node.errors import NodeError
from cloudtune.node.gauges import Reading, parsed, read, series, wanted
from cloudtune.rehearsal.keys import make_key

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.timezone.utc)
TABLE = """\
00000000:00:04.0, 42.27, 40, 20, 16384, 15287
00000000:00:05.0, [N/A], 42, [Not Supported], 16384, 0
00000000:00:06.0, [Unknown Error], nan, 0, 0, 0
Field "power" is not a valid field to query.
"""
OWN = {
    "OCI__METRICS_NAMESPACE": "tuning",
    "JOB_RUN_COMPARTMENT_OCID": "c",
    "JOB_RUN_OCID": "r",
    "JOB_OCID": "j",
    "CLOUDTUNE_NODE_RANK": "1",
}


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    assert [(found.bus, dict(found.numbers)) for found in parsed(TABLE, NOW)] == [
        (
            "00000000:00:04.0",
            {
                "gpu.power_draw": 42.27,
                "gpu.temperature": 40.0,
                "gpu.gpu_utilization": 20.0,
                "gpu.memory_usage": 93.3,
            },
        ),
        ("00000000:00:05.0", {"gpu.temperature": 42.0, "gpu.memory_usage": 0.0}),
        ("00000000:00:06.0", {"gpu.gpu_utilization": 0.0}),
    ]


def test_readings_that_waited_are_points_of_one_series() -> None:
    later = NOW + dt.timedelta(minutes=1)
    rows = series([*parsed(TABLE, NOW), *parsed(TABLE.splitlines()[1], later)], OWN)
    assert [(row["name"], len(row["datapoints"])) for row in rows] == [
        ("gpu.power_draw", 1),
        ("gpu.temperature", 1),
        ("gpu.gpu_utilization", 1),
        ("gpu.memory_usage", 1),
        ("gpu.temperature", 2),
        ("gpu.memory_usage", 2),
        ("gpu.gpu_utilization", 1),
    ]
    assert rows[4] == {
        "namespace": "tuning",
        "compartment_id": "c",
        "name": "gpu.temperature",
        "dimensions": {"pci_bus": "00000000:00:05.0", "job_run_ocid": "r", "job_ocid": "j", "node": "1"},
        "datapoints": [
            {"timestamp": NOW, "value": 42.0, "count": 1},
            {"timestamp": later, "value": 42.0, "count": 1},
        ],
    }


def test_a_tool_that_shows_no_gpu_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho Failed to initialize NVML: Driver/library version mismatch\nexit 18\n")
    tool.chmod(0o755)
    with pytest.raises(NodeError, match=r"exit code 18\) says: Failed to initialize NVML"):
        read(NOW)


def test_numbers_are_for_jobs_that_ask_and_nodes_that_have_some(tmp_path: Path) -> None:
    assert not wanted({**OWN, "OCI__METRICS_NAMESPACE": ""})
    with pytest.raises(NodeError, match="there is no nvidia-smi on this node"):
        wanted({**OWN, "PATH": str(tmp_path)})
    with pytest.raises(NodeError, match="JOB_OCID is not set: is this a job run"):
        wanted({**OWN, "JOB_OCID": ""})
    tool = tmp_path / "nvidia-smi"
    tool.write_text("")
    tool.chmod(0o755)
    assert wanted({**OWN, "PATH": str(tmp_path)})


class Monitoring:
    """A client of the service, which cannot be reached at first and refuses a series of which one point is too old.

    Between two readings an hour passes.
    """

    def __init__(self) -> None:
        self.now = NOW
        self.taken: list[int] = []

    def read(self, now: dt.datetime) -> list[Reading]:
        return [Reading(now, "bus", {"gpu.temperature": float(now.hour)})]

    def wait(self, *_: object) -> tuple[list[int], list[int], list[int]]:
        self.now += dt.timedelta(hours=1)
        return [0] if self.taken else [], [], []

    def post_metric_data(self, details: Any) -> Any:
        if self.now < NOW + dt.timedelta(hours=4):
            raise ConnectionError("no route to host")
        refused = []
        for row in details.metric_data:
            if any(self.now - point.timestamp >= dt.timedelta(hours=2) for point in row.datapoints):
                refused.append(SimpleNamespace(message="the timestamp is too old"))
            else:
                self.taken += [int(point.value) for point in row.datapoints]
        return SimpleNamespace(data=SimpleNamespace(failed_metrics_count=len(refused), failed_metrics=refused))


def test_an_outage_of_hours_costs_what_is_too_old_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("oci", reason="the oci SDK is not installed")
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLOUDTUNE_METRICS_SECONDS", "0.001")
    service = Monitoring()

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return service.now

    monkeypatch.setattr(gauges, "dt", SimpleNamespace(datetime=Clock, timezone=dt.timezone))
    monkeypatch.setattr(gauges, "read", service.read)
    monkeypatch.setattr(gauges, "_client", lambda: service)
    monkeypatch.setattr(gauges, "select", SimpleNamespace(select=service.wait))
    assert gauges.serve() == 0
    # it began at twelve and was over at sixteen
    assert service.taken == [15, 16]


def test_numbers_are_posted_where_monitoring_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("oci", reason="the oci SDK is not installed")
    key = make_key()
    (tmp_path / "key.pem").write_bytes(key.private_pem)
    facts = {"user": "ocid1.user.oc1..u", "tenancy": "ocid1.tenancy.oc1..t", "region": "eu-frankfurt-1"}
    lines = {**facts, "fingerprint": key.fingerprint, "key_file": str(tmp_path / "key.pem")}
    (tmp_path / "config").write_text("[DEFAULT]\n" + "".join(f"{name}={value}\n" for name, value in lines.items()))
    monkeypatch.setenv("OCI_CONFIG_LOCATION", str(tmp_path / "config"))
    for name in ("CLOUDTUNE_OCI_ENDPOINT", "OCI_RESOURCE_PRINCIPAL_VERSION", "OCI_CONFIG_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    endpoint = gauges._client().base_client.endpoint
    assert endpoint == "https://telemetry-ingestion.eu-frankfurt-1.oraclecloud.com/20180401"
