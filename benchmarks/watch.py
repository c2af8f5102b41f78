"""Watching loud jobs in a cloud: every line once and in order, peak memory, searches a poll interval.

    python benchmarks/watch.py                            OCI: 8 nodes, 200 lines a second each, for a minute
    python benchmarks/watch.py --cloud aws                SageMaker: 16 nodes, as loud and as long
    python benchmarks/watch.py --cloud eks                a cluster: 8 nodes, as loud and as long
    python benchmarks/watch.py --nodes 2 --seconds 10     less of it

The cloud's stand-in runs the job on this machine: real agents number the lines of real processes, the service's log
delivers them 1 to 8 seconds late (OCI's: 5 % of them twice and in no order; CloudWatch's: with pages that are empty
though more follows; pods' logs are there at once, and are followed), and `cloudtune watch -o json` in a process of its
own follows them by the cloud's SDK over HTTP, from the run's OCID or name alone, at the pace at which it asks the real
service (the stand-in is otherwise asked oftener). No time is compressed. Memory is the highest resident size of the
watching process (VmHWM); the lines are compared with what each node must have written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cloudtune import DataScienceJob, EKSJob, Job, PyTorchDistributedRuntime, SageMakerTrainingJob
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.record import Recorded
from cloudtune.rehearsal.stage import Stage

#: MB of memory that the watching process may take.
GOAL_MB = 100
#: By cloud: the client, seconds between two looks at the real service at first and later, and the search of the log (of
#: a cluster, whose logs are followed: the look at the pods).
CLOUDS = {
    "oci": ("cloudtune.clients.oci:OciClient", (1.0, 3.0), "search_logs"),
    "aws": ("cloudtune.clients.aws:AwsClient", (2.0, 5.0), "filter_log_events"),
    "eks": ("cloudtune.clients.kubernetes:KubernetesClient", (1.0, 3.0), "list_pods"),
}
NODES = {"oci": 8, "aws": 16, "eks": 8}
Where = DataScienceJob | SageMakerTrainingJob | EKSJob
TALK = """
import os, sys, time
rate, seconds = int(sys.argv[1]), int(sys.argv[2])
node, begin = os.environ["CLOUDTUNE_NODE_RANK"], time.monotonic()
for number in range(1, rate * seconds + 1):
    time.sleep(max(0.0, begin + number / rate - time.monotonic()))
    print(f"node {node} line {number}: loss 1.2345 and whatever else a training step has to say", flush=True)
"""
WATCH = """
import atexit, re
from cloudtune.backends import load
from cloudtune.cli import main

load("{client}").look_s = {look_s}


def keep_peak():
    with open("/proc/self/status") as status, open("{peak}", "w") as peak:
        peak.write(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])


