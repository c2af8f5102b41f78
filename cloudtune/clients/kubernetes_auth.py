"""Who cloudtune is to a cluster, and where the cluster is: as ``kubectl`` finds both, or by an EKS cluster's name.

A scope says which cluster: ``context:NAME`` of the kubeconfig, ``eks:REGION/CLUSTER`` with a token made by AWS's
signer, ``in-cluster`` for a pod's own account, and nothing for the kubeconfig's current context, or else the pod's
account. The kubeconfig is read by the Python client, as are its certificates, proxies and login programs. Nothing is
written: a token that such a program refreshes is kept in memory.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol
from urllib.request import getproxies

import yaml

from cloudtune import __version__
from cloudtune.errors import MissingExtra, NotAllowed, UsageError

try:
    import urllib3
    from kubernetes.client.configuration import Configuration
    from kubernetes.client.rest import RESTClientObject
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.exec_provider import ExecProvider
    from kubernetes.config.incluster_config import InClusterConfigLoader
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger
except ImportError as error:
    raise MissingExtra("eks", "Kubernetes") from error

__all__ = ["EARLY_S", "Clusters", "Door", "Holder", "new_configuration", "pool_of", "urllib3"]

#: Where a pod finds its account.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_CLUSTER = "in-cluster"
_KUBECONFIG = "~/.kube/config"
#: Seconds before the end of a token at which another is made.
EARLY_S = 120.0
#: Connections that are kept: a log that is followed has one of its own, and there may be hundreds of pods.
_CONNECTIONS = 1024


class Holder(Protocol):
    """Who has the credentials of a cluster."""

    def token(self) -> str | None:
        """Return the token to send, None where certificates say who this is."""
        ...

    def renew(self) -> None:
        """Forget the token: it is good no longer."""
        ...


class Door:
    """One cluster as one user reaches it: its address, the connections to it, and what is sent to be let in.

    ``sign_in`` is what the user can do to be let in again. Any thread may use it.
    """

    def __init__(self, url: str, pool: urllib3.PoolManager, holder: Holder, *, sign_in: str) -> None:
        self.url, self.pool, self.sign_in = url.rstrip("/"), pool, sign_in
        self._holder = holder

    def headers(self) -> dict[str, str]:
        """Return what every request has."""
        token = self._holder.token()
        signed = {"authorization": f"Bearer {token}"} if token else {}
        return {"accept": "application/json", "user-agent": f"cloudtune/{__version__}", **signed}

    def renew(self) -> None:
        """Let the next request be sent with a new token, if there is a way to one."""
        self._holder.renew()

    @property
    def is_here(self) -> bool:
        """Whether the cluster is on this machine: a stand-in, or one for trying."""
        return re.match(r"https?://(127\.|localhost[:/]|\[::1\])", self.url) is not None


class Clusters:
    """The doors to all clusters that one client talks to, by scope; any thread may ask."""

    def __init__(self, *, hasty: bool = False, service_account: Path = SERVICE_ACCOUNT) -> None:
        self._hasty = hasty
        self._service_account = service_account
        self._lock = threading.RLock()
        self._doors: dict[str, Door] = {}

    def door(self, scope: str) -> Door:
        """Return the door of a scope.

        Raises:
            UsageError: there is no such context or cluster, or no kubeconfig at all.
            NotAllowed: the login program or AWS gives no credentials.
        """
        with self._lock:
            if scope not in self._doors:
                self._doors[scope] = self._found(scope)
            return self._doors[scope]

    def _found(self, scope: str) -> Door:
        if scope.startswith("eks:"):
            # AWS's SDK takes as long to import as all the rest
            from cloudtune.clients import kubernetes_eks  # noqa: PLC0415

            return kubernetes_eks.door(scope, hasty=self._hasty)
        if scope == IN_CLUSTER or (not scope and not _kubeconfigs() and "KUBERNETES_SERVICE_HOST" in os.environ):
            return self._in_cluster()
        kind, _, name = scope.partition(":")
        if scope and (kind != "context" or not name):
            hint = "context: NAME of your kubeconfig, or cluster: and region: of an EKS cluster"
            raise UsageError(f"{scope!r} names no cluster", hint=hint)
        return _by_kubeconfig(name or None)

    def _in_cluster(self) -> Door:
        folder = self._service_account
        loader = InClusterConfigLoader(token_filename=str(folder / "token"), cert_filename=str(folder / "ca.crt"))
        configuration = new_configuration()
        try:
            loader.load_and_set(configuration)
        except (ConfigException, OSError) as error:
            hint = "in-cluster works inside a pod that has a service account"
            raise UsageError(f"no service account is found here: {error}", hint=hint) from error

        def token() -> str:
            return (folder / "token").read_text(encoding="utf-8").strip()  # the kubelet writes a new one in time

        sign_in = "the pod's service account is not known to the cluster: was it deleted?"
        return Door(configuration.host, pool_of(configuration), _Reading(token), sign_in=sign_in)


class _Reading:
    """A token that is read anew for each request."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def token(self) -> str | None:
        return self._read()

    def renew(self) -> None:
        """Do nothing: it is read each time."""


