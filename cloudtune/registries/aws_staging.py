"""Where the files of a model lie that AWS's services are to read: in S3 already, or sent there first."""

from __future__ import annotations

import re

import attrs

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.owners import AwsOwner
from cloudtune.pauses import Say
from cloudtune.registries.source import Source
from cloudtune.uri import join, scheme_of, shown

#: What Bedrock takes as a prefix of S3, and what every service of AWS does.
_PREFIX = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)+/")


@attrs.frozen(kw_only=True)
class Staged:
    """A prefix of S3, with a slash at its end; ``sent`` where the files are there for the registry's sake."""

    uri: str
    sent: bool


def place_for(source: Source, owner: AwsOwner, name: str, digest: str, *, registry: str) -> Staged:
    """Return where the services will find a model; what is sent there is of one registry alone, and goes with it.

    Raises:
        UsageError: it is in another cloud, nothing names a bucket for it, or its prefix has characters that are not
            taken.
    """
    scheme, sent = scheme_of(source.uri), source.folder is not None
    if not sent and scheme not in {"s3", "s3a"}:
        hint = "copy it to S3 first, or fetch it: cloudtune register MODEL --to folder --name NAME"
        raise UsageError(f"{shown(source.named)} is not in S3, where AWS reads models", hint=hint)
    uri = source.uri.replace("s3a://", "s3://", 1)
    if sent:
        if owner.staging is None:
            hint = "name a prefix: stagingUri: s3://BUCKET/PREFIX in the infrastructure"
            raise UsageError("nothing says to which bucket of S3 the model is to be sent", hint=hint)
        uri = join(owner.staging, "models", name, f"{registry}-{digest[:16]}")
    uri = f"{uri.rstrip('/')}/"
    if not _PREFIX.fullmatch(uri):
        hint = "a bucket and a prefix of letters, digits and -!_*'(). alone: no spaces, no =, no +, no //"
        raise UsageError(f"{shown(uri)} is no place from which AWS reads models", hint=hint)
    return Staged(uri=uri, sent=sent)


def send(source: Source, staged: Staged, say: Say) -> None:
    """Send a model's files to S3; those that are there are not sent again: the prefix is of these very files."""
    if not staged.sent:
        return
    folder = source.folder
    assert folder is not None
    there = {entry.path: entry.bytes for entry in storage.listing(staged.uri)}
    for number, entry in enumerate(source.files, 1):
        if there.get(entry.path) == entry.bytes:
            continue
        say(f"sending {entry.path} ({number} of {len(source.files)}, {entry.bytes} bytes)")
        storage.upload(folder / entry.path, join(staged.uri, entry.path))
