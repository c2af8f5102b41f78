"""Object Storage: objects, whole or a range of them, lists, and names that change."""

from __future__ import annotations

import contextlib
import email.utils
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.rehearsal.messages import Headers, Refused, Request, Response, json_response, span
from cloudtune.rehearsal.oci import blobs
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.shelves import Condition, Object, Shelf, fresh_tag
from cloudtune.rehearsal.oci.speech import moment, nothing
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

TIERS = ("Standard", "InfrequentAccess", "Archive")
_LONGEST_NAME = 1024
_MOST_LISTED = 1000
_USUAL_TYPE = "application/octet-stream"
#: Headers of whoever writes an object that come back to whoever reads it.
_KEPT = ("content-type", "content-language", "content-encoding", "content-disposition", "cache-control")
_META = "opc-meta-"
#: Parameters by which a reader has such a header changed.
_OVERRIDES = {
    "httpResponseContentDisposition": "content-disposition",
    "httpResponseCacheControl": "cache-control",
    "httpResponseContentType": "content-type",
    "httpResponseContentLanguage": "content-language",
    "httpResponseContentEncoding": "content-encoding",
    "httpResponseExpires": "expires",
}
_FIELDS: Mapping[str, Callable[[Object], Any]] = {
    "name": lambda one: one.name,
    "size": lambda one: one.blob.size,
    "etag": lambda one: one.etag,
    "md5": lambda one: one.md5,
    "timeCreated": lambda one: moment(one.time_s),
    "timeModified": lambda one: moment(one.time_s),
    "storageTier": lambda one: one.tier,
    "archivalState": lambda one: "Archived" if one.tier == "Archive" else None,
}


