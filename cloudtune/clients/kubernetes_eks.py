"""EKS clusters by name: their address from EKS, and tokens that AWS's signer makes for them."""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import Any

from cloudtune.clients.aws_auth import Account, is_here
from cloudtune.clients.aws_errors import told
from cloudtune.clients.kubernetes_auth import EARLY_S, Door, new_configuration, pool_of
from cloudtune.errors import CloudtuneError, MissingExtra, UsageError
from cloudtune.plan import Call

try:
    from botocore.signers import RequestSigner
except ImportError as error:
    raise MissingExtra("eks", "EKS") from error

#: Seconds for which a token is good.
_TOKEN_S = 15 * 60
#: Seconds for which the signed request inside of a token is good: the service wants no more.
_SIGNED_S = 60
_EKS = re.compile(r"eks:([a-z0-9-]*)/([A-Za-z0-9][A-Za-z0-9_-]*)")


def door(scope: str, *, hasty: bool = False) -> Door:
    """Return the door to ``eks:REGION/CLUSTER``; without a region it is the user's own.

    Raises:
        UsageError: there is no such cluster, or no region is known.
        NotAllowed: AWS does not know the user, or does not let them look.
    """
    found = _EKS.fullmatch(scope)
    if found is None:
        raise UsageError(f"{scope!r} is no EKS cluster", hint="give its name and region: cluster: and region:")
    account = Account(hasty=hasty)
    region, name = found[1] or account.region, found[2]
    asked = Call(service="aws.eks", operation="describe_cluster", parameters={"name": name}, region=region)
    try:
        cluster = account.client("eks", region).describe_cluster(name=name)["cluster"]
    except CloudtuneError:
        raise
    except Exception as error:
        if type(error).__name__ == "ResourceNotFoundException":
            hint = f"aws eks list-clusters --region {region}"
            raise UsageError(f"EKS has no cluster {name} in {region}", hint=hint) from error
        raise told(error, asked, account) from error
    if not cluster.get("endpoint"):
        hint = "wait until it is ACTIVE"
        raise UsageError(f"EKS cluster {name} is {cluster.get('status')} and has no endpoint yet", hint=hint)
    configuration = new_configuration()
    configuration.host = cluster["endpoint"]
    authority = base64.b64decode(cluster["certificateAuthority"]["data"]).decode()
    pool = pool_of(configuration, authority=authority)
    sign_in = (
        f"your AWS user must have an access entry of cluster {name}: aws eks list-access-entries"
        f" --cluster-name {name} --region {region}"
    )
    return Door(configuration.host, pool, _Signing(account, region, name, asked), sign_in=sign_in)


class _Signing:
    """A token of EKS: a signed request to AWS's token service, which the cluster sends on to find out who this is."""

    def __init__(self, account: Account, region: str, cluster: str, asked: Call) -> None:
        self._account, self._region, self._cluster, self._asked = account, region, cluster, asked
        self._lock = threading.Lock()
        self._token, self._until_s = "", 0.0

    def token(self) -> str | None:
        with self._lock:
            if time.monotonic() > self._until_s:
                self._token = self._made()
                self._until_s = time.monotonic() + _TOKEN_S - EARLY_S
            return self._token

    def renew(self) -> None:
        with self._lock:
            self._until_s = 0.0
            self._account.renew()  # the user may have signed in again

    def _made(self) -> str:
        session = self._account.session
        try:
            client = self._account.client("sts", self._region)
            signer = RequestSigner(
                client.meta.service_model.service_id,
                self._region,
                "sts",
                "v4",
                session.get_credentials(),
                session.get_component("event_emitter"),
            )
            url = signer.generate_presigned_url(
                self._request(client), region_name=self._region, expires_in=_SIGNED_S, operation_name=""
            )
        except CloudtuneError:
            raise
        except Exception as error:
            raise told(error, self._asked, self._account) from error
        return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")

    def _request(self, client: Any) -> dict[str, Any]:
        """Return the request that is signed: to the service of the cluster's own region, as clusters want it."""
        suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        base = client.meta.endpoint_url if is_here() else f"https://sts.{self._region}.{suffix}"
        return {
            "method": "GET",
            "url": f"{base.rstrip('/')}/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {"x-k8s-aws-id": self._cluster},
            "context": {},
        }
