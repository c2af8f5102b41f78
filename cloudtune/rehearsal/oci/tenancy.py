"""Identity: who the user is, and the little that clients ask about their tenancy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Request, Response, json_response
from cloudtune.rehearsal.oci.ocids import REGION, REGION_KEY, kind_of
from cloudtune.rehearsal.oci.speech import moment, not_found, reply
from cloudtune.rehearsal.oci.swagger import check_query
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20160918"


class Tenancy:
    """A tenancy of one user, in one region, with one availability domain."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self._since = moment(cloud.now_s())

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        tenancy = f"{BASE}/tenancies/{{tenancyId}}"
        rows = (
            (f"{BASE}/users/{{userId}}", "get_user", self.get_user),
            (tenancy, "get_tenancy", self.get_tenancy),
            (f"{tenancy}/regionSubscriptions", "list_region_subscriptions", self.find_subscriptions),
            (f"{BASE}/compartments/{{compartmentId}}", "get_compartment", self.get_compartment),
            (f"{BASE}/availabilityDomains", "list_availability_domains", self.find_domains),
            (f"{BASE}/regions", "list_regions", self.find_regions),
        )
        return [Route(method="GET", template=path, operation=name, handler=deed) for path, name, deed in rows]

    def get_user(self, request: Request) -> Response:
        """Return the user."""
        self._check(request.params["userId"], self.cloud.principals.user)
        name = self.cloud.principals.identity.name
        return reply({"name": name, "isMfaActivated": False, **self._thing(self.cloud.principals.user)})

    def get_tenancy(self, request: Request) -> Response:
        """Return the tenancy."""
        tenancy = self.cloud.principals.tenancy
        self._check(request.params["tenancyId"], tenancy)
        return reply({"id": tenancy, "name": "rehearsed", "description": "", "homeRegionKey": REGION_KEY.upper()})

    def get_compartment(self, request: Request) -> Response:
        """Return a compartment."""
        identity = request.params["compartmentId"]
        if kind_of(identity) not in ("compartment", "tenancy") or identity in self.cloud.absent:
            raise not_found(f"compartment {identity}")
        return reply({"name": identity[-12:], "isAccessible": True, **self._thing(identity)})

    def find_subscriptions(self, request: Request) -> Response:
        """Return the regions that the tenancy is in."""
        self._check(request.params["tenancyId"], self.cloud.principals.tenancy)
        row = {"regionKey": REGION_KEY.upper(), "regionName": REGION, "status": "READY", "isHomeRegion": True}
        return json_response([row])

    def find_domains(self, request: Request) -> Response:
        """Return the availability domains of the region."""
        check_query(request, (), required=("compartmentId",))
        compartment = request.query["compartmentId"]
        row = {"name": f"rehearsed:{REGION.upper()}-AD-1", "id": "ocid1.availabilitydomain.oc1..rehearsed"}
        return json_response([{**row, "compartmentId": compartment}])

    def find_regions(self, request: Request) -> Response:
        """Return the regions."""
        return json_response([{"key": REGION_KEY.upper(), "name": REGION}])

    def _check(self, identity: str, known: str) -> None:
        if identity != known:
            raise not_found(identity)

    def _thing(self, identity: str) -> dict[str, Any]:
        about = {"id": identity, "compartmentId": self.cloud.principals.tenancy, "description": ""}
        return {**about, "timeCreated": self._since, "lifecycleState": "ACTIVE"}
