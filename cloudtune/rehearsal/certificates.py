"""Throw-away certificates, for services whose clients insist on TLS and are told whom to trust."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import attrs

from cloudtune.errors import MissingExtra

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    _HAS_LIBRARY = True
except ImportError:
    _HAS_LIBRARY = False

_NAME = "rehearsed"
_ADDRESS = "127.0.0.1"
#: Days for which a certificate is good; no rehearsal is longer.
_DAYS = 30


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate of this machine's loopback that vouches for itself, with its key; both as PEM."""

    key_pem: bytes = attrs.field(repr=False)
    pem: bytes

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return what a server needs to show it; the key is written to a folder that nobody else can read."""
        place = folder / "certificate.pem"
        place.touch(mode=0o600)
        place.write_bytes(self.key_pem + self.pem)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(place)
        return made


def make_certificate() -> Certificate:
    """Make one with ``cryptography``, else with the ``openssl`` command; MissingExtra without both."""
    if _HAS_LIBRARY:
        return _by_library()
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingExtra("rehearse", "a rehearsal over TLS")
    return _by_command(openssl)


def _by_library() -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now = datetime.now(timezone.utc)
    usage = dict.fromkeys(("content_commitment", "data_encipherment", "encipher_only", "decipher_only"), False)
    usage |= dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True)
    usage |= dict.fromkeys(("key_encipherment", "key_agreement"), False)
    places = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(_ADDRESS))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(places, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(key_pem=secret, pem=made.public_bytes(serialization.Encoding.PEM))


def _by_command(openssl: str) -> Certificate:
    make_key = [openssl, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    key = subprocess.run(make_key, capture_output=True, check=True).stdout
    extensions = (
        f"subjectAltName=DNS:localhost,IP:{_ADDRESS}",
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "keyUsage=critical,digitalSignature,keyCertSign,cRLSign",
    )
    added = [word for one in extensions for word in ("-addext", one)]
    argv = [
        openssl,
        "req",
        "-x509",
        "-sha256",
        "-key",
        "/dev/stdin",
        "-subj",
        f"/CN={_NAME}",
        "-days",
        str(_DAYS),
        *added,
    ]
    return Certificate(key_pem=key, pem=subprocess.run(argv, input=key, capture_output=True, check=True).stdout)
