"""EKS: where a cluster's API answers, and who has signed the tokens that it is shown. Clusters are made elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cloudtune.rehearsal.aws.signatures import signature_of
from cloudtune.rehearsal.messages import Refused, Request

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed
    from cloudtune.rehearsal.kubernetes.access import Access

_NOTHING = hashlib.sha256(b"").hexdigest()


class _Cluster(Protocol):
    """A cluster as EKS knows it."""

    name: str
    region: str
    url: str
    access: Access

    @property
    def authority(self) -> str:
        """Whom to trust, in base64."""
        ...


class Clusters:
    """The clusters of the account; ``status`` of one may be set."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.status: dict[str, str] = {}
        self._clusters: dict[tuple[str, str], _Cluster] = {}
        self.operations: Mapping[str, Deed] = {"DescribeCluster": self.describe, "ListClusters": self.find}

    def add(self, cluster: _Cluster) -> None:
        """Let a cluster be one of the account's: whoever AWS knows may enter it."""
        self._clusters[cluster.region, cluster.name] = cluster

        def signer(request: Request) -> str:
            if signature_of(request).region != cluster.region:
                raise Refused(403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region.")
            return self.cloud.principals.admit(request, body_sha256=_NOTHING).arn

        cluster.access.signer = signer

    def describe(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return one cluster."""
        name = given["name"]
        found = self._clusters.get((asked.region, name))
        if found is None:
            raise Refused(404, "ResourceNotFoundException", f"No cluster found for name: {name}.")
        status = self.status.get(name, "ACTIVE")
        there = {"endpoint": found.url, "certificateAuthority": {"data": found.authority}} if status == "ACTIVE" else {}
        arn = f"arn:aws:eks:{asked.region}:{self.cloud.account}:cluster/{name}"
        return {"cluster": {"name": name, "arn": arn, "version": "1.35", "status": status, **there}}

    def find(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return the names of all clusters of a region."""
        return {"clusters": sorted(name for region, name in self._clusters if region == asked.region)}
