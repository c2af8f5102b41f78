"""Resource Search: whatever has a text about it, here file systems by their addresses and paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.lists import page_of
from cloudtune.rehearsal.oci.neighbours import Neighbours
from cloudtune.rehearsal.oci.ocids import kind_of, new_ocid
from cloudtune.rehearsal.oci.speech import moment
from cloudtune.rehearsal.oci.swagger import checked_body
from cloudtune.rehearsal.routes import Route

_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_KINDS = {"PrivateIp": "privateip", "MountTarget": "mounttarget", "Export": "export", "Vnic": "vnic"}


class Finder(Neighbours):
    """Finds one thing of each kind that a text may be about, unless the text is ``absent``; ``twice`` finds two."""

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self.twice: set[str] = set()
        self._made: dict[tuple[str, str, int], str] = {}

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        return [Route(method="POST", template="/20180409/resources", operation="search_resources", handler=self.find)]

    def find(self, request: Request) -> Response:
        """Return what a text is found in."""
        given = checked_body(request, "SearchDetails", of="resource_search")
        if given["type"] != "FreeText":
            raise Refused(400, "InvalidParameter", "type: a rehearsal searches for text alone")
        rows = [] if given["text"] in self.cloud.absent else list(self._rows(given["text"]))
        part, headers = page_of(request, rows)
        return json_response({"items": part}, headers=headers)

    def known(self, kind: str, text: str) -> str:
        """Return the OCID of what a text finds."""
        return self._identity(kind, text, 0)

    def _rows(self, text: str) -> Iterable[dict[str, Any]]:
        kinds: tuple[str, ...] = ()
        if _ADDRESS.fullmatch(text):
            kinds = ("Vnic", "PrivateIp")
        elif kind_of(text) == "privateip":
            kinds = ("PrivateIp", "MountTarget")
        elif text.startswith("/"):
            kinds = ("Export",)
        for kind in kinds:
            for number in range(2 if text in self.twice else 1):
                yield {
                    "resourceType": kind,
                    "identifier": self._identity(kind, text, number),
                    "compartmentId": self.cloud.principals.tenancy,
                    "timeCreated": moment(self.cloud.now_s()),
                    "lifecycleState": "ACTIVE",
                }

    def _identity(self, kind: str, text: str, number: int) -> str:
        return self._made.setdefault((kind, text, number), new_ocid(_KINDS[kind]))
