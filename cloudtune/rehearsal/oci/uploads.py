"""Object Storage: objects that come in parts, are copied, and the work requests of that."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci import blobs
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.lists import page_of
from cloudtune.rehearsal.oci.objects import checked_name, condition_of, facts_in, place
from cloudtune.rehearsal.oci.shelves import Object, Piece, Upload
from cloudtune.rehearsal.oci.speech import moment, nothing
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

_MOST_PARTS = 10_000


class Uploads:
    """Uploads in parts: begun, filled, and committed or aborted."""

    unsigned_bodies: tuple[str, ...] = ("upload_part",)

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.buckets = cloud.part(Buckets)

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        uploads = "/n/{namespaceName}/b/{bucketName}/u"
        rows = (
            ("POST", uploads, "create_multipart_upload", self.create),
            ("GET", uploads, "list_multipart_uploads", self.find),
            ("GET", f"{uploads}/{{objectName...}}", "list_multipart_upload_parts", self.find_parts),
            ("PUT", f"{uploads}/{{objectName...}}", "upload_part", self.put_part),
            ("POST", f"{uploads}/{{objectName...}}", "commit_multipart_upload", self.commit),
            ("DELETE", f"{uploads}/{{objectName...}}", "abort_multipart_upload", self.abort),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Begin an upload."""
        shelf = self.buckets.shelf_for(request)
        given = checked_body(request, "CreateMultipartUploadDetails", of="object_storage")
        name, condition = checked_name(given["object"]), condition_of(request)
        condition.check(shelf.get(name))
        made = Upload(name=name, time_s=self.cloud.now_s(), condition=condition, **facts_in(given))
        shelf.uploads[made.id] = made
        return json_response(_shown(request, made), headers=(("location", f"{request.raw_path}/{name}"),))

    def find(self, request: Request) -> Response:
        """Return one page of the uploads that go on in a bucket."""
        check_query(request, ("limit", "page"))
        shelf = self.buckets.shelf_for(request)
        ordered = sorted(shelf.uploads.values(), key=lambda one: (one.name, one.time_s))
        part, headers = page_of(request, ordered)
        return json_response([_shown(request, one) for one in part], headers=headers)

    def find_parts(self, request: Request) -> Response:
        """Return one page of the parts that have come, by number."""
        check_query(request, ("limit", "page"), required=("uploadId",))
        upload = self._upload(request)
        rows = [
            {"etag": piece.etag, "md5": piece.blob.md5, "size": piece.blob.size, "partNumber": number}
            for number, piece in sorted(upload.pieces.items())
        ]
        part, headers = page_of(request, rows)
        return json_response(part, headers=headers)

    def put_part(self, request: Request) -> Response:
        """Take a part; another of the same number replaces it."""
        check_query(request, (), required=("uploadId", "uploadPartNum"))
        shelf, upload = self.buckets.shelf_for(request), self._upload(request)
        text = request.query["uploadPartNum"]
        if not text.isdecimal() or not 1 <= int(text) <= _MOST_PARTS:
            raise Refused(400, "InvalidParameter", f"uploadPartNum must be a number from 1 to {_MOST_PARTS}")
        condition = condition_of(request)
        if condition.none_match and int(text) in upload.pieces:
            raise Refused(412, "IfNoneMatchFailed", f"The part {text} was uploaded already")
        piece = Piece(blob=blobs.receive(request, self.buckets.folder))
        shelf.put_piece(upload, int(text), piece)
        sums = piece.blob.sums.items()
        return Response(headers=(("etag", piece.etag), ("opc-content-md5", piece.blob.md5), *sums))

    def commit(self, request: Request) -> Response:
        """Make the object of the parts that are named, in the order of their numbers."""
        check_query(request, (), required=("uploadId",))
        shelf, upload = self.buckets.shelf_for(request), self._upload(request)
        given = checked_body(request, "CommitMultipartUploadDetails", of="object_storage")
        pieces = _named(upload, given)
        condition = condition_of(request)
        for each in (upload.condition, condition):
            each.check(shelf.get(upload.name))
        made = Object(
            name=upload.name,
            blob=blobs.joined((piece.blob for piece in pieces), self.buckets.folder),
            time_s=self.cloud.now_s(),
            multipart_md5=blobs.multipart_md5(piece.blob for piece in pieces),
            headers=upload.headers,
            tier=upload.tier,
        )
        place(shelf, made, condition)
        shelf.end(upload.id, upload.name).forget()
        modified = email.utils.formatdate(made.time_s, usegmt=True)
        headers = (("etag", made.etag), ("last-modified", modified), ("version-id", made.version))
        return Response(headers=(*headers, ("opc-multipart-md5", made.md5)))

    def abort(self, request: Request) -> Response:
        """End an upload; nothing of it is kept."""
        check_query(request, (), required=("uploadId",))
        shelf = self.buckets.shelf_for(request)
        shelf.end(request.query["uploadId"], request.params["objectName"]).forget()
        return nothing()

    def _upload(self, request: Request) -> Upload:
        return self.buckets.shelf_for(request).upload(request.query["uploadId"], request.params["objectName"])


def _shown(request: Request, one: Upload) -> dict[str, Any]:
    return {
        "namespace": request.params["namespaceName"],
        "bucket": request.params["bucketName"],
        "object": one.name,
        "uploadId": one.id,
        "timeCreated": moment(one.time_s),
        "storageTier": one.tier,
    }


def _named(upload: Upload, given: dict[str, Any]) -> list[Piece]:
    """Return the parts that a commit names; Refused (400) unless each part that has come is named or left out."""
    named = {one["partNum"]: one["etag"] for one in given["partsToCommit"]}
    excluded = set(given.get("partsToExclude", ()))
    if not named:
        raise Refused(400, "InvalidUploadPart", "There are no parts to commit")
    if len(named) < len(given["partsToCommit"]) or excluded & set(named):
        raise Refused(400, "InvalidUploadPart", "A part is named twice")
    for number, tag in named.items():
        piece = upload.pieces.get(number)
        if piece is None or piece.etag != tag:
            raise Refused(400, "InvalidUploadPart", f"The part {number} was not uploaded, or has another ETag")
    forgotten = sorted(set(upload.pieces) - set(named) - excluded)
    if forgotten:
        message = f"Each part must be committed or excluded; nothing is said of {forgotten}"
        raise Refused(400, "InvalidUploadPart", message)
    return [upload.pieces[number] for number in sorted(named)]
