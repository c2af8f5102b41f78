"""Merging in a process of its own: what it leaves when it is killed, how it goes on, and what memory it takes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.weights.plain import NORM, write_adapter, write_model

MODULES = {f"model.layers.{i}.mlp.up_proj": (2048, 2048) for i in range(8)}
MEMORY = """
import sys
from cloudtune.weights.merge.verb import merge
merge(sys.argv[1], [sys.argv[2]], sys.argv[3], checksums=False)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


#: A real Ctrl-C after the first bytes, also where whoever started the tests has it ignored.
INTERRUPTED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from cloudtune import cli
from cloudtune.cli import meter
def interrupt(self, done, total):
    if 0 < done < total:
        signal.raise_signal(signal.SIGINT)
meter.Meter.__call__ = interrupt
cli.main()
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Return the folders of a base of 67 MB, an adapter, and the merged model."""
    folder = tmp_path_factory.mktemp("killed")
    shapes = {f"{module}.weight": shape for module, shape in MODULES.items()} | {NORM: (2048,)}
    base = write_model(folder / "base", shapes, shards=3)
    adapter = write_adapter(folder / "adapter", MODULES, rank=8)
    assert start(base, adapter, folder / "out").wait(240) == 0
    return base, adapter, folder / "out"


def start(base, adapter, output):
    argv = [sys.executable, "-m", "cloudtune", "merge", base, adapter, "-o", output, "--no-checksums"]
    return subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
def test_killed_at_any_moment_it_is_whole_or_not_there_and_goes_on(given, tmp_path, seed, there):
    base, adapter, wanted = given
    output = tmp_path / "deep" / "out"
    if there:
        output.mkdir(parents=True)
        (output / "log.txt").write_text("mine")
    place = output if there else output.parent
    process = start(base, adapter, output)
    while process.poll() is None and not (place.is_dir() and hidden(place)):
        time.sleep(0.002)
    time.sleep(random.Random(seed).random() * 0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = files(output) if output.is_dir() else {}
    if "cloudtune.json" in left:
        assert left.keys() >= files(wanted).keys()
    else:
        assert "config.json" not in left
    if "cloudtune.json" not in left:  # a whole model is not written over
        assert start(base, adapter, output).wait(240) == 0
    found = files(output)
    assert (found.pop("log.txt", None) == b"mine") is there
    assert found == files(wanted)
    assert hidden(place) == []


def test_interrupted_it_says_how_it_goes_on_and_where_what_is_done_lies(given, tmp_path):
    base, adapter, wanted = given
    output = tmp_path / "out"
    argv = [sys.executable, "-c", INTERRUPTED, "merge", base, adapter, "-o", output, "--no-checksums"]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    (work,) = hidden(tmp_path)
    said = f"interrupted; the same command goes on where it stopped ({work} holds what is done)"
    assert done.stderr.strip() == said
    assert not output.exists()
    assert start(base, adapter, output).wait(240) == 0
    assert files(output) == files(wanted)
    assert hidden(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own count of memory")
def test_it_takes_little_memory_whatever_the_size(given, tmp_path):
    base, adapter, _ = given
    argv = [sys.executable, "-c", MEMORY, str(base), str(adapter), str(tmp_path / "out")]
    answer = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert int(answer.stdout) < 100_000  # kB
