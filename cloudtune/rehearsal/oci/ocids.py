"""Oracle Cloud's identifiers: ``ocid1.KIND.REALM.REGION.UNIQUE``."""

from __future__ import annotations

import re
import secrets
import string

from cloudtune.rehearsal.messages import Refused

#: The region in which the stand-in plays, and the key by which OCIDs of most services name it.
REGION = "us-ashburn-1"
REGION_KEY = "iad"

_FORM = re.compile(r"ocid1\.(?P<kind>[a-z0-9]+)\.oc\d+\.(?P<region>[a-z0-9-]*)(?:\.[a-z0-9-]*)?\.(?P<unique>[\w.-]+)")
_LETTERS = string.ascii_lowercase + "234567"
#: Kinds that belong to a tenancy as a whole, whatever the region.
_GLOBAL = ("compartment", "tenancy", "user")


def new_ocid(kind: str) -> str:
    """Return an identifier that nothing else has."""
    unique = "".join(secrets.choice(_LETTERS) for _ in range(56))
    return f"ocid1.{kind}.oc1.{'' if kind in _GLOBAL else REGION_KEY}.aaaa{unique}"


def kind_of(text: str) -> str | None:
    """Return what kind of thing an identifier is of, None for any other text."""
    found = _FORM.fullmatch(text)
    return found["kind"] if found else None


def check_ocid(field: str, text: str, *kinds: str) -> None:
    """Refuse what is no identifier of one of the kinds."""
    if kind_of(text) not in kinds:
        wanted = " or ".join(f"ocid1.{kind}" for kind in kinds)
        raise Refused(400, "InvalidParameter", f"{field}: {text!r} is not an OCID of the form {wanted}")
