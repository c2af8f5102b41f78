"""Service Quotas: how many instances of a type training jobs may have at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.models import model_of
from cloudtune.rehearsal.aws.speech import page
from cloudtune.rehearsal.messages import Refused

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

#: What an account has that has not asked for more; the stand-in itself holds only what its ``quotas`` say.
_USUAL = 10_000


class Quotas:
    """The quotas of SageMaker's training jobs, one a type of instance, and one more for spot instances."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.operations: Mapping[str, Deed] = {"GetServiceQuota": self.get, "ListServiceQuotas": self.find}

    def get(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return one quota by its code."""
        for quota in self._all(given["ServiceCode"], asked):
            if quota["QuotaCode"] == given["QuotaCode"]:
                return {"Quota": quota}
        raise Refused(400, "NoSuchResourceException", "The request failed because the specified quota does not exist.")

    def find(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of a service's quotas."""
        quotas = list(self._all(given["ServiceCode"], asked))
        rows, more = page(quotas, given, usual=100, code="InvalidPaginationTokenException")
        return {"Quotas": rows, **more}

    def _all(self, service: str, asked: Asked) -> Iterator[dict[str, Any]]:
        if service != "sagemaker":
            raise Refused(400, "NoSuchResourceException", f"rehearsed Service Quotas knows nothing of {service}")
        for kind in model_of("sagemaker")["shapes"]["TrainingInstanceType"]["enum"]:
            for name in (f"{kind} for training job usage", f"{kind} for spot training job usage"):
                code = f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
                yield {
                    "ServiceCode": service,
                    "ServiceName": "Amazon SageMaker",
                    "QuotaArn": f"arn:aws:servicequotas:{asked.region}:{self.cloud.account}:{service}/{code}",
                    "QuotaCode": code,
                    "QuotaName": name,
                    "Value": float(self.cloud.quotas.get(kind, _USUAL)),
                    "Unit": "None",
                    "Adjustable": True,
                    "GlobalQuota": False,
                }