class Objects:
    """The objects in the buckets."""

    unsigned_bodies: tuple[str, ...] = ("put_object",)

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.buckets = cloud.part(Buckets)

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        bucket = "/n/{namespaceName}/b/{bucketName}"
        rows = (
            ("GET", f"{bucket}/o", "list_objects", self.find),
            ("HEAD", f"{bucket}/o/{{objectName...}}", "head_object", self.get),
            ("GET", f"{bucket}/o/{{objectName...}}", "get_object", self.get),
            ("PUT", f"{bucket}/o/{{objectName...}}", "put_object", self.put),
            ("DELETE", f"{bucket}/o/{{objectName...}}", "delete_object", self.delete),
            ("POST", f"{bucket}/actions/batchDeleteObjects", "batch_delete_objects", self.delete_many),
            ("POST", f"{bucket}/actions/renameObject", "rename_object", self.rename),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def put(self, request: Request) -> Response:
        """Write an object whole."""
        shelf, name = self.buckets.shelf_for(request), checked_name(request.params["objectName"])
        facts, condition = facts_of(request), condition_of(request)
        condition.check(shelf.get(name))
        blob = blobs.receive(request, self.buckets.folder)
        made = Object(name=name, blob=blob, time_s=self.cloud.now_s(), **facts)
        place(shelf, made, condition)
        return Response(headers=(*_tags(made), ("opc-content-md5", blob.md5), *blob.sums.items()))

    def get(self, request: Request) -> Response:
        """Return an object or a range of it, or its facts alone."""
        check_query(request, ("versionId", *_OVERRIDES))
        while True:
            found = self._found(request)
            wanted, avoided = request.header("if-match"), request.header("if-none-match")
            if wanted and wanted not in ("*", found.etag):
                raise Refused(412, "IfMatchFailed", "The If-Match header does not match the object's current ETag")
            if avoided == found.etag:
                return Response(status=304, headers=_tags(found))
            headers = (*_tags(found), *_description(found, request))
            if request.method == "HEAD":
                return Response(headers=(*headers, ("content-length", str(found.blob.size))))
            with contextlib.suppress(FileNotFoundError):  # replaced this very moment: then the new one is meant
                return _content(request, found, headers)

    def delete(self, request: Request) -> Response:
        """Remove an object."""
        check_query(request, ("versionId",))
        shelf, found = self.buckets.shelf_for(request), self._found(request)
        taken = shelf.take(found.name, Condition(match=request.header("if-match")))
        if taken is None:
            raise no_object(found.name, request.params["bucketName"])
        taken.blob.forget()
        modified = email.utils.formatdate(self.cloud.now_s(), usegmt=True)
        return nothing(headers=(("last-modified", modified), ("version-id", taken.version)))

    def delete_many(self, request: Request) -> Response:
        """Remove objects, each or not: the answer says which."""
        shelf = self.buckets.shelf_for(request)
        given = checked_body(request, "BatchDeleteObjectsDetails", of="object_storage")
        if len(given["objects"]) > _MOST_LISTED:
            raise Refused(400, "InvalidParameter", f"objects must be {_MOST_LISTED} at most")
        deleted, failed = [], []
        for one in given["objects"]:
            name = one["objectName"]
            try:
                taken = shelf.take(name, Condition(match=one.get("ifMatch", "")))
            except Refused as why:
                failed.append({"objectName": name, "statusCode": why.status, "errorMessage": why.message})
                continue
            if taken is not None:
                taken.blob.forget()
                deleted.append({"objectName": name, "timeLastModified": moment(self.cloud.now_s())})
            else:
                failed.append({"objectName": name, "statusCode": 404, "errorMessage": "ObjectNotFound"})
        shown = [] if given.get("isSkipDeletedResult") else deleted
        return json_response({"deleted": shown, "failed": failed})

    def rename(self, request: Request) -> Response:
        """Give an object another name in its bucket."""
        shelf = self.buckets.shelf_for(request)
        given = checked_body(request, "RenameObjectDetails", of="object_storage")
        new, now_s = checked_name(given["newName"]), self.cloud.now_s()
        renamed = shelf.rename(
            given["sourceName"],
            lambda old: attrs.evolve(old, name=new, time_s=now_s, etag=fresh_tag(), version=fresh_tag()),
            Condition(match=given.get("srcObjIfMatchETag", "")),
            Condition(match=given.get("newObjIfMatchETag", ""), none_match=given.get("newObjIfNoneMatchETag", "")),
        )
        if renamed is None:
            raise no_object(given["sourceName"], request.params["bucketName"])
        return Response(headers=_tags(renamed))

    def find(self, request: Request) -> Response:
        """Return one page of the objects of a bucket, in the order of their names."""
        shelf = self.buckets.shelf_for(request)
        check_query(request, ("prefix", "start", "end", "limit", "delimiter", "fields", "startAfter"))
        query = request.query
        if query.get("delimiter", "/") != "/":
            raise Refused(400, "InvalidParameter", "delimiter may be / only")
        if query.get("start") and query.get("startAfter"):
            raise Refused(400, "InvalidParameter", "start and startAfter exclude each other")
        limit = _limit(query.get("limit"))
        fields = _fields(query.get("fields", ""))
        found = shelf.find(
            prefix=query.get("prefix", ""),
            start=query.get("start", ""),
            start_after=query.get("startAfter", ""),
            end=query.get("end", ""),
            delimited=bool(query.get("delimiter")),
            limit=limit,
        )
        rows = [
            {field: value for field in fields if (value := _FIELDS[field](one)) is not None} for one in found.objects
        ]
        following = {"nextStartWith": found.next} if found.next is not None else {}
        return json_response({"objects": rows, "prefixes": found.prefixes, **following})

    def _found(self, request: Request) -> Object:
        shelf, name = self.buckets.shelf_for(request), request.params["objectName"]
        found = shelf.get(name)
        version = request.query.get("versionId")
        if found is None or (version and version != found.version):
            raise no_object(name, request.params["bucketName"])
        return found


def place(shelf: Shelf, made: Object, condition: Condition) -> None:
    """Put an object on a shelf; its bytes go if that is refused."""
    try:
        shelf.put(made, condition)
    except Refused:
        made.blob.forget()
        raise


def condition_of(request: Request) -> Condition:
    """Return what a request that writes an object demands of the one that is there."""
    return Condition(match=request.header("if-match"), none_match=request.header("if-none-match"))


def facts_of(request: Request) -> dict[str, Any]:
    """Return what the headers of a request say of the object that it writes."""
    _check_no_keys(request)
    kept = {name: request.header(name) for name in _KEPT if request.header(name)}
    meta = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith(_META)}
    return {
        "headers": {"content-type": _USUAL_TYPE, **kept, **meta},
        "tier": checked_tier(request.header("storage-tier", TIERS[0])),
    }


