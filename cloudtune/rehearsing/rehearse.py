"""A rehearsal from the file to the end: the clouds are staged, the spec runs there as it would, all is taken down."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from cloudtune import deployments, jobs, pipelines, storage
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.plan import FromShell, Plan, leaves
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.isolation import isolation
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsing import ground as grounds
from cloudtune.rehearsing.adapting import Spec, filled_in, offline, scaled
from cloudtune.rehearsing.clouds import Left, StandIn, kinds_of, stage, surroundings
from cloudtune.rehearsing.inputs import lacking, needed
from cloudtune.rehearsing.telling import Asked, States, asked
from cloudtune.runs import Run
from cloudtune.spec import profiles
from cloudtune.spec.document import dumps
from cloudtune.spec.job import PipelineSpec
from cloudtune.store import Deployment, Store

#: Seconds of the clouds' clocks in one of this machine's: so much shorter are their own waits, not those of a job.
SPEED = 20.0
#: Keeps the Hub's library from the network.
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
#: The file that was rehearsed, with all that was filled in, and the variable of the shell that names it.
_SPEC, _NAME = "rehearsed.yaml", "REHEARSED"
#: What may be written for the place of a user's data, by cloud.
_FORMS = (
    "such as s3://bucket/folder=FOLDER, oci://bucket@namespace/folder=FOLDER or pvc://NAMESPACE/CLAIM/folder=FOLDER"
)
_PROMPT = "PS1='(rehearsed) \\w\\$ '\n"


@attrs.frozen(kw_only=True)
class Rehearsal:
    """What came of a rehearsal: the run as ``status -o json`` shows it, what was asked, what lay there, who answered.

    ``filled`` are the throw-away values by the placeholders in whose stead they stood.
    """

    exit_code: int
    run: Mapping[str, Any]
    asked: tuple[Asked, ...]
    left: tuple[Left, ...]
    answers: Mapping[str, str]
    filled: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"rehearsed": True, **attrs.asdict(self)}


@attrs.frozen(kw_only=True)
class _Scene:
    """A rehearsal that goes on."""

    folder: Path
    stage: Stage
    clouds: tuple[StandIn, ...]

    def place(self, uri: str) -> str:
        """Return where this process finds what has this URI there."""
        places = (cloud.place(uri) for cloud in self.clouds)
        return next((str(place) for place in places if place is not None), uri)


def rehearse(
    spec: Spec,
    *,
    nodes: int | None = None,
    processes: int | None = None,
    put: Sequence[str] = (),
    online: bool = False,
    ask: str = "Hello",
    output: Path | None = None,
    shell: bool = False,
    show: Callable[[Run], object],
    progress: Callable[[str], object],
) -> Rehearsal:
    """Run a spec against the stand-ins of its clouds; see :func:`cloudtune.verbs.rehearse`."""
    kinds = kinds_of(spec)
    isolation()  # before anything else: where nodes cannot be, nothing can be rehearsed
    spec, filled = filled_in(scaled(spec, nodes=nodes, processes=processes), new_ocid)
    spec, left_out = (spec, ()) if online else offline(spec)
    plan = _plan(spec)
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is there already", hint="name a folder that is not there yet, or remove it")
    data = tuple(_pair(one) for one in put)
    with _staged(kinds, spec, plan, online=online) as scene:
        for line in _opening(scene, filled, left_out, plan, smaller=processes is not None):
            progress(line)
        for uri, source in data:
            storage.upload(source, scene.place(uri))
        for uri, who in needed(spec, plan.outputs).items():
            if not storage.listing(scene.place(uri)):
                progress(f"warning: {lacking(spec, uri, who)}")
        with States(scene.stage, scene.clouds, progress):
            run = _start(spec, progress)
            show(run)
            answers = _answers(ask, progress) if run.exit_code == 0 else {}
            exit_code, ended, logs = run.exit_code, run.to_dict(), dict(_logs(run)) if output is not None else {}
            if shell:  # where the run may be deleted
                _open_shell(scene, spec, progress)
            found = Rehearsal(
                exit_code=exit_code,
                run=ended,
                asked=asked(scene.stage.record.calls),
                left=tuple(one for cloud in scene.clouds for one in cloud.left()),
                answers=answers,
                filled=filled,
            )
        if output is not None:
            _keep(scene, logs, output, progress)
    if scene.stage.errors:
        hint = "this is a fault of cloudtune; please report it"
        raise CloudtuneError(f"the stand-in itself failed: {scene.stage.errors[0]}", hint=hint)
    return found


@contextlib.contextmanager
def _staged(kinds: Sequence[str], spec: Spec, plan: Plan, *, online: bool) -> Iterator[_Scene]:
    """Begin everything, and let this process see nothing else for a while."""
    config, hub_cache = str(profiles.folder()), _hub_cache()  # no credentials: the user's own are used
    around = surroundings(spec, plan, online=online, hub_cache=hub_cache)
    with grounds.ground() as folder, Identity() as identity, Stage(folder / "cloud", speed=SPEED) as ground:
        (folder / grounds.IDENTITY).write_text(str(identity.folder))
        identity.write(".bashrc", _PROMPT)
        clouds = tuple(stage(kind, ground, identity, around) for kind in kinds)
        environment = {**({} if online else _OFFLINE), **_from_shell(plan)}
        if hub_cache is not None:
            environment["HF_HUB_CACHE"] = str(hub_cache)
        for cloud in clouds:
            environment |= cloud.environment
        environment |= {"CLOUDTUNE_HOME": str(folder / grounds.HOME), "CLOUDTUNE_CONFIG": config}
        with identity.applied(environment):
            try:
                yield _Scene(folder=folder, stage=ground, clouds=clouds)
            finally:
                ground.nodes.close()  # what drives them sees that they are gone, and waits for nothing
                grounds.end_all(folder)


def _plan(spec: Spec) -> Plan:
    if isinstance(spec, PipelineSpec):
        return pipelines.plan_pipeline(spec, pipelines.dry_run_id(spec))
    return jobs.plan_job(spec)


def _from_shell(plan: Plan) -> dict[str, str]:
    """Return the variables that the spec reads from the user's shell."""
    names = {leaf.name for step in plan.steps for leaf in leaves(step.parameters) if isinstance(leaf, FromShell)}
    return {name: os.environ[name] for name in names if name in os.environ}


