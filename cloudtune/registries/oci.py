"""Models filed in the model catalog of OCI Data Science: a version set a model, an entry a version.

A small model is sent whole. A large one stays in a bucket, to which the catalog refers; one that is on this machine is
sent to the bucket that ``stagingUri`` of the infrastructure names. What was interrupted is found again by the checksums
of the files, which every entry carries as a tag, and is gone on with.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from cloudtune import storage
from cloudtune.clients.oci import OciClient
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.home import check_name
from cloudtune.owners import OciOwner, oci_owner
from cloudtune.pauses import Say
from cloudtune.plan import File
from cloudtune.registries.oci_catalog import TAG, Catalog, Filed
from cloudtune.registries.oci_notes import Notes, custom_metadata, notes_of, provenance
from cloudtune.registries.source import Source, find
from cloudtune.registries.sums import digest_of, sums_of
from cloudtune.store import Model, Store
from cloudtune.uri import join, scheme_of, shown

SCHEME = "oci-model"
#: Bytes above which a model is filed by reference: what Oracle ADS sends whole; the service takes 6 GB.
WHOLE_BYTES = 2 << 30
_BUCKET = re.compile(r"oci://(?P<bucket>[^@/]+)@(?P<namespace>[^/]+)/(?P<prefix>.+)", re.DOTALL)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def register(
    model: str | Path,
    *,
    name: str,
    version: str | None = None,
    home: Path,
    infrastructure: str | None = None,
    progress: Say | None = None,
) -> Model:
    """File a model in the catalog under a name and a version, by default the next whole number.

    The same model again is the same version: nothing is sent then.

    Raises:
        UsageError: there is no model, nothing says whose it is, its version is taken, or it is large and no bucket for
            it is named.
        NotAllowed: a right is missing, or nobody is signed in.
        ServiceError: the service or the way to it failed; registering again goes on from there.
    """
    say, store = progress or str, Store(home)
    check_name(name, "name of a model")
    if version is not None:
        check_name(version, "version of a model")
    source = find(model)
    notes = notes_of(source)
    client = OciClient()
    owner = oci_owner(client, named=infrastructure, run=notes.run, store=store)
    _bucket_of(source, owner, name)  # says at once what would be missing in the end
    say(f"reading {len(source.files)} files of {shown(source.named)}")
    elsewhere = frozenset(one.version for one in store.models(name) if scheme_of(one.uri) != SCHEME)
    if version in elsewhere:
        raise UsageError(f"model {name} has a version {version} in another registry", hint="leave --version out")
    filing = _Filing(source, sums_of(source), notes, Catalog(client, owner, name), elsewhere, say)
    filed = filing.file(version, owner, name, provenance(notes.run, store))
    return Model(
        name=name,
        version=filed.label,
        uri=f"{SCHEME}://{filed.id}",
        checksums=filing.sums,
        created=time.time(),
        details={"compartment": owner.compartment},
        **source.facts,
    )


def remove(model: Model) -> None:
    """Delete a model's entry in the catalog, and the files that registering put into a bucket for it.

    Raises:
        NotAllowed: it may not be seen, so nobody knows whether it is there.
    """
    staged = Catalog.remove(OciClient(), identity_of(model.uri), model.name, model.details.get("compartment"))
    if staged is not None:
        storage.remove(staged)


def identity_of(uri: str) -> str:
    """Return the OCID in a model's URI."""
    return uri.removeprefix(f"{SCHEME}://")


@attrs.frozen(kw_only=True)
class _Place:
    """Where a model is referred to; ``staged`` where it is sent there first."""

    uri: str
    namespace: str
    bucket: str
    prefix: str
    staged: bool


