"""The variables of a container: written, from ConfigMaps and Secrets, from its pod, and ``$(NAME)`` in what is written.

Source: the API reference of ``core/v1`` ``Container`` (``env``, ``envFrom``, ``command``).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING
from typing import Any

from cloudtune.rehearsal.kubernetes.quantities import quantity, requests_of

Object = Mapping[str, Any]
#: Finds an object of the pod's namespace by kind and name; None where there is none.
Find = Callable[[str, str], "Object | None"]

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_BY_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class Unconfigured(Exception):
    """A container cannot be made: what it refers to is not there; the text is the kubelet's."""


def data_of(thing: Object) -> dict[str, bytes]:
    """Return the contents of a ConfigMap or Secret."""
    if thing.get("kind") == "Secret":
        given = {name: base64.b64decode(text) for name, text in (thing.get("data") or {}).items()}
        return given | {name: text.encode() for name, text in (thing.get("stringData") or {}).items()}
    plain = {name: text.encode() for name, text in (thing.get("data") or {}).items()}
    return plain | {name: base64.b64decode(text) for name, text in (thing.get("binaryData") or {}).items()}


def variables(pod: Object, container: Object, find: Find, *, given: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the variables of a container; ``given`` are those that it has of its surroundings.

    Raises:
        Unconfigured: it refers to what is not there.
    """
    found = dict(given)
    for source in container.get("envFrom") or ():
        for kind, words in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if words in source:
                data = _data(kind, source[words], find)
                names = ((source.get("prefix") or "") + name for name in data)
                found |= dict(zip(names, (value.decode(errors="replace") for value in data.values()), strict=True))
    found = {name: value for name, value in found.items() if _NAME.fullmatch(name)}
    for variable in container.get("env") or ():
        name = variable["name"]
        if "valueFrom" not in variable or variable["valueFrom"] is None:
            found[name] = expanded(variable.get("value") or "", found)
            continue
        value = _value(pod, container, variable["valueFrom"], find)
        if value is not None:
            found[name] = value
    return found


def expanded(text: str, known: Mapping[str, str]) -> str:
    """Return a text with ``$(NAME)`` replaced as far as the name is known; ``$$`` is one dollar sign.

    >>> expanded("$(A)/$(B) $$(A)", {"A": "1"})
    '1/$(B) $(A)'
    """

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[1] is None else known.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)


def command_of(container: Object, known: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a container runs, as far as its pod says so."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return tuple(expanded(str(word), known) for word in words)


def field_of(pod: Object, path: str) -> str:
    """Return a field of the pod as the downward API gives it; Unconfigured for one that it does not give."""
    by_key = _BY_KEY.fullmatch(path)
    if by_key is not None:
        return str((pod["metadata"].get(by_key[1]) or {}).get(by_key[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        rows = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f'{name}="{_escaped(str(value))}"' for name, value in sorted(rows.items()))
    spec, status = pod.get("spec", {}), pod.get("status", {})
    plain = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"].get("namespace", ""),
        "metadata.uid": pod["metadata"].get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
    }
    if path not in plain:
        raise Unconfigured(f"unsupported fieldPath: {path}")
    return str(plain[path])


def resource_of(pod: Object, container: Object, ref: Mapping[str, Any]) -> str:
    """Return what a container asks for or may have, in the unit of the reference."""
    name = ref.get("containerName") or container.get("name")
    whose = next((one for one in pod["spec"]["containers"] if one["name"] == name), container)
    kind, _, resource = str(ref["resource"]).partition(".")
    resources = whose.get("resources") or {}
    rows = (
        requests_of(whose)
        if kind == "requests"
        else {each: quantity(value) for each, value in (resources.get("limits") or {}).items()}
    )
    divisor = quantity(ref.get("divisor") or 1) or quantity(1)
    return str(int((rows.get(resource, quantity(0)) / divisor).to_integral_value(rounding=ROUND_CEILING)))


def _value(pod: Object, container: Object, source: Mapping[str, Any], find: Find) -> str | None:
    """Return a variable's value, None for an optional one that is not there."""
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_of(pod, container, source["resourceFieldRef"])
    for kind, words in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if words in source:
            ref = source[words]
            data = _data(kind, ref, find)
            if ref["key"] in data:
                return data[ref["key"]].decode(errors="replace")
            if ref.get("optional"):
                return None
            what = f"{pod['metadata'].get('namespace', '')}/{ref['name']}"
            raise Unconfigured(f"couldn't find key {ref['key']} in {kind} {what}")
    raise Unconfigured(f"unsupported source of a variable: {', '.join(source)}")


def _data(kind: str, ref: Mapping[str, Any], find: Find) -> dict[str, bytes]:
    thing = find(kind, ref["name"])
    if thing is None:
        if ref.get("optional"):
            return {}
        raise Unconfigured(f'{kind.lower()} "{ref["name"]}" not found')
    return data_of(thing)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
