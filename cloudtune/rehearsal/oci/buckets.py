"""Object Storage: the namespace and its buckets."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.lists import page_of
from cloudtune.rehearsal.oci.mounts import Mount
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.shelves import Shelf
from cloudtune.rehearsal.oci.speech import check_match, etag, moment, nothing, reply
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

KIND = "oci.bucket"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,256}")
_SUMMARY = ("namespace", "name", "compartmentId", "createdBy", "timeCreated", "bucketScope")
_TAGS = ("freeformTags", "definedTags")
_DEFAULTS: Mapping[str, Any] = {
    "metadata": {},
    "publicAccessType": "NoPublicAccess",
    "storageTier": "Standard",
    "objectEventsEnabled": False,
    "freeformTags": {},
    "definedTags": {},
    "versioning": "Disabled",
    "autoTiering": "Disabled",
    "bucketScope": "NAMESPACE",
    "replicationEnabled": False,
    "isReadOnly": False,
}


class Buckets:
    """The buckets of all namespaces that there are, and what lies in them."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        #: The tenancy's own namespace; others exist once :meth:`make` has put a bucket in them.
        self.namespace = f"rehearsed{new_ocid('namespace')[-4:]}"
        #: Where the bytes of objects lie.
        self.folder = cloud.stage.folder / "objects"
        self._shelves: dict[str, Shelf] = {}
        self._mounts: dict[str, Mount] = {}
        self._lock = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        bucket = "/n/{namespaceName}/b/{bucketName}"
        rows = (
            ("GET", "/n", "get_namespace", self.tell_namespace),
            ("GET", "/n/{namespaceName}", "get_namespace_metadata", self.tell_metadata),
            ("POST", "/n/{namespaceName}/b", "create_bucket", self.create),
            ("GET", "/n/{namespaceName}/b", "list_buckets", self.find),
            ("HEAD", bucket, "head_bucket", self.head),
            ("GET", bucket, "get_bucket", self.get),
            ("POST", bucket, "update_bucket", self.update),
            ("DELETE", bucket, "delete_bucket", self.delete),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    # --- for the rest of the stand-in, and for whoever stages it

    def make(self, name: str, *, namespace: str | None = None, compartment_id: str | None = None) -> Shelf:
        """Return the contents of a bucket, which is made if there is none of this name."""
        space = namespace or self.namespace
        given = {"name": name, "compartmentId": compartment_id or self.cloud.principals.tenancy}
        try:
            self._add(space, given, self.cloud.principals.user)
        except KeyError:
            pass
        return self.shelf(space, name)

    def shelf(self, namespace: str, bucket: str) -> Shelf:
        """Return the contents of a bucket; Refused (404) where there is none."""
        if self.cloud.stage.store.get(KIND, f"{namespace}/{bucket}") is None:
            if namespace not in self._namespaces():
                raise _no_namespace()
            message = (
                f"Either the bucket named '{bucket}' does not exist in the namespace '{namespace}'"
                " or you are not authorized to access it"
            )
            raise Refused(404, "BucketNotFound", message)
        with self._lock:
            found = self._shelves.setdefault(f"{namespace}/{bucket}", Shelf())
            mount = self._mounts.get(f"{namespace}/{bucket}")
        if mount is not None:
            mount.settle()
        return found

    def mounted(self, namespace: str, bucket: str, prefix: str) -> Path:
        """Return the folder that shows the objects below a prefix; a bucket that is mounted is taken to exist."""
        shelf, folder = self.make(bucket, namespace=namespace), self.cloud.stage.folder / "mounted-objects"
        with self._lock:
            name = f"{namespace}/{bucket}"
            if name not in self._mounts:
                self._mounts[name] = Mount(folder / name, shelf, self.folder, self.cloud.now_s)
            mount = self._mounts[name]
        mount.settle()
        return mount.folder / prefix.strip("/")

    def shelf_for(self, request: Request) -> Shelf:
        """Return the contents of the bucket that a request names."""
        return self.shelf(request.params["namespaceName"], request.params["bucketName"])

    def resource(self, request: Request) -> Resource:
        """Return the bucket that a request names; Refused (404) where there is none."""
        self.shelf_for(request)
        thing = self.cloud.stage.store.get(KIND, f"{request.params['namespaceName']}/{request.params['bucketName']}")
        if thing is None:
            raise Refused(404, "BucketNotFound", "the bucket was deleted meanwhile")
        return thing

    def _namespaces(self) -> set[str]:
        return {self.namespace, *(thing.data["namespace"] for thing in self.cloud.stage.store.all(KIND))}

    # --- operations

    def tell_namespace(self, request: Request) -> Response:
        """Return the name of the tenancy's namespace."""
        check_query(request, ("compartmentId",))
        return json_response(self.namespace)

    def tell_metadata(self, request: Request) -> Response:
        """Return the compartments in which other protocols make buckets."""
        space, tenancy = self._checked_namespace(request), self.cloud.principals.tenancy
        names = ("defaultS3CompartmentId", "defaultSwiftCompartmentId")
        return json_response({"namespace": space, **dict.fromkeys(names, tenancy)})

    def create(self, request: Request) -> Response:
        """Make a bucket."""
        space = self._checked_namespace(request)
        given = checked_body(request, "CreateBucketDetails", of="object_storage")
        if not _NAME.fullmatch(given["name"]):
            words = "letters, digits, hyphens, underscores and periods, 256 at most"
            raise Refused(400, "InvalidBucketName", f"The bucket name '{given['name']}' is invalid: {words}")
        self.cloud.check_exists("compartmentId", given["compartmentId"], "compartment", "tenancy")
        try:
            thing = self._add(space, given, self.cloud.caller.id)
        except KeyError:
            message = (
                f"Either the bucket '{given['name']}' in namespace '{space}' already exists"
                " or you are not authorized to create it"
            )
            raise Refused(409, "BucketAlreadyExists", message) from None
        place = ("location", f"/n/{space}/b/{given['name']}")
        return _with(reply({**thing.data, "etag": etag(thing)}, of=thing), place)

    def find(self, request: Request) -> Response:
        """Return the buckets of a compartment, by name."""
        check_query(request, ("limit", "page", "fields"), required=("compartmentId",))
        space = self._checked_namespace(request)
        fields = request.query.get("fields", "")
        if fields not in ("", "tags"):
            raise Refused(400, "InvalidParameter", "fields may be tags")
        self.cloud.check_exists("compartmentId", request.query["compartmentId"], "compartment", "tenancy")
        wanted = {"namespace": space, "compartmentId": request.query["compartmentId"]}
        things = self.cloud.stage.store.all(KIND, lambda one: wanted.items() <= one.data.items())
        part, headers = page_of(request, sorted(things, key=lambda one: str(one.data["name"])), usual=25)
        names = (*_SUMMARY, *(_TAGS if fields else ()))
        return json_response(
            [{**{name: one.data[name] for name in names}, "etag": etag(one)} for one in part], headers=headers
        )

    def head(self, request: Request) -> Response:
        """Say whether there is a bucket."""
        return Response(headers=(("etag", etag(self.resource(request))), ("content-type", "application/json")))

    def get(self, request: Request) -> Response:
        """Return a bucket, and how full it is where that is asked for."""
        known = ("approximateCount", "approximateSize", "autoTiering")
        check_query(request, ("fields",))
        fields = [name for name in request.query.get("fields", "").split(",") if name]
        if any(name not in known for name in fields):
            raise Refused(400, "InvalidParameter", f"fields may be of {', '.join(known)}")
        thing = self.resource(request)
        inside = self.shelf_for(request).find().objects
        counts = {"approximateCount": len(inside), "approximateSize": sum(one.blob.size for one in inside)}
        return reply(
            {
                **{key: value for key, value in thing.data.items() if key != "autoTiering" or key in fields},
                **{key: value for key, value in counts.items() if key in fields},
                "etag": etag(thing),
            },
            of=thing,
        )

    def update(self, request: Request) -> Response:
        """Change a bucket; it keeps its name."""
        thing = self.resource(request)
        given = checked_body(request, "UpdateBucketDetails", of="object_storage")
        for name in ("name", "namespace"):
            if given.pop(name, thing.data[name]) != thing.data[name]:
                raise Refused(501, "MethodNotImplemented", f"a rehearsed bucket keeps its {name}")
        if "compartmentId" in given:
            self.cloud.check_exists("compartmentId", given["compartmentId"], "compartment", "tenancy")
        check_match(request, thing)
        changed = self.cloud.stage.store.change(KIND, thing.id, **given)
        if changed is None:
            raise Refused(404, "BucketNotFound", "the bucket was deleted meanwhile")
        return reply({**changed.data, "etag": etag(changed)}, of=changed)

    def delete(self, request: Request) -> Response:
        """Remove a bucket that is empty."""
        thing, shelf = self.resource(request), self.shelf_for(request)
        check_match(request, thing)
        name = thing.data["name"]
        if len(shelf):
            raise Refused(409, "BucketNotEmpty", f"Bucket named '{name}' is not empty. Delete all objects first.")
        if shelf.uploads:
            raise Refused(409, "BucketNotEmpty", f"Bucket named '{name}' has pending multipart uploads. Abort them.")
        self.cloud.stage.store.remove(KIND, thing.id)
        with self._lock:
            self._shelves.pop(thing.id, None)
            self._mounts.pop(thing.id, None)
        return nothing()

    def _add(self, namespace: str, given: Mapping[str, Any], creator: str) -> Resource:
        data = {
            **_DEFAULTS,
            **given,
            "namespace": namespace,
            "id": new_ocid("bucket"),
            "createdBy": creator,
            "timeCreated": moment(self.cloud.now_s()),
        }
        return self.cloud.stage.store.add(KIND, f"{namespace}/{given['name']}", data)

    def _checked_namespace(self, request: Request) -> str:
        space = request.params["namespaceName"]
        if space not in self._namespaces():
            raise _no_namespace()
        return space


def _no_namespace() -> Refused:
    message = "You do not have authorization to perform this request, or the requested resource could not be found."
    return Refused(404, "NamespaceNotFound", message)


def _with(answer: Response, *headers: tuple[str, str]) -> Response:
    return Response(status=answer.status, headers=(*answer.headers, *headers), body=answer.body)
