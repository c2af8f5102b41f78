"""Subnets and security groups of a job on SageMaker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudtune.diagnosis.aws_questions import AwsQuestions
from cloudtune.diagnosis.aws_wanted import Wanted, settled
from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.questions import Question

#: What stands for every protocol in a rule.
_ALL = "-1"


def network(wanted: Wanted, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for subnets with room, and for groups of the same network whose nodes reach each other."""
    place = wanted.place
    subnets = [one for one in place.subnet_ids if settled(one)]
    groups = [one for one in place.security_group_ids if settled(one)]
    if not questions.first_time("network", *subnets, *groups):
        return
    networks: set[str] = set()
    if subnets:
        about, where = f"subnets {', '.join(subnets)}", wanted.at("subnetIds")
        question = _question("describe_subnets", {"SubnetIds": subnets}, about, where)
        rows = questions.ask(question).get("Subnets", ())
        networks |= {str(row.get("VpcId")) for row in rows}
        yield _room(question, rows, wanted.nodes)
    if groups:
        about, where = f"security groups {', '.join(groups)}", wanted.at("securityGroupIds")
        question = _question("describe_security_groups", {"GroupIds": groups}, about, where)
        rows = questions.ask(question).get("SecurityGroups", ())
        networks |= {str(row.get("VpcId")) for row in rows}
        yield _doors(question, rows, wanted.nodes)
        if len(networks) > 1:
            message = f"subnets and security groups are of {len(networks)} networks: {', '.join(sorted(networks))}"
            yield question.finding("problem", message, "take those of one")


def _question(operation: str, parameters: Mapping[str, Any], about: str, where: str) -> Question:
    return Question(
        service="aws.ec2", operation=operation, parameters=parameters, check="network", about=about, where=where
    )


def _room(question: Question, rows: Sequence[Mapping[str, Any]], nodes: int) -> Finding:
    free = sum(int(row.get("AvailableIpAddressCount", 0)) for row in rows)
    if free < nodes:
        return question.finding(
            "problem", f"{question.about} have {free} free addresses for {nodes} nodes", "take more"
        )
    return question.finding("ok", f"{question.about} exist, with {free} free addresses")


def _doors(question: Question, rows: Sequence[Mapping[str, Any]], nodes: int) -> Finding:
    """Look whether nodes may reach each other on all ports: torchrun, NCCL and Neuron choose theirs."""
    ours = {str(row.get("GroupId")) for row in rows}
    if nodes == 1 or any(lets_in(rule, ours) for row in rows for rule in row.get("IpPermissions", ())):
        reached = "" if nodes == 1 else "; nodes reach each other on all ports"
        return question.finding("ok", f"{question.about} exist{reached}")
    hint = "add an inbound rule: all traffic from the group itself; with EFA the same outbound"
    return question.finding("problem", f"{question.about} do not let nodes reach each other on all ports", hint)


def lets_in(rule: Mapping[str, Any], groups: set[str]) -> bool:
    """Whether a rule lets everything in from one of the groups."""
    pairs = {str(pair.get("GroupId")) for pair in rule.get("UserIdGroupPairs", ())}
    wide = rule.get("IpProtocol") == _ALL or (
        rule.get("IpProtocol") == "tcp" and rule.get("FromPort") == 0 and rule.get("ToPort") == 65535
    )
    return wide and bool(pairs & groups)
