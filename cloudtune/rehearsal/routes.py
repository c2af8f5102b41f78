"""A service of a stand-in: which request is which operation, and who answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

import attrs

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response

Handler = Callable[[Request], Response]
_WORD = re.compile(r"\{(\w+)(\.\.\.)?\}")


@attrs.frozen(kw_only=True)
class Route:
    """One operation: requests of this method to paths of this form, such as ``/jobs/{jobId}``, go to the handler.

    ``{name}`` is one part of a path, ``{name...}`` at its end all the rest, slashes and all, which may be empty. Where
    several routes fit a path, the one with more plain words is meant. ``service`` is the name under which its calls
    are counted and remembered, where that is not the name of the service that it is given to.
    """

    method: str
    template: str
    operation: str
    handler: Handler = attrs.field(eq=False)
    service: str = ""

    def pattern(self) -> re.Pattern[str]:
        """Return the template as a pattern of undecoded paths."""
        out, position = "", 0
        for word in _WORD.finditer(self.template):
            out += re.escape(self.template[position : word.start()])
            out += f"(?P<{word[1]}>{'.*' if word[2] else '[^/]+'})"
            position = word.end()
        return re.compile(out + re.escape(self.template[position:]))


def plain_refusal(_: Request, why: Refused) -> Response:
    """Put a refusal into words that belong to no cloud."""
    data = {"code": why.code, "message": why.message}
    return json_response(data, status=why.status, headers=why.headers)


class Service:
    """A service: its routes, and how it speaks.

    ``refuse`` puts an error into the service's own words. ``admit`` sees every request that has a route before its
    handler, and raises Refused where it must not pass: authentication. A service whose operations are not in its paths
    (a header names them) gives ``choose``; it may return None for a request that it does not know.
    """

    def __init__(
        self,
        name: str,
        routes: Iterable[Route],
        *,
        refuse: Callable[[Request, Refused], Response] = plain_refusal,
        admit: Callable[[Request, Route], None] = lambda _, __: None,
        choose: Callable[[Request, Mapping[str, Route]], Route | None] | None = None,
    ) -> None:
        self.name = name
        self.refuse = refuse
        self.admit = admit
        self._choose = choose
        routes = tuple(routes)
        self._operations = {route.operation: route for route in routes}
        ordered = sorted(routes, key=lambda route: -len(_WORD.sub("", route.template)))
        self._patterns = [(route.pattern(), route) for route in ordered]

    def find(self, request: Request) -> Route:
        """Return the route of a request and note its parameters; Refused (404, 405) where there is none."""
        if self._choose is not None:
            chosen = self._choose(request, self._operations)
            if chosen is not None:
                return chosen
            raise Refused(404, "NotFound", f"rehearsed {self.name} does not know this request")
        others = set()
        for pattern, route in self._patterns:
            found = pattern.fullmatch(request.raw_path)
            if found is None:
                continue
            if route.method == request.method or (route.method == "GET" and request.method == "HEAD"):
                request.params = {name: unquote(value) for name, value in found.groupdict().items()}
                return route
            others.add(route.method)
        if others:
            allowed = ", ".join(sorted(others))
            message = f"rehearsed {self.name}: {request.path} takes {allowed}"
            raise Refused(405, "MethodNotAllowed", message, headers=(("allow", allowed),))
        raise Refused(404, "NotFound", f"rehearsed {self.name} has nothing at {request.path}")
