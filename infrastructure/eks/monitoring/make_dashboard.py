"""Write dashboard.json: ``python infrastructure/eks/monitoring/make_dashboard.py``.

Measures of pods are joined with the label by which kube-state-metrics knows the run of a pod; Neuron's monitor measures
nodes, which are those that pods of the run are on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("dashboard.json")
RUN = "label_cloudtune_dev_run_id"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: The pods of the runs that are chosen, as a factor of one with the run as a label.
PODS = f'on(namespace, pod) group_left({RUN}) max by (namespace, pod, {RUN}) (kube_pod_labels{{{RUN}=~"$run"}})'
#: The nodes that these pods are on.
NODES = f"on(node) (kube_pod_info * {PODS})"
LEGEND = "{{label_cloudtune_dev_run_id}} {{pod}} {{gpu}}"
GPU_MEMORY = "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)"

#: Title, unit, expression, legend, and what it tells.
Row = tuple[str, str, str, str, str]
ROWS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (
        "Runs",
        (
            (
                "Nodes by run and state",
                "none",
                f"sum by ({RUN}, phase) (kube_pod_status_phase * {PODS})",
                "{{label_cloudtune_dev_run_id}} {{phase}}",
                "How many pods of a run are pending, running, succeeded, failed.",
            ),
            (
                "Restarts",
                "none",
                f"sum by ({RUN}, pod) (kube_pod_container_status_restarts_total * {PODS})",
                "{{label_cloudtune_dev_run_id}} {{pod}}",
                "Containers that were started again in their pod.",
            ),
        ),
    ),
    (
        "GPUs",
        (
            (
                "GPU utilisation",
                "percent",
                f"DCGM_FI_DEV_GPU_UTIL * {PODS}",
                LEGEND,
                "Share of the time in which a kernel ran. One GPU far below the others holds them all up.",
            ),
            (
                "Tensor cores",
                "percentunit",
                f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE * {PODS}",
                LEGEND,
                "Share of the cycles in which tensor cores worked: how much of the GPU's arithmetic is used.",
            ),
            (
                "GPU memory",
                "percentunit",
                f"({GPU_MEMORY}) * {PODS}",
                LEGEND,
                "Share of the GPU's memory that is taken; PyTorch keeps what it once took.",
            ),
            ("GPU power", "watt", f"DCGM_FI_DEV_POWER_USAGE * {PODS}", LEGEND, "A GPU that waits takes little."),
            (
                "GPU temperature",
                "celsius",
                f"DCGM_FI_DEV_GPU_TEMP * {PODS}",
                LEGEND,
                "Hot GPUs lower their clock.",
            ),
            (
                "GPU errors (Xid)",
                "none",
                f"DCGM_FI_DEV_XID_ERRORS * {PODS}",
                LEGEND,
                "The last error of NVIDIA's driver by its number; 0 is none. 79 is a GPU that fell off the bus.",
            ),
        ),
    ),
    (
        "Neuron",
        (
            (
                "NeuronCore utilisation",
                "percentunit",
                f"avg by (node, neuroncore) (neuroncore_utilization_ratio) and {NODES}",
                "{{node}} core {{neuroncore}}",
                "Share of the time in which a core ran a graph. While graphs are compiled it is 0.",
            ),
            (
                "Neuron device memory",
                "bytes",
                f'sum by (node) (neuron_runtime_memory_used_bytes{{memory_location="neuron_device"}}) and {NODES}',
                "{{node}}",
                "Memory of the devices that the runtime has taken.",
            ),
            (
                "Neuron execution errors",
                "none",
                f"sum by (node, error_type) (increase(execution_errors_total[5m])) and {NODES}",
                "{{node}} {{error_type}}",
                "Errors of the runtime in five minutes.",
            ),
        ),
    ),
    (
        "Processors, memory, network",
        (
            (
                "Processors",
                "none",
                f'sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{container!=""}}[5m])) * {PODS}',
                "{{label_cloudtune_dev_run_id}} {{pod}}",
                "Processors in use. Data loaders that are at their limit leave accelerators waiting.",
            ),
            (
                "Memory",
                "bytes",
                f'sum by (namespace, pod) (container_memory_working_set_bytes{{container!=""}}) * {PODS}',
                "{{label_cloudtune_dev_run_id}} {{pod}}",
                "Memory in use, /dev/shm with it; at the limit of the container it is ended (OOMKilled).",
            ),
            (
                "Network received",
                "Bps",
                f"sum by (namespace, pod) (rate(container_network_receive_bytes_total[5m])) * {PODS}",
                "{{label_cloudtune_dev_run_id}} {{pod}}",
                "What came by the pod's own network: data, checkpoints. EFA goes past it.",
            ),
        ),
    ),
)


def panels() -> Iterator[dict[str, Any]]:
    """Yield rows of panels, two beside each other."""
    number, y = 0, 0
    for title, rows in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "gridPos": _at(0, y, 24, 1),
            "collapsed": False,
            "panels": [],
        }
        y += 1
        for index, row in enumerate(rows):
            number += 1
            yield panel(number, row, _at(12 * (index % 2), y + 8 * (index // 2), 12, 8))
        y += 8 * -(-len(rows) // 2)


def panel(number: int, row: Row, place: dict[str, int]) -> dict[str, Any]:
    """Return one panel: a line a series."""
    title, unit, expression, legend, description = row
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"lineWidth": 1}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": expression, "legendFormat": legend}],
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    runs = f'label_values(kube_pod_labels{{label_app_kubernetes_io_managed_by="cloudtune"}}, {RUN})'
    every = {"multi": True, "includeAll": True, "allValue": ".+", "current": {"text": "All", "value": "$__all"}}
    return {
        "uid": "cloudtune-runs",
        "title": "cloudtune: runs",
        "description": "How busy the accelerators of each run are.",
        "tags": ["cloudtune"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "run",
                    "label": "Run",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": {"query": runs, "refId": "runs"},
                    "refresh": 2,
                    "sort": 2,
                    **every,
                },
            ]
        },
        "annotations": {"list": []},
        "panels": list(panels()),
    }


def _at(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def text() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
