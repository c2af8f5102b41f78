"""A place whose extra is not installed."""

from cloudtune.errors import MissingExtra

raise MissingExtra("oci", "OCI Data Science")
