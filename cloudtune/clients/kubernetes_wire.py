"""Requests to one cluster: where kinds live, what is tried again, pages, and streams."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from cloudtune.clients.kubernetes_auth import Clusters, Door, urllib3
from cloudtune.clients.kubernetes_errors import Refusal
from cloudtune.errors import UsageError

#: Seconds to connect, and between two bytes; of a stream, which may be silent for long; and of somebody who only wants
#: to know whether it would go.
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_STREAM_TIMEOUT = urllib3.Timeout(connect=10, read=300)
_HASTY_TIMEOUT = urllib3.Timeout(connect=4, read=10)
_TRIES = 6
#: Seconds before the second try, doubled for each further one, and the most that a server's wish is waited for.
_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
_HERE_PAUSE_S = 0.02
_PAGE = 500
#: Kinds whose place in the API is known without asking: plural, and whether they live in namespaces.
_KINDS: Mapping[tuple[str, str], tuple[str, bool]] = {
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): ("customresourcedefinitions", False),
    ("apps/v1", "DaemonSet"): ("daemonsets", True),
    ("apps/v1", "Deployment"): ("deployments", True),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): ("selfsubjectreviews", False),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): ("selfsubjectaccessreviews", False),
    ("batch/v1", "Job"): ("jobs", True),
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): ("jobsets", True),
    ("kubeflow.org/v1", "PyTorchJob"): ("pytorchjobs", True),
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"): ("localqueues", True),
    ("kueue.x-k8s.io/v1beta1", "Workload"): ("workloads", True),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): ("localqueues", True),
    ("kueue.x-k8s.io/v1beta2", "Workload"): ("workloads", True),
    ("scheduling.k8s.io/v1", "PriorityClass"): ("priorityclasses", False),
    ("storage.k8s.io/v1", "CSIDriver"): ("csidrivers", False),
    ("storage.k8s.io/v1", "StorageClass"): ("storageclasses", False),
    ("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime"): ("clustertrainingruntimes", False),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): ("trainjobs", True),
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Event"): ("events", True),
    ("v1", "LimitRange"): ("limitranges", True),
    ("v1", "Namespace"): ("namespaces", False),
    ("v1", "Node"): ("nodes", False),
    ("v1", "PersistentVolume"): ("persistentvolumes", False),
    ("v1", "PersistentVolumeClaim"): ("persistentvolumeclaims", True),
    ("v1", "Pod"): ("pods", True),
    ("v1", "ResourceQuota"): ("resourcequotas", True),
    ("v1", "Secret"): ("secrets", True),
    ("v1", "Service"): ("services", True),
    ("v1", "ServiceAccount"): ("serviceaccounts", True),
}


class Wire:
    """The API of the clusters that a client talks to, by scope. Any thread may use it.

    A ``hasty`` one tries once, and waits for seconds only. ``date`` is the cluster's time, as its last answer told it.
    """

    def __init__(self, clusters: Clusters, *, hasty: bool = False) -> None:
        self._clusters = clusters
        self._hasty = hasty
        self._lock = threading.Lock()
        self._kinds = dict(_KINDS)
        self._found: dict[tuple[str, str, str], tuple[str, bool]] = {}
        self.date = ""

    def door(self, scope: str) -> Door:
        """Return the door of a cluster."""
        return self._clusters.door(scope)

    def path(self, scope: str, given: Mapping[str, Any], name: str = "", part: str = "") -> str:
        """Return the path of a kind's objects, of one of them, or of a part of it.

        ``given`` has ``apiVersion``, ``kind`` and, where objects of the kind live in namespaces, ``namespace``; without
        it the path is that of all namespaces.
        """
        api, kind = str(given.get("apiVersion") or ""), str(given.get("kind") or "")
        plural, namespaced = self._place(scope, api, kind)
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        namespace = given.get("namespace")
        words = ["namespaces", str(namespace)] if namespaced and namespace else []
        words += [plural, *([name] if name else []), *([part] if part else [])]
        return "/".join([root, *(quote(word, safe="") for word in words)])

    def send(
        self,
        scope: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Send a request and return its answer; Refusal for an error, urllib3's own errors for a lost connection.

        ``content_type`` is that of the body; without one, what is asked for.
        What may pass is tried again; a token that is not taken is renewed, once.
        """
        data = self._bytes(scope, method, path, query or {}, body, content_type)
        answer = json.loads(data) if data.strip() else {}
        return answer if isinstance(answer, dict) else {"value": answer}

    def text(self, scope: str, path: str, query: Mapping[str, Any]) -> bytes:
        """Read a text to its end."""
        return self._bytes(scope, "GET", path, query, None, "")

    def stream(self, scope: str, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """Return the pieces of a text as they come; raises urllib3's errors where it is cut."""
        response = self._answer(scope, "GET", path, query, None, "", streamed=True)
        try:
            # chunk by chunk: what has come is given on at once, be it ever so little
            yield from response.stream(amt=None)
        finally:
            response.close()

    def items(self, scope: str, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole list, however many pages it has; begun anew, once, where its pages are too old to go on."""
        for attempt in (1, 2):
            try:
                return self._pages(scope, path, query)
            except Refusal as error:
                if error.status != 410 or attempt == 2:
                    raise
        raise AssertionError

    def _pages(self, scope: str, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        page = self.send(scope, "GET", path, query={"limit": _PAGE, **query})
        items = list(page.get("items") or ())
        while token := (page.get("metadata") or {}).get("continue"):
            page = self.send(scope, "GET", path, query={"limit": _PAGE, **query, "continue": token})
            items += page.get("items") or ()
        return {**page, "items": items}

    def _place(self, scope: str, api: str, kind: str) -> tuple[str, bool]:
        known = self._kinds.get((api, kind)) or self._found.get((scope, api, kind))
        if known is not None:
            return known
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        rows = self.send(scope, "GET", root).get("resources") or ()
        row = next((one for one in rows if one.get("kind") == kind and "/" not in one.get("name", "/")), None)
        if row is None:
            raise UsageError(f"the cluster serves no {kind} of {api}", hint="kubectl api-resources shows what it has")
        found = (str(row["name"]), bool(row.get("namespaced")))
        with self._lock:
            self._found[scope, api, kind] = found
        return found

    def _bytes(
        self, scope: str, method: str, path: str, query: Mapping[str, Any], body: Any, content_type: str
    ) -> bytes:
        response = self._answer(scope, method, path, query, body, content_type)
        return bytes(response.data)

    def _answer(
        self,
        scope: str,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        content_type: str,
        *,
        streamed: bool = False,
    ) -> Any:
        door = self.door(scope)
        tries = 1 if self._hasty else _TRIES
        renewed = False
        attempt = 1
        while True:
            try:
                return self._once(door, method, path, query, body, content_type, streamed=streamed)
            except Refusal as error:
                if error.status == 401 and not renewed:
                    door.renew()
                    renewed = True
                    continue
                if not error.is_passing or attempt == tries:
                    raise
                wait_s = error.after_s
            except urllib3.exceptions.HTTPError:
                if attempt == tries:
                    raise
                wait_s = None
            time.sleep(_pause_s(attempt, wait_s, here=door.is_here))
            attempt += 1

    def _once(
        self,
        door: Door,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        content_type: str,
        *,
        streamed: bool,
    ) -> Any:
        pairs = [(name, _word(value)) for name, value in query.items() if value is not None]
        headers = door.headers()
        if content_type:
            headers["accept" if body is None else "content-type"] = content_type
        timeout = _STREAM_TIMEOUT if streamed else _HASTY_TIMEOUT if self._hasty else _TIMEOUT
        response = door.pool.request(
            method,
            f"{door.url}{path}" + (f"?{urlencode(pairs)}" if pairs else ""),
            body=None if body is None else json.dumps(body, ensure_ascii=False).encode(),
            headers={**door.pool.headers, **headers},
            preload_content=not streamed,
            retries=False,
            redirect=False,
            timeout=timeout,
        )
        self.date = response.headers.get("date") or self.date
        if response.status >= 300:
            raise Refusal(response.status, bytes(response.data), {k.lower(): v for k, v in response.headers.items()})
        return response


def _pause_s(attempt: int, asked_s: float | None, *, here: bool) -> float:
    """Return the seconds before the next try: as the server asks, else longer each time."""
    if here:
        return _HERE_PAUSE_S * attempt
    own_s = _PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.7, 1.3)  # noqa: S311 - not all at the same moment
    return min(_MOST_PAUSE_S, asked_s if asked_s is not None else own_s)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
