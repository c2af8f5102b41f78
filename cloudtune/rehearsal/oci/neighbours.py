"""What a job presupposes and clients only look at, as whoever stages it says: projects, networks, limits, images.

What is named by a well-formed OCID and not ``absent`` exists, and serves its purpose, unless it was said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.ocids import check_ocid, new_ocid
from cloudtune.rehearsal.oci.speech import moment, reply
from cloudtune.rehearsal.oci.swagger import check_query
from cloudtune.rehearsal.routes import Route

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

CORE = "/20160918"
_ALL = "0.0.0.0/0"


class Neighbours:
    """Things that were made before; ``said`` has what differs of one, by its OCID."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.said: dict[str, Mapping[str, Any]] = {}
        self._since = moment(cloud.now_s())

    def thing(self, field: str, identity: str, *kinds: str, **usual: Any) -> dict[str, Any]:
        """Return a thing as the service shows it; Refused where there is none."""
        self.cloud.check_exists(field, identity, *kinds)
        common = {"id": identity, "timeCreated": self._since, "displayName": f"rehearsed-{kinds[0]}"}
        return {**common, **usual, **self.said.get(identity, {})}


class Projects(Neighbours):
    """Projects of Data Science."""

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        path = "/20190101/projects/{projectId}"
        return [Route(method="GET", template=path, operation="get_project", handler=self.get)]

    def get(self, request: Request) -> Response:
        """Return a project."""
        project = request.params["projectId"]
        return reply(self.thing("projectId", project, "datascienceproject", lifecycleState="ACTIVE"))


class Sessions(Neighbours):
    """Notebook sessions, in the compartment of the tenancy itself unless it was said otherwise."""

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        path = "/20190101/notebookSessions/{notebookSessionId}"
        return [Route(method="GET", template=path, operation="get_notebook_session", handler=self.get)]

    def get(self, request: Request) -> Response:
        """Return a session."""
        session, kind = request.params["notebookSessionId"], "datasciencenotebooksession"
        usual = {"compartmentId": self.cloud.principals.tenancy, "lifecycleState": "ACTIVE"}
        return reply(self.thing("notebookSessionId", session, kind, **usual))


class Networks(Neighbours):
    """Subnets whose nodes reach each other and everybody else, with one security list and one route table."""

    def __init__(self, cloud: OciCloud) -> None:
        super().__init__(cloud)
        self.security_list, self.route_table = new_ocid("securitylist"), new_ocid("routetable")

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        rows = (
            (f"{CORE}/subnets/{{subnetId}}", "get_subnet", self.get_subnet),
            (f"{CORE}/securityLists/{{securityListId}}", "get_security_list", self.get_security_list),
            (f"{CORE}/routeTables/{{rtId}}", "get_route_table", self.get_route_table),
        )
        return [Route(method="GET", template=path, operation=name, handler=deed) for path, name, deed in rows]

    def get_subnet(self, request: Request) -> Response:
        """Return a subnet."""
        usual = {
            "cidrBlock": "10.60.0.0/20",
            "lifecycleState": "AVAILABLE",
            "securityListIds": [self.security_list],
            "routeTableId": self.route_table,
            "prohibitPublicIpOnVnic": True,
        }
        return reply(self.thing("subnetId", request.params["subnetId"], "subnet", **usual))

    def get_security_list(self, request: Request) -> Response:
        """Return a security list."""
        identity, inwards = request.params["securityListId"], {"protocol": "all", "source": "10.60.0.0/20"}
        outwards = {"protocol": "all", "destination": _ALL}
        usual = {"ingressSecurityRules": [inwards], "egressSecurityRules": [outwards], "lifecycleState": "AVAILABLE"}
        return reply(self.thing("securityListId", identity, "securitylist", **usual))

    def get_route_table(self, request: Request) -> Response:
        """Return a route table."""
        rule = {"destination": _ALL, "destinationType": "CIDR_BLOCK", "networkEntityId": new_ocid("natgateway")}
        usual = {"routeRules": [rule], "lifecycleState": "AVAILABLE"}
        return reply(self.thing("rtId", request.params["rtId"], "routetable", **usual))


class Limits(Neighbours):
    """What is left of a service's limits: ``left`` by the name of the limit, plenty of the others."""

    def __init__(self, cloud: OciCloud) -> None:
        super().__init__(cloud)
        self.left: dict[str, int] = {}

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        path = "/20190729/services/{serviceName}/limits/{limitName}/resourceAvailability"
        return [Route(method="GET", template=path, operation="get_resource_availability", handler=self.get)]

    def get(self, request: Request) -> Response:
        """Return what is left."""
        check_query(request, ("availabilityDomain", "subscriptionId", "externalLocation"), required=("compartmentId",))
        self.cloud.check_exists("compartmentId", request.query["compartmentId"], "compartment", "tenancy")
        left = self.left.get(request.params["limitName"], 1000)
        return reply({"used": 0, "available": left, "effectiveQuotaValue": left})


class Images(Neighbours):
    """Images of the container registry: ``tags`` by repository; of one that is not there, any tag exists."""

    def __init__(self, cloud: OciCloud) -> None:
        super().__init__(cloud)
        self.tags: dict[str, tuple[str, ...]] = {}

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        path = f"{CORE}/container/images"
        return [Route(method="GET", template=path, operation="list_container_images", handler=self.find)]

    def find(self, request: Request) -> Response:
        """Return images of a repository."""
        filters = ("repositoryName", "version", "imageId", "isVersioned", "displayName", "lifecycleState")
        check_query(request, (*filters, "limit", "page"), required=("compartmentId",))
        check_ocid("compartmentId", request.query["compartmentId"], "compartment", "tenancy")
        repository, wanted = request.query.get("repositoryName"), request.query.get("version")
        if repository is None:
            raise Refused(400, "InvalidParameter", "repositoryName: the rehearsal looks in one repository at a time")
        tags = self.tags.get(repository, (wanted or "latest",))
        rows = [
            {
                "id": new_ocid("containerimage"),
                "repositoryName": repository,
                "version": tag,
                "lifecycleState": "AVAILABLE",
            }
            for tag in tags
            if wanted in {None, tag}
        ]
        return reply({"items": rows, "remainingItemsCount": 0, "layersSizeInBytes": 0})
