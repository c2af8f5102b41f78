"""Storage that OCI Data Science mounts on every node: buckets, and file systems by OCIDs or by address.

A file system that is named by address and path, as ``mount`` on Linux has it, is looked up by steps of the plan: the
private IP, the mount target that has it, and the export of that path, each of which there must be once.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudtune.errors import Fault, SpecError
from cloudtune.plan import Ref, Step
from cloudtune.spec.oci import StorageMount

#: Files in Object Storage, as Oracle's tools write their places.
OBJECTS = re.compile(r"oci://(?P<bucket>[^@/]+)@(?P<namespace>[^/]+)(?:/(?P<path>.*))?", re.DOTALL)
#: `<...>` is a placeholder, which a run refuses and a dry run shows.
_FILES = re.compile(
    r"(?P<target>ocid1\.[^:]+|<[^>]*>|(?P<address>\d{1,3}(?:\.\d{1,3}){3}))"
    r":(?P<export>ocid1\.[^:]+|<[^>]*>|(?P<path>/.*))"
)
_WHERE = "spec.infrastructure.spec.storageMount"


def is_file_system(mount: StorageMount) -> bool:
    """Whether a mount is one of File Storage, by whatever name."""
    return _FILES.fullmatch(mount.src) is not None


def mount_details(mounts: Iterable[StorageMount]) -> list[dict[str, Any]]:
    """Return the mounts as the service takes them; raises SpecError for those that cannot be mounted."""
    details, faults = [], []
    for index, mount in enumerate(mounts):
        source = _source(mount, index)
        if source is None:
            hint = "oci://bucket@namespace/prefix, MOUNT_TARGET_OCID:EXPORT_OCID or IP:/export"
            faults.append(Fault(path=f"{_WHERE}[{index}].src", message=f"{mount.src!r} cannot be mounted", hint=hint))
            continue
        folder, name = posixpath.split(mount.dest.rstrip("/"))
        own = {"destinationDirectoryName": name, "destinationPath": folder}
        details.append({**source, **{key: value for key, value in own.items() if value}})
    if faults:
        raise SpecError(faults)
    return details


def look_ups(mounts: Iterable[StorageMount], region: str | None) -> Iterator[Step]:
    """Yield the steps that find file systems which are named by address or path, in the region of the job.

    Nothing in what is asked says it, and another region may have the same addresses.
    """
    for index, mount in enumerate(mounts):
        found = _FILES.fullmatch(mount.src)
        if found is None:
            continue
        if found["address"]:
            yield _search(_step(index, "address"), found["address"], region)
            address = Ref(_step(index, "address"), "items[resourceType=PrivateIp].identifier")
            yield _search(_step(index, "target"), address, region)
        if found["path"]:
            yield _search(_step(index, "export"), found["path"], region)


def _source(mount: StorageMount, index: int) -> Mapping[str, Any] | None:
    if found := OBJECTS.fullmatch(mount.src):
        prefix = (found["path"] or "").strip("/")
        bucket = {"namespace": found["namespace"], "bucket": found["bucket"]}
        return {"storageType": "OBJECT_STORAGE", **bucket, **({"prefix": prefix} if prefix else {})}
    if found := _FILES.fullmatch(mount.src):
        target = Ref(_step(index, "target"), "items[resourceType=MountTarget].identifier")
        export = Ref(_step(index, "export"), "items[resourceType=Export].identifier")
        return {
            "storageType": "FILE_STORAGE",
            "mountTargetId": target if found["address"] else found["target"],
            "exportId": export if found["path"] else found["export"],
        }
    return None


def _step(index: int, what: str) -> str:
    return f"mount-{index}-{what}"


def _search(step: str, text: str | Ref, region: str | None) -> Step:
    place = {"region": region} if region else {}
    parameters = {"type": "FreeText", "text": text, "matchingContextType": "NONE", **place}
    return Step(id=step, service="oci.resource_search", operation="search_resources", parameters=parameters)
