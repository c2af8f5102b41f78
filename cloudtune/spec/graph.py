"""What comes before what: a stable topological order, without recursion."""

import heapq
from collections.abc import Iterable, Mapping


def sort(needs: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return the names so that each stands after what it needs, and one circle if there is any.

    Among names that are ready the one declared first comes first. Names in a circle, and names that need one, are
    left out of the order; the circle reads ``a, b, c`` where a needs b, b needs c and c needs a. Needs that are no
    names of the mapping are ignored.
    """
    place = {name: index for index, name in enumerate(needs)}
    waiting = {name: {need for need in wanted if need in place} for name, wanted in needs.items()}
    followers: dict[str, list[str]] = {name: [] for name in place}
    for name, wanted in waiting.items():
        for need in wanted:
            followers[need].append(name)
    names = list(place)
    ready = [place[name] for name in names if not waiting[name]]
    heapq.heapify(ready)
    order = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for follower in followers[name]:
            waiting[follower].discard(name)
            if not waiting[follower]:
                heapq.heappush(ready, place[follower])
    return order, _circle({name: wanted for name, wanted in waiting.items() if wanted}, place)


def _circle(waiting: Mapping[str, set[str]], place: Mapping[str, int]) -> list[str]:
    """Follow the needs of what is left over until a name comes round again."""
    walk: dict[str, int] = {}
    name = next(iter(waiting), None)
    while name is not None and name not in walk:
        walk[name] = len(walk)
        name = min((need for need in waiting[name] if need in waiting), key=place.__getitem__)
    return list(walk)[walk[name] :] if name is not None else []
