"""GPU utilisation, memory, power and temperature of a node, posted to OCI Monitoring while the job runs.

Names and dimensions are those of Oracle ADS, so that its charts and alarms go on working; ``node`` is one more, because
the nodes of a group share one job run and often the numbers of their buses. nvidia-smi is read and the numbers are
posted in a process apart, whose Python has the ``oci`` library. Nothing here is a reason for a job to fail: what does
not work is said once in the log and tried again.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cloudtune.node import processes
from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log
from cloudtune.node.principals import LIBRARY, oci_client, why_refused

__all__ = ["LIBRARY", "NAMESPACE", "Gauge", "Reading", "parsed", "read", "series", "serve", "wanted"]

#: The variable by which a job asks for the numbers: their namespace.
NAMESPACE = "OCI__METRICS_NAMESPACE"
#: What a job run must know of itself to post them.
_OWN = ("JOB_RUN_COMPARTMENT_OCID", "JOB_RUN_OCID", "JOB_OCID")
#: Seconds between two readings (Monitoring puts numbers together by the minute), and the variable that changes them.
INTERVAL_S = 60.0
_INTERVAL = "CLOUDTUNE_METRICS_SECONDS"
#: How long readings wait while Monitoring cannot be reached: it takes numbers of the last two hours, and refuses the
#: whole series of one that is older. A minute is for the posting.
_MOST_WAIT = dt.timedelta(hours=2) - dt.timedelta(minutes=1)
#: Series of numbers that Monitoring takes in one request.
_MOST_SERIES = 50
_TOOL = "nvidia-smi"
_FIELDS = ("pci.bus_id", "power.draw", "temperature.gpu", "utilization.gpu", "memory.total", "memory.used")
_TOOL_S = 30
_PATIENCE_S = 5


class Reading(NamedTuple):
    """The numbers of one GPU at one moment, by the names that they have in Monitoring."""

    time: dt.datetime
    bus: str
    numbers: Mapping[str, float]


# --- in the agent


class Gauge:
    """The process that reads and posts; what it says goes to the log."""

    def __init__(self, python: str, *, archive: str, variables: Mapping[str, str], log: Log) -> None:
        self._process = processes.start(
            [python, "-I", archive, "gauge"],
            env=variables,
            stdin=subprocess.PIPE,  # its end is the end of that process
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._log = log
        self._listener = threading.Thread(target=self._listen, name="gauge", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The pid of the process, which must outlive the job's own."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # a program that it has started may still hold its output
        self._listener.join(timeout=_PATIENCE_S)
        processes.forget(self._process)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.say(line.decode("utf-8", "replace").rstrip())


def wanted(variables: Mapping[str, str]) -> bool:
    """Whether the job asks for the numbers; raises NodeError where it does and this node has none to give."""
    if not variables.get(NAMESPACE):
        return False
    missing = [name for name in _OWN if not variables.get(name)]
    if missing:
        raise NodeError(f"{', '.join(missing)} is not set: is this a job run of OCI Data Science?")
    if shutil.which(_TOOL, path=variables.get("PATH")) is None:
        raise NodeError(f"there is no {_TOOL} on this node")
    return True


# --- in the process apart


def serve() -> int:
    """Read and post until the input ends."""
    interval_s = float(os.environ.get(_INTERVAL) or INTERVAL_S)
    waiting: deque[Reading] = deque()
    said: set[str] = set()
    due_s = time.monotonic()
    client: Any = None

    def say(text: str) -> None:
        if text not in said:  # once: a fault that lasts would fill the log
            said.add(text)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    while True:
        try:
            waiting.extend(read(dt.datetime.now(dt.timezone.utc)))
            _drop_old(waiting, dt.datetime.now(dt.timezone.utc))
            client = client or _client()
            _post(client, waiting)
        except Exception as error:  # noqa: BLE001 - whatever the tool or the library raises, the job goes on
            say(f"warning: no GPU metrics for now: {_words(error)}")
        else:
            say(f"GPU metrics go to OCI Monitoring every {interval_s:g} s, namespace {os.environ[NAMESPACE]}")
        now_s = time.monotonic()
        due_s = max(due_s + interval_s, now_s)
        if select.select([0], [], [], due_s - now_s)[0]:
            return 0


def read(now: dt.datetime) -> list[Reading]:
    """Return what nvidia-smi shows of every GPU at this moment."""
    command = [_TOOL, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=False)
    found = list(parsed(done.stdout, now))
    if not found:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing"]
        raise NodeError(f"{_TOOL} (exit code {done.returncode}) says: {last[0]}")
    return found


def parsed(text: str, now: dt.datetime) -> Iterator[Reading]:
    """Yield the readings of nvidia-smi's table; a field that a GPU does not have (``[N/A]``) is left out."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(_FIELDS):
            continue
        power, heat, busy, total, used = map(_number, fields[1:])
        share = round(used / total * 100, 2) if used is not None and total else None
        numbers = {
            "gpu.power_draw": power,
            "gpu.temperature": heat,
            "gpu.gpu_utilization": busy,
            "gpu.memory_usage": share,
        }
        yield Reading(now, fields[0], {name: value for name, value in numbers.items() if value is not None})


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # not "nan" either


