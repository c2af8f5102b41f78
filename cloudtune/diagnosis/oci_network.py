"""The subnet of a job: it exists, has room for the nodes, lets them reach each other, and leads out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.oci_resources import elsewhere, standing
from cloudtune.diagnosis.oci_wanted import Wanted
from cloudtune.diagnosis.questions import Question, Questions, Refused

#: Addresses of a subnet that the network keeps for itself: the first two and the last.
_KEPT = 3
_TCP = "6"


def subnet(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look at the subnet, its security lists and its routes."""
    ocid, where = wanted.place.subnet_id, wanted.at("subnetId")
    if not ocid:
        if wanted.nodes > 1:
            message = f"{wanted.nodes} nodes without a subnet reach each other by the service's own network"
            yield Finding(check="network", status="ok", message=message)
        return
    if not questions.first_time("subnet", ocid, str(wanted.nodes)):
        return
    question = _question("get_subnet", {"subnetId": ocid}, f"subnet {ocid}", where)
    reply = questions.ask(question)
    name, cidr = f"subnet {reply.get('displayName', ocid)}", str(reply.get("cidrBlock") or "")
    yield standing(question, reply, f"{name} ({cidr or 'no IPv4 addresses'})")
    yield from _room(question, name, cidr, wanted.nodes)
    yield from elsewhere(question, reply, wanted, "the subnet")
    looks = (partial(_doors, cidr=cidr), _ways) if wanted.nodes > 1 else (_ways,)
    for look in looks:
        try:
            yield look(questions, reply, name, where)
        except Refused as refused:
            yield refused.finding


def _question(
    operation: str, parameters: Mapping[str, Any], about: str, where: str, *, needed: bool = True
) -> Question:
    return Question(
        service="oci.core",
        operation=operation,
        parameters=parameters,
        check="network",
        about=about,
        where=where,
        needed=needed,
    )


def _room(question: Question, name: str, cidr: str, nodes: int) -> Iterator[Finding]:
    try:
        size = ipaddress.ip_network(cidr).num_addresses - _KEPT
    except ValueError:
        return
    if size < nodes:
        message = f"{name} has {max(size, 0)} addresses, and the job has {nodes} nodes"
        yield question.finding("problem", message, "take a larger subnet")


def _doors(questions: Questions, reply: Mapping[str, Any], name: str, where: str, *, cidr: str) -> Finding:
    """Look whether nodes may reach each other on all ports: torchrun, NCCL and Gloo choose theirs."""
    about = f"the security lists of {name}"
    question = _question("get_security_list", {}, about, where, needed=False)
    for ocid in reply.get("securityListIds", ()):
        question = _question("get_security_list", {"securityListId": ocid}, about, where, needed=False)
        rules = questions.ask(question).get("ingressSecurityRules", ())
        if any(_lets_all_in(rule, cidr) for rule in rules):
            return question.finding("ok", f"nodes in {name} reach each other on all ports")
    hint = f"add an ingress rule: all protocols from {cidr or 'the subnet'}; without it the nodes wait for each other"
    message = f"no security list of {name} lets its nodes reach each other on all ports"
    return question.finding("problem", message, hint)


def _lets_all_in(rule: Mapping[str, Any], cidr: str) -> bool:
    """Whether an ingress rule takes everything, or every TCP port, from the whole subnet."""
    if rule.get("protocol") != "all" and (rule.get("protocol") != _TCP or rule.get("tcpOptions")):
        return False
    try:
        source = ipaddress.IPv4Network(str(rule.get("source")), strict=False)
        return ipaddress.IPv4Network(cidr).subnet_of(source)
    except ValueError:
        return False


def _ways(questions: Questions, reply: Mapping[str, Any], name: str, where: str) -> Finding:
    """Look whether something leads out: code, models and packages come from there."""
    about = f"the route table of {name}"
    question = _question("get_route_table", {"rtId": reply.get("routeTableId")}, about, where, needed=False)
    rules = questions.ask(question).get("routeRules", ())
    if any("0.0.0.0/0" in {rule.get("destination"), rule.get("cidrBlock")} for rule in rules):
        return question.finding("ok", f"{name} leads to the internet")
    hint = "add a NAT gateway and a route to it, or have code, models and packages in the bucket and a service gateway"
    return question.finding("warning", f"{name} leads neither to GitHub nor to the model hub nor to pip", hint)