class _Kubeconfig:
    """The token of a context, read anew from the kubeconfig, or from its login program, when it is good no longer."""

    def __init__(self, context: str | None) -> None:
        self._context = context
        self._lock = threading.Lock()
        self.configuration, self._until = _loaded(context)

    def token(self) -> str | None:
        with self._lock:
            if self._until is not None and datetime.now(timezone.utc) > self._until:
                self.configuration, self._until = _loaded(self._context)
            hook = self.configuration.refresh_api_key_hook
            if hook is not None:
                hook(self.configuration)
            # the library's releases do not agree about the name
            given = next((value for value in self.configuration.api_key.values() if value), None)
        if given is None:
            return None
        return str(given).partition(" ")[2].strip() if str(given).lower().startswith("bearer ") else str(given)

    def renew(self) -> None:
        with self._lock:
            self._until = datetime.min.replace(tzinfo=timezone.utc)


def _kubeconfigs() -> list[Path]:
    """Return the files of the kubeconfig that are there."""
    named = (os.environ.get("KUBECONFIG") or _KUBECONFIG).split(os.pathsep)
    return [path for name in named if name and (path := Path(name).expanduser()).is_file()]


def _by_kubeconfig(context: str | None) -> Door:
    files = _kubeconfigs()
    if not files:
        named = os.environ.get("KUBECONFIG") or _KUBECONFIG
        hint = "aws eks update-kubeconfig --name CLUSTER --region REGION, or cluster: and region: in the spec"
        raise UsageError(f"there is no kubeconfig at {named}", hint=hint)
    holder = _Kubeconfig(context)
    configuration = holder.configuration
    basic = None
    if configuration.username and configuration.password:
        basic = urllib3.util.make_headers(basic_auth=f"{configuration.username}:{configuration.password}")
    named = f"context {context}" if context else "the current context of your kubeconfig"
    sign_in = f"sign in again for {named}: kubectl config view --minify shows how it does"
    return Door(configuration.host, pool_of(configuration, headers=basic), holder, sign_in=sign_in)


def _loaded(context: str | None) -> tuple[Any, datetime | None]:
    """Return what the kubeconfig says of a context, and when its token ends if that is known."""
    configuration = new_configuration()
    try:
        config = KubeConfigMerger(os.environ.get("KUBECONFIG") or _KUBECONFIG).config
        named = context or config["current-context"]
        until = _logged_in(config, named)
        KubeConfigLoader(config_dict=config, active_context=named).load_and_set(configuration)
        cluster = config["contexts"].get_with_name(named)["context"]["cluster"]
        configuration.proxy = config["clusters"].get_with_name(cluster)["cluster"].safe_get("proxy-url")
    except (ConfigException, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        hint = "kubectl config get-contexts shows those there are"
        raise UsageError(f"the kubeconfig cannot be used: {words}", hint=hint) from error
    except OSError as error:
        words = f"a file is missing or cannot be read: {error}"
        raise UsageError(f"the kubeconfig cannot be used: {words}", hint="kubectl config view --minify") from error
    return configuration, until


def _logged_in(config: Any, context: str) -> datetime | None:
    """Run the login program of a context, if it has one, and put what it gives into the kubeconfig in memory.

    The library would run it too, but goes on without a word when it fails.
    """
    names = config["contexts"].get_with_name(context)["context"]
    user = config["users"].get_with_name(names["user"])["user"] if names.safe_get("user") else None
    if user is None or "exec" not in user:
        return None
    folder = str(Path(user.path).parent) if user.path else None
    try:
        program = ExecProvider(user["exec"], folder)
        if user["exec"].safe_get("provideClusterInfo"):
            program.cluster = config["clusters"].get_with_name(names["cluster"])["cluster"]
        given = program.run()
    except (ConfigException, OSError) as error:
        words = " ".join(str(error).removeprefix("exec: ").split())[:500]
        refused = NotAllowed(f"the login program of context {context} failed: {words}", hint="run it by hand, sign in")
        refused.passing = True
        raise refused from error
    if given.get("token"):
        user.value["token"] = given["token"]
    for name, key in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData")):
        if given.get(key):
            user.value[name] = base64.b64encode(given[key].encode()).decode()
    ends = str(given.get("expirationTimestamp") or "").replace("Z", "+00:00")
    return datetime.fromisoformat(ends) - timedelta(seconds=EARLY_S) if ends else None


def new_configuration() -> Any:
    """Return a configuration with nothing in it: older releases of the library would copy the first one ever made."""
    made = type.__call__(Configuration)
    made.proxy = None
    return made


def pool_of(
    configuration: Any, *, headers: Mapping[str, str] | None = None, authority: str | None = None
) -> urllib3.PoolManager:
    """Return the connections that the library makes of a configuration: certificates, proxies and all.

    ``authority`` are the certificates to trust, as text, where they are in no file.
    """
    # older releases of the library know no proxy of a kubeconfig, and mix those of the environment up
    proxies = getproxies()
    scheme = configuration.host.partition(":")[0].lower()
    configuration.proxy = configuration.proxy or proxies.get(scheme) or proxies.get("all")
    configuration.no_proxy = proxies.get("no")
    configuration.connection_pool_maxsize = max(_CONNECTIONS, configuration.connection_pool_maxsize or 0)
    pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
    pool.headers = {**pool.headers, **(headers or {})}
    pool.connection_pool_kw["ssl_context"] = _trust(configuration, authority)
    return pool


def _trust(configuration: Any, authority: str | None) -> ssl.SSLContext:
    """Return how servers' certificates are looked at: as ``kubectl`` does it.

    Python 3.13 wants more of them than the certificates of many clusters have, EKS's among them.
    """
    needed = ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE
    context: ssl.SSLContext = urllib3.util.ssl_.create_urllib3_context(cert_reqs=needed)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if authority is not None:
        context.load_verify_locations(cadata=authority)
    elif configuration.verify_ssl and not configuration.ssl_ca_cert:
        context.load_default_certs()
    return context