def series(readings: Iterable[Reading], variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the readings as Monitoring takes them: one series for each GPU and number, in the words of the SDK."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for reading in readings:
        dimensions = {
            "pci_bus": reading.bus,
            "job_run_ocid": variables["JOB_RUN_OCID"],
            "job_ocid": variables["JOB_OCID"],
            "node": variables.get("CLOUDTUNE_NODE_RANK", "0"),
        }
        for name, value in reading.numbers.items():
            one = {
                "namespace": variables[NAMESPACE],
                "compartment_id": variables["JOB_RUN_COMPARTMENT_OCID"],
                "name": name,
                "dimensions": dimensions,
                "datapoints": [],
            }
            point = {"timestamp": reading.time, "value": value, "count": 1}
            found.setdefault((reading.bus, name), one)["datapoints"].append(point)
    return list(found.values())


def _client() -> Any:
    oci: Any = importlib.import_module("oci")
    kind = oci.monitoring.MonitoringClient
    options = {"timeout": (10, 30), "retry_strategy": oci.retry.NoneRetryStrategy()}
    client = oci_client(oci, kind, **options)
    host: str = client.base_client.endpoint.rpartition("/")[0]
    if "//telemetry." not in host:
        return client
    # numbers are read at one address and taken at another
    return oci_client(oci, kind, **options, service_endpoint=host.replace("//telemetry.", "//telemetry-ingestion."))


def _drop_old(waiting: deque[Reading], now: dt.datetime) -> None:
    """Drop the readings that have waited too long, the oldest of which are the first."""
    while waiting and now - waiting[0].time > _MOST_WAIT:
        waiting.popleft()


def _post(client: Any, waiting: deque[Reading]) -> None:
    """Post all readings that wait; those that Monitoring has seen, taken or not, wait no longer."""
    models = importlib.import_module("oci").monitoring.models
    rows = series(waiting, os.environ)
    refused = ""
    for begin in range(0, len(rows), _MOST_SERIES):
        data = [
            models.MetricDataDetails(**{**row, "datapoints": [models.Datapoint(**one) for one in row["datapoints"]]})
            for row in rows[begin : begin + _MOST_SERIES]
        ]
        try:
            reply = client.post_metric_data(models.PostMetricDataDetails(metric_data=data)).data
        except Exception as error:
            if getattr(error, "status", None) != 400:
                raise
            refused = str(getattr(error, "message", error))
        else:
            if reply.failed_metrics_count:
                refused = str(reply.failed_metrics[0].message)
    waiting.clear()
    if refused:
        raise NodeError(f"OCI Monitoring does not take them: {refused}")


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, NodeError) else why_refused(error, right="use metrics")
