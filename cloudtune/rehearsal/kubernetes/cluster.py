"""A whole cluster on a stage: its API server, its objects, who is known to it, and what acts in it by itself."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from cloudtune.rehearsal.certificates import make_certificate
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.access import Access
from cloudtune.rehearsal.kubernetes.api import ApiServer
from cloudtune.rehearsal.kubernetes.control import Control
from cloudtune.rehearsal.kubernetes.installed import TRAIN_JOBS, install
from cloudtune.rehearsal.kubernetes.kinds import OPERATORS, Kinds
from cloudtune.rehearsal.kubernetes.objects import Objects
from cloudtune.rehearsal.kubernetes.surroundings import Surroundings
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.kubernetes.validation import Validation
from cloudtune.rehearsal.stage import Stage

#: How a user of a kubeconfig is known: by a token that stays, or by a program that makes one.
Way = Literal["token", "program"]
_PLACE = ".kube/config"
#: Makes a token as a login plug-in does; its argument is the seed.
_PROGRAM = """
import hashlib, json, secrets, sys
nonce = secrets.token_hex(8)
digest = hashlib.sha256((sys.argv[1] + nonce).encode()).hexdigest()[:32]
status = {"token": "rehearsed." + nonce + "." + digest}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


class Cluster:
    """A cluster on a stage, for the users of an identity, which gets a kubeconfig with the cluster's context.

    ``operators`` are those that are installed, of :data:`~cloudtune.rehearsal.kubernetes.kinds.OPERATORS`;
    ``trainer_api`` is the minor version of the trainer's API. Without ``acts`` nothing happens by itself: no controller
    and no kubelet is there, and objects are what clients make of them.
    """

    def __init__(
        self,
        stage: Stage,
        identity: Identity,
        *,
        name: str = "rehearsed",
        operators: Iterable[str] = OPERATORS,
        trainer_api: str = "v2.2",
        acts: bool = True,
        timing: Timing | None = None,
        around: Surroundings | None = None,
        region: str = "us-west-2",
    ) -> None:
        self.stage, self.identity, self.name, self.region = stage, identity, name, region
        self.kinds = Kinds(operators)
        self.objects = Objects(stage.store, self.kinds)
        self.access = Access(identity, stage.clock, cluster=name)
        self.validation = Validation(self.objects, types={"TrainJob": TRAIN_JOBS[trainer_api]})
        self.control = Control(stage, self.objects, timing=timing, around=around, region=region)
        self.logs = self.control.logs
        self.objects.admission = self.validation.admit
        install(self.objects, self.kinds, trainer_api=trainer_api)
        self.certificate = make_certificate()
        self.url = stage.serve(ApiServer(self, stage.faults).service, tls=self.certificate.context(identity.folder))
        self._contexts: dict[str, dict[str, Any]] = {}
        self.add_context(name)
        host, _, port = self.url.rpartition("://")[2].partition(":")
        self.control.around.api = host, int(port)
        self.control.around.account = self._account
        if acts:
            self.control.begin()

    def environment(self) -> dict[str, str]:
        """Return what clients must see, besides the identity's own files."""
        return {"KUBECONFIG": str(self.identity.home / _PLACE)}

    @property
    def authority(self) -> str:
        """Whom clients must trust to trust the API server, in base64."""
        return base64.b64encode(self.certificate.pem).decode()

    def add_context(
        self, name: str, *, user: str = "rehearsed", way: Way = "token", namespace: str = "", server: str | None = None
    ) -> None:
        """Write a context into the identity's kubeconfig; the first is the current one.

        ``server`` is where its cluster is reached, if not at the stand-in's own address.
        """
        if way == "token":
            signs_in: dict[str, Any] = {"token": self.access.token(user)}
        else:
            program = self.identity.write(".kube/login.py", _PROGRAM)
            signs_in = {"exec": _exec_of(sys.executable, str(program), self.access.seed())}
        self._contexts[name] = {
            "cluster": {"server": server or self.url, "certificate-authority-data": self.authority},
            "user": signs_in,
            "context": {"cluster": name, "user": name, **({"namespace": namespace} if namespace else {})},
        }
        self.identity.write(_PLACE, yaml.safe_dump(self._kubeconfig()))

    def _account(self, pod: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return what a pod finds of its service account."""
        namespace = pod["metadata"]["namespace"]
        user = f"system:serviceaccount:{namespace}:{pod['spec'].get('serviceAccountName') or 'default'}"
        token = self.access.token(user).encode()
        return {"ca.crt": self.certificate.pem, "namespace": namespace.encode(), "token": token}

    def _kubeconfig(self) -> Mapping[str, Any]:
        rows = self._contexts.items()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": row["cluster"]} for name, row in rows],
            "users": [{"name": name, "user": row["user"]} for name, row in rows],
            "contexts": [{"name": name, "context": row["context"]} for name, row in rows],
            "current-context": next(iter(self._contexts)),
        }


def _exec_of(*argv: str) -> dict[str, Any]:
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": argv[0],
        "args": ["-I", "-S", *argv[1:]],
        "interactiveMode": "Never",
    }
