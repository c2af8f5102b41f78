"""Who talks to a rehearsed cluster, and what they may do.

A user is known by a token: one that never ends, one that a program makes, or one that AWS's signer makes for the
cluster's name; those of the last two ways end after a quarter of an hour of the stage's clock. Everybody may do
everything but what is in :attr:`Access.denied`, or only what is in :attr:`Access.granted` where that is given.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.message import Message
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes import speech
from cloudtune.rehearsal.kubernetes.kinds import Kind, Kinds
from cloudtune.rehearsal.kubernetes.targets import Target
from cloudtune.rehearsal.messages import Body, Refused, Request

#: Seconds of the stage's clock for which a token is good that a program has made.
TOKEN_S = 900.0
#: What a token of AWS's signer begins with.
AWS_PREFIX = "k8s-aws-v1."
_MADE_PREFIX = "rehearsed."
_ANYWHERE = "*"
#: Seconds after its signature in which a token is taken for a new one.
_NEW_S = 20.0


class Access:
    """The users of one cluster and their rights; any thread may ask.

    Rights are texts such as ``create jobs.batch``, ``get pods/log`` or ``list nodes``, with ``@NAMESPACE`` behind where
    they are for one namespace alone, and may be patterns. ``signer`` says who has signed a request to AWS's token
    service, and raises Refused where AWS does not know them.
    """

    def __init__(self, identity: Identity, clock: Clock, *, cluster: str) -> None:
        self.cluster = cluster
        self.denied: set[str] = set()
        self.granted: set[str] | None = None
        self.signer: Callable[[Request], str] = _any_signer
        self._identity = identity
        self._clock = clock
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}
        self._seen_s: dict[str, float] = {}
        self._ended: set[str] = set()
        self._refused: set[str] = set()
        self._signed: dict[str, str] = {}

    def token(self, user: str) -> str:
        """Return a token of a user that never ends by itself."""
        token = self._identity.secret(f"kubernetes {self.cluster} {user}")
        with self._lock:
            self._users[token] = user
        return token

    def seed(self) -> str:
        """Return what a user's program makes its tokens of; see :func:`made_token`."""
        return self._identity.secret(f"kubernetes {self.cluster} seed")

    def end_tokens(self) -> None:
        """Let all tokens that were seen so far be good no longer; a new one is."""
        with self._lock:
            self._ended.update(self._seen_s)

    def admit(self, request: Request) -> str:
        """Return the user of a request; Refused (401) where nobody is."""
        scheme, _, token = request.header("authorization").partition(" ")
        user = self._user(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise speech.Denied(401, "Unauthorized", "Unauthorized")
        now_s = self._clock.time_s()
        with self._lock:
            first_s = self._seen_s.setdefault(token, now_s)
            over = token in self._ended or (token not in self._users and now_s - first_s > TOKEN_S)
            if over and token in self._refused and _is_new(token):
                # whoever signs twice in a second makes the same token again
                self._seen_s[token], over = now_s, False
                self._ended.discard(token)
                self._refused.discard(token)
            if over:
                self._refused.add(token)
                raise speech.Denied(401, "Unauthorized", "the token has expired")
        return user

    def may(self, verb: str, resource: str, namespace: str | None) -> bool:
        """Whether users may do something, in a namespace or, with None, in all of the cluster."""
        right = f"{verb} {resource}"
        if self.granted is not None and not self._named(self.granted, right, namespace):
            return False
        return not any(
            fnmatchcase(right, one.partition("@")[0]) and one.partition("@")[2] in ("", namespace)
            for one in self.denied
        )

    def check(self, user: str, target: Target) -> None:
        """Raise Refused (403) where the user may not do this."""
        if self.may(target.verb, target.resource, target.namespace):
            return
        where = f'in the namespace "{target.namespace}"' if target.namespace is not None else "at the cluster scope"
        plural = f"{target.kind.plural}/{target.part}" if target.part else target.kind.plural
        words = f'User "{user}" cannot {target.verb} resource "{plural}" in API group "{target.kind.group}" {where}'
        raise speech.forbidden(target.kind, target.name, words)

    def review(self, user: str, plural: str, given: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
        """Return the answer to a review of the caller's own rights, or of who they are."""
        if plural == "selfsubjectreviews":
            return {**given, "status": {"userInfo": {"username": user, "groups": ["system:authenticated"]}}}
        if plural == "selfsubjectrulesreviews":
            namespace = str((given.get("spec") or {}).get("namespace") or "default")
            return {**given, "status": {**self._rules(namespace, kinds), "incomplete": False}}
        asked = (given.get("spec") or {}).get("resourceAttributes")
        if asked is None:  # a path such as /version, which everybody may read
            return {**given, "status": {"allowed": True}}
        resource = asked.get("resource") or _ANYWHERE
        if asked.get("group"):
            resource += f".{asked['group']}"
        if asked.get("subresource"):
            resource += f"/{asked['subresource']}"
        allowed = self.may(asked.get("verb") or _ANYWHERE, resource, asked.get("namespace") or None)
        return {**given, "status": {"allowed": allowed}}

    def _rules(self, namespace: str, kinds: Kinds) -> dict[str, Any]:
        verbs = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
        rows = []
        for kind in kinds.all:
            for resource, plural in _parts(kind):
                may = [verb for verb in verbs if self.may(verb, resource, namespace)]
                if may:
                    rows.append({"verbs": may, "apiGroups": [kind.group], "resources": [plural]})
        paths = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/openapi", "/openapi/*", "/version", "/version/"]
        return {"resourceRules": rows, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}]}

    def _named(self, rights: set[str], right: str, namespace: str | None) -> bool:
        return any(
            fnmatchcase(right, one.partition("@")[0]) and (one.partition("@")[2] or namespace) == namespace
            for one in rights
        )

    def _user(self, token: str) -> str | None:
        if token.startswith(AWS_PREFIX):
            return self._aws_user(token)
        if token.startswith(_MADE_PREFIX):
            nonce, _, digest = token.removeprefix(_MADE_PREFIX).partition(".")
            return "program" if made_token(self.seed(), nonce) == f"{_MADE_PREFIX}{nonce}.{digest}" else None
        with self._lock:
            return self._users.get(token)

    def _aws_user(self, token: str) -> str | None:
        """Return the user who has signed a request to AWS's token service for this cluster; None where it is none."""
        with self._lock:
            if token in self._signed:
                return self._signed[token]
        asked = _asked_in(token, self.cluster)
        try:
            user = self.signer(asked) if asked is not None else None
        except Refused:
            return None
        if user is not None:
            with self._lock:
                self._signed[token] = user
        return user


def _asked_in(token: str, cluster: str) -> Request | None:
    """Return the request to AWS's token service that a token is, as a cluster would send it; None for another text."""
    text = token.removeprefix(AWS_PREFIX)
    try:
        url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    except ValueError:
        return None
    headers = Message()
    headers["host"], headers["x-k8s-aws-id"] = url.netloc, cluster
    request = Request(method="GET", target=f"{url.path}?{url.query}", headers=headers, body=Body(lambda _: b""))
    signed = request.query.get("X-Amz-SignedHeaders", "").split(";")
    is_one = request.query.get("Action") == "GetCallerIdentity" and "x-k8s-aws-id" in signed
    return request if is_one and "X-Amz-Signature" in request.query and not text.endswith("=") else None


def _is_new(token: str) -> bool:
    """Whether a token was signed just now."""
    asked = _asked_in(token, "") if token.startswith(AWS_PREFIX) else None
    if asked is None:
        return False
    signed = datetime.strptime(asked.query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - signed).total_seconds() < _NEW_S


def _any_signer(request: Request) -> str:
    """Return a user for whoever has signed, where nobody is there to ask."""
    return f"arn:aws:iam::rehearsed:access-key/{request.query.get('X-Amz-Credential', '').partition('/')[0]}"


def made_token(seed: str, nonce: str) -> str:
    """Return a token as the program of a kubeconfig makes it."""
    return f"{_MADE_PREFIX}{nonce}.{hashlib.sha256(f'{seed}{nonce}'.encode()).hexdigest()[:32]}"


def _parts(kind: Kind) -> list[tuple[str, str]]:
    """Return a kind and its parts as rights name them, and as rules do."""
    parts = (["status"] if kind.status else []) + (["log", "eviction"] if kind.kind == "Pod" else [])
    return [(kind.key, kind.plural), *((f"{kind.key}/{part}", f"{kind.plural}/{part}") for part in parts)]