def _hub_cache() -> Path | None:
    """Return where this machine keeps models of the Hub, as the Hub's library finds it; None if it has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser().absolute()
    return folder if folder.is_dir() else None


def _pair(text: str) -> tuple[str, Path]:
    uri, equals, path = text.partition("=")
    if not equals or "://" not in uri:
        raise UsageError(f"{text!r} names no place and what goes there", hint=f"write --put URI=PATH, {_FORMS}")
    if not path or not Path(path).exists():
        hint = f"name a file or folder of this machine: --put {uri}=PATH"
        raise UsageError(f"there is no {path or 'path given'}", hint=hint)
    return uri, Path(path)


def _opening(
    scene: _Scene, filled: Mapping[str, str], left_out: Sequence[str], plan: Plan, *, smaller: bool
) -> Iterator[str]:
    names = " and ".join(f"{cloud.name} at {cloud.url}" for cloud in scene.clouds)
    yield f"rehearsed on this machine alone: {names}; its own waits are {SPEED:g} times shorter"
    if filled:
        said = [f"{text} -> {value}" for text, value in filled.items() if not _is_ocid(value)]
        number = len(filled) - len(said)
        said = [*([f"{number} OCIDs"] if number else ()), *said]
        yield f"filled in with throw-away values: {', '.join(said)}"
    for text in left_out:
        yield f"rehearsed: substituted: {text}"
    how = [one for one in (plan.launch, *plan.launches.values()) if one is not None]
    most, cores = max((one.nodes * one.processes_per_node for one in how), default=1), os.cpu_count() or 1
    if most > 2 * cores:
        yield f"warning: {most} processes on the {cores} cores of this machine: --nodes, --processes make it smaller"
    # a job that was made smaller leaves accelerators idle by intent
    for warning in (one for one in plan.warnings if not (smaller and one.path.endswith(".processesPerNode"))):
        yield f"warning: {warning.path}: {warning.message}"


def _is_ocid(value: str) -> bool:
    return value.startswith("ocid1.")


def _start(spec: Spec, progress: Callable[[str], object]) -> Run:
    def announce(run_id: str) -> None:
        progress(f"run {run_id} ({spec.name})" if spec.name else f"run {run_id}")

    def step(name: str, what: str) -> None:
        progress(f"{name}: {what}")

    if isinstance(spec, PipelineSpec):
        return pipelines.start_pipeline(spec, announce=announce)
    return jobs.start(spec, announce=announce, progress=step)


def _answers(prompt: str, progress: Callable[[str], object]) -> dict[str, str]:
    """Ask every model that was deployed, or answers without, and return what they said."""
    answers, store = {}, Store()
    imported = (deployments.answering(model) for model in store.models())
    for one in sorted([*store.deployments(), *(one for one in imported if one is not None)], key=_when):
        progress(f"asking {one.name}: {prompt}")
        answers[one.name] = deployments.ask(one, prompt)
    return answers


def _when(deployment: Deployment) -> float:
    return deployment.created


def _open_shell(scene: _Scene, spec: Spec, progress: Callable[[str], object]) -> None:
    """Let the user look around as the user of the rehearsed clouds, until they leave the shell."""
    shell, file = os.environ.get("SHELL") or "/bin/sh", scene.folder / _SPEC
    file.touch(mode=0o600)
    file.write_text(dumps(spec))
    progress("a shell in the rehearsal: cloudtune, the clouds' own tools and SDKs see it alone; leave it with exit")
    progress(f"  the file as it is rehearsed is ${_NAME}: cloudtune doctor -f ${_NAME}")
    with subprocess.Popen([shell], env={**os.environ, _NAME: str(file)}) as process:
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # it is for what runs in the shell
                process.wait()


def _logs(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what the run, or each of its steps, has logged, by its id."""
    for each in run.steps or (run,):
        yield each.id, "".join(f"{line.replica} {line.rank} {line.text}\n" for line in each.lines())


def _keep(scene: _Scene, logs: Mapping[str, str], folder: Path, progress: Callable[[str], object]) -> None:
    """Copy what a rehearsal has left: files of the clouds, logs, and every call before this."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "calls.jsonl").write_text(scene.stage.record.to_json_lines())
    for cloud in scene.clouds:
        for one in cloud.left():
            if not _is_kept(cloud, one.uri, folder / "files"):
                progress(f"{one.uri} is not kept: its name is no path of a file")
    for run_id, text in logs.items():
        (folder / "logs" / f"{run_id}.log").write_text(text)


def _is_kept(cloud: StandIn, uri: str, folder: Path) -> bool:
    """Copy an object, if its name can be a path: ``..`` would lead elsewhere, ``a`` may be there beside ``a/b``."""
    name = uri.partition("://")[2]
    if any(part in ("", ".", "..") for part in name.split("/")):
        return False
    try:
        cloud.fetch(uri, folder / name)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True
