"""Throw-away RSA keys, for services whose clients sign what they send."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import attrs

from cloudtune.errors import MissingExtra

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    _HAS_LIBRARY = True
except ImportError:
    _HAS_LIBRARY = False

_BITS = 2048


@attrs.frozen(kw_only=True)
class Key:
    """A key pair: the private half as PEM without a passphrase, the public half as DER."""

    private_pem: bytes = attrs.field(repr=False)
    public_der: bytes = attrs.field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The name that OCI gives a public key: its MD5 digest, in pairs of digits."""
        digest = hashlib.md5(self.public_der, usedforsecurity=False).hexdigest()
        return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def make_key() -> Key:
    """Make a key with the library that the SDKs bring, else with the ``openssl`` command; MissingExtra without both."""
    if _HAS_LIBRARY:
        return _by_library()
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingExtra("rehearse", "a rehearsal with signed requests")
    return _by_command(openssl)


def _by_library() -> Key:
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(private_pem=private, public_der=public)


def _by_command(openssl: str) -> Key:
    make = [openssl, "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{_BITS}"]
    private = subprocess.run(make, capture_output=True, check=True).stdout
    show = [openssl, "pkey", "-pubout", "-outform", "DER"]
    public = subprocess.run(show, input=private, capture_output=True, check=True).stdout
    return Key(private_pem=private, public_der=public)