def facts_in(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a body says of the object that an upload will make."""
    names = {
        "content-" + name: "content" + name.capitalize() for name in ("type", "language", "encoding", "disposition")
    }
    kept = {
        header: details[field]
        for header, field in {**names, "cache-control": "cacheControl"}.items()
        if field in details
    }
    meta = {f"{_META}{name.removeprefix(_META)}": value for name, value in details.get("metadata", {}).items()}
    return {
        "headers": {"content-type": _USUAL_TYPE, **kept, **meta},
        "tier": checked_tier(details.get("storageTier", TIERS[0])),
    }


def checked_tier(tier: str) -> str:
    """Return a storage tier that there is."""
    if tier not in TIERS:
        raise Refused(400, "InvalidParameter", f"storage-tier must be one of {', '.join(TIERS)}")
    return tier


def checked_name(name: str) -> str:
    """Return a name that an object may have: 1 to 1024 bytes of UTF-8 without ends of lines and nulls."""
    if not 1 <= len(name.encode()) <= _LONGEST_NAME or set(name) & set("\r\n\0"):
        words = f"1 to {_LONGEST_NAME} bytes, without ends of lines and nulls"
        raise Refused(400, "InvalidObjectName", f"The object name is invalid: {words}")
    return name


def no_object(name: str, bucket: str) -> Refused:
    """Return the refusal of an object that is not there."""
    return Refused(404, "ObjectNotFound", f"The object '{name}' was not found in the bucket '{bucket}'")


def _check_no_keys(request: Request) -> None:
    if request.header("opc-sse-customer-key"):
        raise Refused(501, "MethodNotImplemented", "rehearsed Object Storage encrypts with no keys of its clients")


def _tags(one: Object) -> Headers:
    modified = email.utils.formatdate(one.time_s, usegmt=True)
    return (("etag", one.etag), ("last-modified", modified), ("version-id", one.version))


def _description(one: Object, request: Request) -> Headers:
    given = {_OVERRIDES[name]: value for name, value in request.query.items() if name in _OVERRIDES}
    md5 = ("opc-multipart-md5", one.multipart_md5) if one.multipart_md5 else ("content-md5", one.blob.md5)
    fixed = (md5, ("accept-ranges", "bytes"), ("storage-tier", one.tier))
    return (*{**one.headers, **given}.items(), *fixed, *one.blob.sums.items())


def _content(request: Request, found: Object, headers: Headers) -> Response:
    wanted, size = request.header("range"), found.blob.size
    start, end = span(wanted, size) if wanted else (0, size)
    file = found.blob.open()
    more = [("content-length", str(end - start))]
    if wanted:
        more.append(("content-range", f"bytes {start}-{end - 1}/{size}"))
    body = blobs.Content(file, start, end - start)
    return Response(status=206 if wanted else 200, headers=(*headers, *more), body=body)


def _limit(text: str | None) -> int:
    if text is not None and (not text.isdecimal() or not int(text)):
        raise Refused(400, "InvalidParameter", "limit must be a number from 1 on")
    return min(int(text), _MOST_LISTED) if text else _MOST_LISTED


def _fields(text: str) -> list[str]:
    known = {name.lower(): name for name in _FIELDS}
    named = [word.strip().lower() for word in text.split(",") if word.strip()]
    if any(word not in known for word in named):
        raise Refused(400, "InvalidParameter", f"fields may be of {', '.join(_FIELDS)}")
    return ["name", *(known[word] for word in named if word != "name")]