atexit.register(keep_peak)
main()
"""


def job(folder: Path, place: Where, *, nodes: int, rate: int, seconds: int) -> Job:
    """Return a job whose nodes write so many lines a second each."""
    (folder / "talk.py").write_text(TALK)
    runtime = PyTorchDistributedRuntime(
        command=f"{sys.executable} talk.py {rate} {seconds}", replicas=nodes, script_path_uri=str(folder / "talk.py")
    )
    return Job(name="loud", infrastructure=place, runtime=runtime)


def follow(cloud: str, run: str, environ: dict[str, str], folder: Path) -> dict[str, Any]:
    """Watch a run in a process of its own; return what it showed, when, and what it took."""
    peak = folder / "peak"
    client, look_s, _ = CLOUDS[cloud]
    code = WATCH.format(client=client, look_s=look_s, peak=peak)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "watch", run, "-o", "json"], stdout=subprocess.PIPE, env=environ
    )
    assert process.stdout is not None
    shown = [(time.time(), json.loads(line)) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the watch ended with exit code {process.returncode}; see the lines above")
    return {
        "shown": shown,
        "peakMb": int(peak.read_text()) / 1024,
        "cpuS": usage.ru_utime + usage.ru_stime,
        "wallS": time.monotonic() - started,
    }


def compared(shown: list[tuple[float, dict[str, Any]]], *, nodes: int, lines: int) -> dict[str, Any]:
    """Return how the shown lines compare with the written ones; lines that are not there once and in order end it."""
    waits = []
    for node in range(nodes):
        mine = [(when, line) for when, line in shown if line["replica"] == node and line["stream"] == "stdout"]
        numbers = [int(line["text"].split()[3].rstrip(":")) for _, line in mine if line["text"].startswith("node ")]
        if numbers != list(range(1, lines + 1)):
            sys.exit(
                f"node {node}: {len(numbers)} lines of {lines}, {len(set(numbers))} of them different, or not in order"
            )
        waits += [when - datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp() for when, line in mine]
    told = [line["time"] for _, line in shown if line["stream"] == "stdout"]
    backwards = sum(later < one for one, later in pairwise(told))
    waits.sort()
    return {
        "lines": nodes * lines,
        "earlierThanTheOneBefore": backwards,
        "waitMedianS": statistics.median(waits),
        "waitMostS": waits[-1],
    }


def searched(cloud: str, calls: tuple[Recorded, ...]) -> dict[str, Any]:
    """Return how often the log was searched; further pages follow a search, and a look at the run goes before it."""
    search = CLOUDS[cloud][2]
    pages = [call for call in calls if call.operation == search]
    firsts = [call for call in pages if "page=" not in call.target]
    if cloud == "aws":  # what continues a search is in its body: it has no look at the run before it
        firsts = [later for one, later in pairwise(calls) if later.operation == search and one.operation != search]
    gaps = [later.time_s - one.time_s for one, later in pairwise(firsts)]
    return {"searches": len(firsts), "pages": len(pages), "leastGapS": min(gaps), "medianGapS": statistics.median(gaps)}


@contextmanager
def staged(cloud: str, folder: Path, nodes: int) -> Iterator[tuple[Stage, Where]]:
    """Begin a cloud whose machines are there at once, be its user, and give what a job there names."""
    with Identity() as identity, Stage(folder / cloud) as stage:
        if cloud == "oci":
            from cloudtune.rehearsal.oci.cloud import OciCloud, Timing

            timing = Timing(job_s=0.1, accepted_s=0.2, provisioning_s=0.5, cluster_file_s=0.5)
            given = OciCloud(stage, identity, timing=timing).environment()
            kinds = {"compartment_id": "compartment", "project_id": "datascienceproject", "log_group_id": "loggroup"}
            owner: dict[str, Any] = {name: new_ocid(kind) for name, kind in kinds.items()}
            place: Any = DataScienceJob(shape_name="VM.Standard2.1", block_storage_size=50, **owner)
        elif cloud == "eks":
            from cloudtune.rehearsal.kubernetes.cluster import Cluster
            from cloudtune.rehearsal.kubernetes.timing import Timing as ClusterTiming

            cluster = Cluster(stage, identity, timing=ClusterTiming(pulling_s=0.2))
            cluster.control.add_nodes("m5.xlarge", nodes)
            given = cluster.environment()
            place = EKSJob(namespace="default", instance_type="m5.xlarge", image="image:1")
        else:
            from cloudtune.rehearsal.aws.cloud import AwsCloud
            from cloudtune.rehearsal.aws.cloud import Timing as AwsTiming

            waits = dict.fromkeys(("starting_s", "pending_s", "downloading_s", "image_s", "uploading_s"), 0.2)
            aws = AwsCloud(stage, identity, timing=AwsTiming(**waits))
            given = aws.environment()
            place = SageMakerTrainingJob(
                region="us-west-2",
                role_arn=f"arn:aws:iam::{aws.account}:role/training",
                instance_type="ml.m5.xlarge",
                image="image:1",
                output_path=f"s3://{aws.bucket}/out",
                compress_output=False,
            )
        with identity.applied(given):
            yield stage, place
    if stage.errors:
        sys.exit("\n".join(stage.errors))


def ended_s(cloud: str, stage: Stage) -> float:
    """Return when the job ended, by the service."""
    if cloud == "aws":
        return float(stage.store.all("aws.training_job")[0].data["shown"]["TrainingEndTime"])
    if cloud == "eks":
        text = stage.store.all("jobs.batch")[0].data["object"]["status"]["completionTime"]
    else:
        text = stage.store.all("oci.job_run")[0].data["timeFinished"]
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def measure(cloud: str, folder: Path, *, nodes: int, rate: int, seconds: int) -> dict[str, Any]:
    """Run a loud job on the stand-in and watch it."""
    with staged(cloud, folder, nodes) as (stage, place):
        run = job(folder, place, nodes=nodes, rate=rate, seconds=seconds).run()
        assert run.handle is not None
        before = len(stage.record.calls)
        followed = follow(cloud, run.handle.id, dict(os.environ), folder)
        calls = stage.record.calls[before:]
        ended = ended_s(cloud, stage)
    shown = followed.pop("shown")
    return {
        "cloud": cloud,
        "nodes": nodes,
        "linesASecond": rate,
        "seconds": seconds,
        **compared(shown, nodes=nodes, lines=rate * seconds),
        **searched(cloud, calls),
        **followed,
        "lastLineAfterEndS": shown[-1][0] - ended,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", choices=sorted(CLOUDS), default="oci", help="the cloud (default: oci)")
    parser.add_argument("--nodes", type=int, help="nodes of the job (default: 8, on AWS 16)")
    parser.add_argument("--rate", type=int, default=200, help="lines a second of each node (default: 200)")
    parser.add_argument("--seconds", type=int, default=60, help="for how long they talk (default: 60)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["CLOUDTUNE_HOME"] = str(Path(name) / "home")
        nodes = options.nodes or NODES[options.cloud]
        found = measure(options.cloud, Path(name), nodes=nodes, rate=options.rate, seconds=options.seconds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    met = "met" if found["peakMb"] < GOAL_MB else "NOT met"
    print(
        "| nodes x lines/s x s | lines, each once | peak MB | goal | searches (pages) | least / median s between | ",
        end="",
    )
    print("written to shown, median / most s | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {found['nodes']} x {found['linesASecond']} x {found['seconds']} | {found['lines']} | {found['peakMb']:.0f} "
        f"| {GOAL_MB} {met} | {found['searches']} ({found['pages']}) "
        f"| {found['leastGapS']:.1f} / {found['medianGapS']:.1f} "
        f"| {found['waitMedianS']:.1f} / {found['waitMostS']:.1f} | {found['cpuS']:.1f} |"
    )


if __name__ == "__main__":
    main()