class _Filing:
    """One try to file a model that was read to its end."""

    def __init__(
        self,
        source: Source,
        sums: dict[str, str],
        notes: Notes,
        catalog: Catalog,
        elsewhere: frozenset[str],
        say: Say,
    ) -> None:
        self.source, self.sums, self.notes, self.catalog, self.say = source, sums, notes, catalog, say
        self.elsewhere = elsewhere  # versions of the name that other registries have
        self.digest = digest_of(sums)
        self.sent = False  # whether something of it went to the bucket

    def file(self, version: str | None, owner: OciOwner, name: str, provenance: dict[str, str]) -> Filed:
        """Return the version when all is done; an entry that this call made goes again if it cannot be completed."""
        place = _bucket_of(self.source, owner, f"{name}/{self.digest[:16]}")
        if place is not None:
            self._check_bucket(place)
        known = self.catalog.versions()
        filed = self._known(known, version)
        made = filed is None
        if filed is None:
            filed = self._create(version or self._next(known), name, place)
        elif self.catalog.has_artifact(filed):
            self.say(f"it is there already, as version {filed.label}")
            return filed
        try:
            self.catalog.note_provenance(filed.id, provenance)
            self._fill(filed, place)
        except CloudtuneError as error:
            if made and not (isinstance(error, ServiceError) and not error.definite):
                self._take_back(filed, error)
                if place is not None and self.sent:
                    # by far the longest part: the next try begins behind it
                    left = f"left behind: its files in {shown(place.uri)}, which registering it again goes on from"
                    error.hint = f"{error.hint}; {left}" if error.hint else left
            raise
        return filed

    def _known(self, known: tuple[Filed, ...], version: str | None) -> Filed | None:
        """Return the entry of this very model; raises UsageError if the version is another one's."""
        if version is None:
            return next((one for one in known if one.digest == self.digest), None)
        found = next((one for one in known if one.label == version), None)
        if found is not None and found.digest != self.digest:
            hint = "leave --version out for the next number; nothing was sent"
            raise UsageError(f"the catalog has a version {version} of it already, with other files", hint=hint)
        return found

    def _next(self, known: tuple[Filed, ...]) -> str:
        taken = {one.label for one in known} | self.elsewhere
        return str(max((int(label) for label in taken if label.isdigit()), default=0) + 1)

    def _create(self, label: str, name: str, place: _Place | None) -> Filed:
        sizes = {entry.path: entry.bytes for entry in self.source.files}
        where = place.uri if place is not None else self.source.uri
        notes = custom_metadata(self.notes, self.sums, sizes, where, staged=place is not None and place.staged)
        identity = self.catalog.create(
            {
                "displayName": name,
                "modelVersionSetId": self.catalog.version_set(),
                "versionLabel": label,
                "freeformTags": {TAG: self.digest},
                "customMetadataList": notes,
                "definedMetadataList": [{"key": "Framework", "value": "transformers"}],
            }
        )
        self.say(f"version {label} is {identity}")
        return Filed(id=identity, label=label, digest=self.digest, by_reference=False)

    def _fill(self, filed: Filed, place: _Place | None) -> None:
        """Give an entry its files."""
        if place is None:
            with _zipped(self.source) as file:
                self.say(f"sending {file.bytes} bytes")
                self.catalog.upload(filed.id, file)
            return
        if place.staged:
            self._stage(place)
        self.catalog.refer(filed.id, place.namespace, place.bucket, place.prefix, self.say)

    def _stage(self, place: _Place) -> None:
        """Send the files to the bucket; those that are there, by their checksums, are not sent again."""
        folder = self.source.folder
        assert folder is not None
        for number, entry in enumerate(self.source.files, 1):
            files, target = storage.file_system(join(place.uri, entry.path))
            with storage.told("upload", place.uri):
                if files.recorded_sha256(target) == self.sums[entry.path]:
                    continue
                self.say(f"sending {entry.path} ({number} of {len(self.source.files)}, {entry.bytes} bytes)")
                self.sent = True
                files.put_file(str(folder / entry.path), target, sha256=self.sums[entry.path])

    def _check_bucket(self, place: _Place) -> None:
        if not self.catalog.keeps_versions(place.namespace, place.bucket):
            command = f"oci os bucket update --namespace {place.namespace} --name {place.bucket} --versioning Enabled"
            message = f"bucket {place.bucket} keeps no versions of objects, which models by reference need"
            raise UsageError(message, hint=f"switch it on: {command}")

    def _take_back(self, filed: Filed, error: CloudtuneError) -> None:
        try:
            self.catalog.delete(filed.id)
        except CloudtuneError as second:
            left = f"left behind: model {filed.id} without files ({second.message})"
            error.hint = f"{error.hint} {left}" if error.hint else left


def _bucket_of(source: Source, owner: OciOwner, below: str) -> _Place | None:
    """Return where the catalog refers to; None for a model that is sent whole."""
    size = sum(entry.bytes for entry in source.files)
    if scheme_of(source.uri) == "oci":
        return _place(source.uri, staged=False)
    if size <= WHOLE_BYTES:
        return None
    if source.folder is None:
        hint = "copy it into a bucket of OCI's Object Storage, or fetch it first: register --to folder"
        raise UsageError(f"{shown(source.named)} has {size} bytes and is in no bucket of OCI", hint=hint)
    staging = owner.place.staging_uri
    if not staging or scheme_of(staging) != "oci":
        hint = "name a bucket that keeps versions: stagingUri: oci://BUCKET@NAMESPACE/PREFIX in the infrastructure"
        raise UsageError(f"a model of {size} bytes is filed by reference: it must lie in a bucket of OCI", hint=hint)
    return _place(join(staging, "models", below), staged=True)


def _place(uri: str, *, staged: bool) -> _Place:
    found = _BUCKET.fullmatch(uri.rstrip("/"))
    if found is None:
        hint = "put it below a prefix: oci://BUCKET@NAMESPACE/PREFIX"
        raise UsageError(f"{shown(uri)} is no place that the catalog can refer to", hint=hint)
    named = found.groupdict()
    return _Place(
        uri=uri, namespace=named["namespace"], bucket=named["bucket"], prefix=f"{named['prefix']}/", staged=staged
    )


@contextmanager
def _zipped(source: Source) -> Iterator[File]:
    """Give the model's files as one flat archive; weights do not get smaller, so nothing is compressed."""
    with tempfile.TemporaryDirectory(prefix="cloudtune-model-") as scratch:
        path = Path(scratch) / "model.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for entry in sorted(source.files, key=lambda one: one.path):
                info = zipfile.ZipInfo(entry.path, _EPOCH)
                info.external_attr = 0o644 << 16
                with archive.open(info, "w", force_zip64=True) as target:
                    for chunk in source.chunks(entry):
                        target.write(chunk)
        total = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
        yield File(path=path.name, bytes=path.stat().st_size, sha256=total.hexdigest(), source=str(path))
