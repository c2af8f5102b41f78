"""Who a node is to Oracle Cloud: the job run by its own right, elsewhere a profile of the configuration file.

For helper processes whose Python has the ``oci`` library; it is given as a value, and never imported here.
"""

from __future__ import annotations

import os
from typing import Any

#: The library's module, and what pip installs where the image has none.
LIBRARY = ("oci", "oci>=2.100")


def oci_client(oci: Any, kind: Any, **options: Any) -> Any:
    """Return a client of the class, which signs as this node; ``options`` are those of all clients of the SDK."""
    endpoint = os.environ.get("CLOUDTUNE_OCI_ENDPOINT")  # a stand-in on this machine
    if endpoint:
        options = {**options, "service_endpoint": endpoint}
    if os.environ.get("OCI_RESOURCE_PRINCIPAL_VERSION"):
        return kind({}, signer=oci.auth.signers.get_resource_principals_signer(), **options)
    location = os.environ.get("OCI_CONFIG_LOCATION", oci.config.DEFAULT_LOCATION)
    profile = os.environ.get("OCI_CONFIG_PROFILE", oci.config.DEFAULT_PROFILE)
    return kind(oci.config.from_file(location, profile), **options)


def why_refused(error: Exception, *, right: str) -> str:
    """Return what an error of the library says, in a line; ``right`` is what a node needs that may not do this."""
    status = getattr(error, "status", None)
    if status in (401, 403, 404):
        return (
            f"OCI answers {status}: there is no such thing, or the dynamic group of job runs is not allowed to "
            f"{right} in its compartment (infrastructure/oci/rights.tf)"
        )
    words = " ".join(str(getattr(error, "message", None) or error).split())[:300]
    return f"OCI answers {status}: {words}" if status is not None else f"{type(error).__name__}: {words}"
