"""A read of one thing or of several alike, as the clients of AWS and Kubernetes carry it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from cloudtune.plan import Call

Reply = Mapping[str, Any]
#: Requests that are under way at a time, of those that are sent together.
_TOGETHER = 8


def read(call: Call, look: Callable[[Call], Reply], now_s: Callable[[], float]) -> Reply:
    """Return what ``look`` says, with the call's ``cursor`` again and ``readAt``: when it was, by the service's clock.

    Where the call has ``each``, a list of further parameters, it is carried out with each of them, and the replies are
    ``replies``, in order.
    """
    each = call.parameters.get("each")
    if each is None:
        reply = look(call)
    else:
        own = {name: value for name, value in call.parameters.items() if name not in {"each", "cursor"}}
        calls = [attrs.evolve(call, parameters={**own, **more}) for more in each]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            reply = {"replies": [dict(one) for one in pool.map(look, calls)]}
    cursor = {"cursor": call.parameters["cursor"]} if "cursor" in call.parameters else {}
    return {**reply, **cursor, "readAt": now_s()}
