"""What comes before the command: secrets, code, packages, inputs, the outputs' place, accelerators."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.node.errors import NodeError
from cloudtune.node.launchers import Paths
from cloudtune.node.log import Log
from cloudtune.node.order import Order
from cloudtune.node.outputs import FolderStore, Outputs, RemoteStore, Store
from cloudtune.node.ranks import Place
from cloudtune.node.shims import write_shims
from cloudtune.node.steps import helper_variables
from cloudtune.node.transfer import Courier, expand, fetch_input, image_has, python_version, requirements
from cloudtune.node.uris import local_path

if TYPE_CHECKING:
    from cloudtune.node.gauges import Gauge


class Preparation:
    """One node made ready, step by step; ``facts`` is the report, which keeps what is worth knowing later.

    Modules that most jobs do not need are loaded when a step needs them: a node should start at once.
    """

    def __init__(
        self,
        order: Order,
        *,
        base: Path,
        directory: Path,
        log: Log,
        surroundings: Mapping[str, str],
        facts: dict[str, Any],
    ) -> None:
        self.order = order
        self.base = base
        self.directory = directory
        self.log = log
        self.surroundings = surroundings
        self.facts = facts
        self.tools = directory / ".agent"
        self.code = directory / "work"
        self.working = self.code
        self.output_folder = directory / "outputs"
        self.python = sys.executable
        self.archive = ""
        self.on_processors = False
        self.secrets: dict[str, str] = {}
        self.outputs: Outputs | None = None
        self._courier: Courier | None = None
        self._gauge: Gauge | None = None
        self._environments: dict[tuple[str, ...], str] = {}

    def make_ready(self, place: Place) -> None:
        """Carry out all steps; raises NodeError at the first that fails."""
        self.tools.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.code.mkdir(parents=True, exist_ok=True)
        self.archive = _own_archive(self.tools)
        self._inherit()
        for name, reference in self.order.secrets.items():
            self.secrets[name] = self._secret(name, reference)
        self._fetch_code()
        self._install_packages()
        self._fetch_inputs()
        self._prepare_outputs(place)
        self._check_accelerators()
        write_shims(
            self.tools / "bin",
            python=self.python,
            pipes=self.pipes,
            archive=self.archive,
            agent_python=sys.executable,
        )
        if place.name == "oci":
            self._begin_gauge(place)

    @property
    def pipes(self) -> Path:
        """The folder of the named pipes."""
        return self.tools / "pipes"

    @property
    def paths(self) -> Paths:
        """Where the command finds things."""
        scripts = [str(Path(python).parent) for python in (self.python, sys.executable)]
        return Paths(
            python=self.python,
            scripts=tuple(dict.fromkeys(scripts)),
            tools=str(self.tools / "bin"),
            code=str(self.code),
            working=str(self.working),
            outputs=str(self.output_folder),
        )

    def helpers(self) -> set[int]:
        """Return the pids of processes that must outlive the job's own."""
        found = self._courier.pids() if self._courier else set()
        return found if self._gauge is None else found | {self._gauge.pid}

    def close(self) -> None:
        """End the helpers."""
        if self._courier is not None:
            self._courier.close()
        if self._gauge is not None:
            self._gauge.close()

    def _inherit(self) -> None:
        missing = [name for name in self.order.inherited if name not in self.surroundings]
        if missing:
            raise NodeError(f"the job is to inherit {', '.join(missing)}, but this node was started without")
        for variables in (self.surroundings, self.order.environment):
            self.log.redaction.add_variables(variables)

    def _secret(self, name: str, reference: str) -> str:
        secrets = importlib.import_module("cloudtune.node.secrets")
        value: str | None = secrets.local_value(name, reference, self.surroundings)
        if value is None:
            value = secrets.fetch(
                name,
                reference,
                archive=self.archive,
                environment=self._cloud_library,
                variables=self._helper_variables(),
            )
        self.log.redaction.add([value])
        return value

    def _fetch_code(self) -> None:
        source = self.order.code
        if source:
            code = importlib.import_module("cloudtune.node.code")
            started = time.monotonic()
            kind = source.get("kind")
            if kind == "archive":
                path = self.base / source["path"]
                if not path.is_file():
                    raise NodeError(f"the job's code, {path}, did not arrive on this node")
                code.unpack(path, self.code)
            elif kind == "git":
                self._fetch_git(code, source)
            elif kind == "uri":
                uri = expand(source["uri"], self._helper_variables())
                code.fetch_uri(uri, self.code, self._fetch)
            else:
                raise NodeError(f"the order names code of kind {kind!r}; this agent knows archive, git and uri")
            self.log.say(f"code is here after {time.monotonic() - started:.1f} s")
        self.working = self.code / (self.order.working_dir or "")
        if not self.working.is_dir():
            raise NodeError(f"workingDir {self.order.working_dir!r} is not a folder of the job's code")

    def _fetch_git(self, code: Any, source: Any) -> None:
        key = None
        if source.get("secret"):
            secrets = importlib.import_module("cloudtune.node.secrets")
            key = secrets.write_key(self.tools, self._secret("of the git repository", source["secret"]))
        variables = self._helper_variables()
        source = {**source, "url": expand(source["url"], variables)}
        commit = code.fetch_git(source, self.code, self.log, variables=variables, key=key)
        if key is not None:
            key.unlink(missing_ok=True)
        self.facts["code"] = {"commit": commit}
        self.log.say(f"git: commit {commit}")

    def _install_packages(self) -> None:
        order = self.order
        wanted = list(self._notebook_packages())
        if not (order.pip_packages or order.pip_requirements or wanted):
            return
        dependencies = importlib.import_module("cloudtune.node.dependencies")
        started = time.monotonic()
        file = dependencies.requirements_file(order.pip_requirements, working=self.working, code=self.code)
        variables = self._helper_variables()
        words = [expand(word, variables) for word in dependencies.pip_arguments(order.pip_packages, None)]
        arguments = [*wanted, *words, *dependencies.pip_arguments("", file)]
        self.python = dependencies.private_environment(
            self.directory / "venv", self.python, self.log, variables=variables
        )
        options = {"variables": variables, "working": self.working, "tools": self.tools}
        dependencies.install(arguments, self.python, self.log, **options)
        self.log.say(f"packages are installed after {time.monotonic() - started:.1f} s")

    def _notebook_packages(self) -> Sequence[str]:
        if self.order.command[:2] != ("@agent", "notebook"):
            return ()
        variables = self._helper_variables()
        engines = (("papermill", "ipykernel"), ("nbclient", "nbformat", "ipykernel"))
        if any(image_has(self.python, modules, variables) for modules in engines):
            return ()
        return engines[0]

    def _fetch_inputs(self) -> None:
        variables = self._helper_variables()
        for uri, path in self.order.inputs.items():
            started = time.monotonic()
            target = self.working / expand(path, variables)
            if path.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
            self._fetch(expand(uri, variables), target)
            self.log.say(f"input {uri} is at {path} after {time.monotonic() - started:.1f} s")

    def _fetch(self, uri: str, target: Path) -> None:
        fetch_input(uri, target, lambda: self.courier)

    def _prepare_outputs(self, place: Place) -> None:
        order = self.order
        if order.output_dir:
            self.output_folder = Path(os.path.normpath(self.working / order.output_dir))
        if place.name == "sagemaker" and place.node_rank and order.output_layout == "perNode" and not order.output_uri:
            # the service takes the folders of all nodes to one place
            self.output_folder /= f"node-{place.node_rank}"
        self.output_folder.mkdir(parents=True, exist_ok=True)
        if not order.output_uri:
            return
        uri = order.output_uri
        if order.output_uri_open:
            uri = expand(uri, {**self._helper_variables(), "CLOUDTUNE_RUN_ID": order.run_id})
        path = local_path(uri)
        store: Store = FolderStore(path.absolute(), uri) if path is not None else RemoteStore(uri, self.courier)
        interval_s = float(self.surroundings.get("CLOUDTUNE_SYNC_SECONDS") or 30)
        outputs = Outputs(
            self.output_folder, store, self.log, node=place.node_rank, layout=order.output_layout, interval_s=interval_s
        )
        outputs.probe(order.run_id, self.tools)
        self.outputs = outputs

    def _check_accelerators(self) -> None:
        order, rehearsed = self.order, self.surroundings.get("CLOUDTUNE_REHEARSED")
        accelerators = importlib.import_module("cloudtune.node.accelerators")
        if order.world_size > 1 and (rehearsed or not order.accelerators_per_node):
            self.on_processors = accelerators.none_at_all()
        if not order.accelerators_per_node:
            return
        found = accelerators.look(order.accelerator)
        error, warning = accelerators.judge(
            found,
            accelerator=order.accelerator,
            expected=order.accelerators_per_node,
            processes=order.processes_per_node,
        )
        if error and rehearsed:
            what = f"{order.accelerators_per_node} {order.accelerator or 'accelerators'}"
            here = f"{found.number} of them, and the processors" if found.number else "the processors"
            error, warning = None, None
            self.log.say(f"rehearsed: substituted: {what} -> {here} of this machine")
        if error:
            raise NodeError(error)
        if warning:
            self.log.say(f"warning: {warning}")

    def _begin_gauge(self, place: Place) -> None:
        variables = {**self._helper_variables(), "CLOUDTUNE_NODE_RANK": str(place.node_rank)}
        gauges = importlib.import_module("cloudtune.node.gauges")
        try:
            if gauges.wanted(variables):
                python = self._cloud_library(*gauges.LIBRARY)
                self._gauge = gauges.Gauge(python, archive=self.archive, variables=variables, log=self.log)
        except (NodeError, OSError) as error:
            self.log.say(f"warning: no GPU metrics: {error}")

    def _helper_variables(self) -> dict[str, str]:
        return helper_variables(self.surroundings, self.order.environment, self.secrets)

    @property
    def courier(self) -> Courier:
        """The process for files that are not on this node; it starts when it is first asked."""
        if self._courier is None:
            self._courier = Courier(
                self._transfer_environment,
                archive=self.archive,
                variables=self._helper_variables(),
                errors=self.tools / "courier.log",
            )
        return self._courier

    def _transfer_environment(self, scheme: str) -> str:
        if scheme in ("http", "https"):
            return sys.executable
        modules, packages = requirements(scheme, python_version(sys.executable))
        return self._environment(modules, packages)

    def _cloud_library(self, module: str, requirement: str) -> str:
        return self._environment((module,), (requirement,))

    def _environment(self, modules: tuple[str, ...], packages: tuple[str, ...]) -> str:
        """Return an interpreter that has the modules: the image's, else one of a private environment."""
        known = self._environments.get(modules)
        if known is None:
            variables = self._helper_variables()
            made = dict.fromkeys([sys.executable, *self._environments.values()])  # one may have what another needs
            known = next((python for python in made if image_has(python, modules, variables)), None)
            if known is None:
                self.log.say(f"installing {', '.join(packages)} for transfers")
                dependencies = importlib.import_module("cloudtune.node.dependencies")
                known = dependencies.private_environment(
                    self.tools / "-".join(modules), sys.executable, self.log, variables=variables
                )
                options = {"variables": variables, "working": self.tools, "tools": self.tools, "quiet": True}
                dependencies.install(packages, known, self.log, **options)
            self._environments[modules] = known
        return known


def _own_archive(folder: Path) -> str:
    """Return the zipapp that this process runs from; if it runs from plain files, one is packed into the folder."""
    loader = globals().get("__loader__")
    archive = getattr(loader, "archive", None)
    if archive:
        return str(Path(archive).absolute())
    packed = folder / "agent.pyz"
    packed.write_bytes(importlib.import_module("cloudtune.node.pack").agent_bytes())
    return str(packed)
