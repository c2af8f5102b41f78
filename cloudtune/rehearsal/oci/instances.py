"""A compute instance by its own right: what its metadata tell, and the service that gives it a token for that.

Nobody needs to be known to ask here: metadata are for whoever is on the instance, and who asks for a token signs with
the key of the certificate that they tell.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.keys import make_key
from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci import signatures
from cloudtune.rehearsal.oci.ocids import REGION, new_ocid
from cloudtune.rehearsal.routes import Route

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID
except ImportError:  # principals say so
    pass

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

#: Below the stand-in's address: what OCI_METADATA_BASE_URL is to name.
METADATA = "/opc/v2"
_MARK = "Bearer Oracle"


class Instances:
    """The one instance on which a rehearsal may play."""

    unsigned_bodies: tuple[str, ...] = ()
    open_operations = ("get_region", "get_identity", "get_token")

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.id = new_ocid("instance")

    def routes(self) -> Iterable[Route]:
        """Return what is asked for."""
        rows = (
            ("GET", f"{METADATA}/instance/region", "get_region", self.get_region),
            ("GET", f"{METADATA}/identity/{{file}}", "get_identity", self.get_identity),
            ("POST", "/v1/x509", "get_token", self.get_token),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def get_region(self, request: Request) -> Response:
        """Tell the region."""
        _check_mark(request)
        return Response(body=REGION.encode())

    def get_identity(self, request: Request) -> Response:
        """Tell the certificate, its key, and whose it is."""
        _check_mark(request)
        files = {
            "cert.pem": self._certificate,
            "key.pem": self._key.private_pem,
            "intermediate.pem": self._certificate,
        }
        if request.params["file"] not in files:
            raise Refused(404, "NotFound", "there is no such file")
        return Response(body=files[request.params["file"]])

    def get_token(self, request: Request) -> Response:
        """Give whoever has the certificate's key a token for the key of their session."""
        given: Any = request.json()
        words = dict(re.findall(r'(\w+)="([^"]*)"', request.header("authorization")))
        signature = signatures.Signature(
            key_id=words.get("keyId", ""),
            names=tuple(words.get("headers", "").lower().split()),
            value=base64.b64decode(words.get("signature", "")),
        )
        signatures.check_signature(request, signature, self._key.public_der)
        signatures.check_content(request)
        if not signature.key_id.startswith(f"{self.cloud.principals.tenancy}/fed-x509"):
            raise Refused(401, "NotAuthenticated", "The signature is of another tenancy.")
        try:
            public = base64.b64decode(given["publicKey"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise Refused(400, "InvalidParameter", "publicKey is no key") from error
        return json_response({"token": self.cloud.principals.instance_token(self.id, public)})

    @cached_property
    def _key(self) -> Any:
        return make_key()

    @cached_property
    def _certificate(self) -> bytes:
        key: Any = serialization.load_pem_private_key(self._key.private_pem, None)
        tenant = f"opc-tenant:{self.cloud.principals.tenancy}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id[-60:])])
        whose = x509.Name([*name, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, tenant, _validate=False)])
        now = dt.datetime.now(dt.timezone.utc)
        made = x509.CertificateBuilder(name, whose, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        return bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _check_mark(request: Request) -> None:
    """Refuse who was only led here: a request without the header that the metadata service wants."""
    if request.header("authorization") != _MARK:
        raise Refused(404, "NotFound", "there is no such file")
