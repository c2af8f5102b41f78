from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.node.errors import NodeError
from cloudtune.node.ranks import SAGEMAKER_FILE, NotReady, Place, Read, find_place


def files(content: Mapping[str, str] | None = None) -> Read:
    return dict(content or {}).get


LOCAL = {
    "CLOUDTUNE_PLACE": "local",
    "CLOUDTUNE_NODE_RANK": "1",
    "CLOUDTUNE_NUM_NODES": "2",
    "CLOUDTUNE_MAIN_ADDR": "127.0.0.2",
    "CLOUDTUNE_MAIN_PORT": "4000",
    "CLOUDTUNE_LOCAL_ADDR": "127.0.0.3",
}
OCI = {"NODE_RANK": "1", "INITIAL_CLUSTER_SIZE": "2", "CLUSTER_NODES_METADATA_FILE": "/etc/nodes.json"}


def test_a_local_node_is_told_by_its_supervisor() -> None:
    place = Place("local", 1, 2, "127.0.0.2", 4000, "127.0.0.3")
    assert find_place(LOCAL, files(), nodes=2) == place
    unnamed = {name: value for name, value in LOCAL.items() if name != "CLOUDTUNE_PLACE"}
    assert find_place(unnamed, files(), nodes=2) == place


@pytest.mark.parametrize("name", sorted(set(LOCAL) - {"CLOUDTUNE_PLACE", "CLOUDTUNE_LOCAL_ADDR"}))
def test_a_missing_local_variable_is_named(name: str) -> None:
    with pytest.raises(NodeError, match=name):
        find_place({**LOCAL, name: ""}, files(), nodes=2)


def test_a_local_variable_that_is_no_number_is_shown() -> None:
    with pytest.raises(NodeError, match="CLOUDTUNE_MAIN_PORT is 'x'"):
        find_place({**LOCAL, "CLOUDTUNE_MAIN_PORT": "x"}, files(), nodes=2)


def test_an_oci_node_reads_the_list_of_nodes() -> None:
    nodes = [{"Rank": 1, "IPAddress": "10.0.0.9"}, {"Rank": 0, "IPAddress": "10.0.0.4"}]
    place = find_place(OCI, files({"/etc/nodes.json": json.dumps(nodes)}), nodes=2)
    assert place == Place("oci", 1, 2, "10.0.0.4", local_addr="10.0.0.9")


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (None, "none"),
        ("", "none"),
        ("[{", "none"),
        ("[]", "none"),
        ('[{"Rank": 1, "IPAddress": "10.0.0.9"}]', "1"),
        ('[{"Rank": 0, "IPAddress": ""}, {"Rank": "1", "IPAddress": "10.0.0.9"}]', "1"),
    ],
)
def test_an_oci_node_waits_until_all_are_listed(text: str | None, came: str) -> None:
    content = {} if text is None else {"/etc/nodes.json": text}
    with pytest.raises(NotReady, match=f"lists the nodes {came}; still missing: 0"):
        find_place(OCI, files(content), nodes=2)


def test_an_oci_list_of_another_form_is_an_error() -> None:
    with pytest.raises(NodeError, match="must hold a list") as caught:
        find_place(OCI, files({"/etc/nodes.json": '{"nodes": 2}'}), nodes=2)
    assert not isinstance(caught.value, NotReady)


def test_an_oci_job_of_several_nodes_needs_its_list() -> None:
    with pytest.raises(NodeError, match="CLUSTER_NODES_METADATA_FILE is not set"):
        find_place({"NODE_RANK": "0", "INITIAL_CLUSTER_SIZE": "2"}, files(), nodes=2)


def test_an_oci_job_of_one_node_needs_nothing() -> None:
    assert find_place({"CLOUDTUNE_PLACE": "oci"}, files(), nodes=1) == Place("oci", 0, 1, "127.0.0.1")


@pytest.mark.parametrize(
    ("variables", "content"),
    [
        ({"CLOUDTUNE_PLACE": "oci"}, {}),
        ({}, {SAGEMAKER_FILE: '{"hosts": ["algo-1"], "current_host": "algo-1"}'}),
        ({"JOB_COMPLETION_INDEX": "0"}, {}),
    ],
)
def test_a_port_that_is_named_is_taken_also_where_one_node_is_alone(
    variables: dict[str, str], content: dict[str, str]
) -> None:
    assert find_place({**variables, "CLOUDTUNE_MAIN_PORT": "4000"}, files(content), nodes=1).main_port == 4000


def test_sagemaker_ranks_are_indices_among_hosts_sorted_as_text() -> None:
    hosts = [f"algo-{number}" for number in range(1, 13)]
    ranks = {}
    for host in hosts:
        config = json.dumps({"current_host": host, "hosts": hosts, "network_interface_name": "eth0"})
        place = find_place({}, files({SAGEMAKER_FILE: config}), nodes=12)
        assert (place.name, place.main_addr, place.local_addr, place.interface) == ("sagemaker", "algo-1", host, "eth0")
        ranks[host] = place.node_rank
    assert (ranks["algo-1"], ranks["algo-10"], ranks["algo-2"]) == (0, 1, 4)
    assert sorted(ranks.values()) == list(range(12))


@given(st.permutations([f"algo-{number}" for number in range(1, 15)]))
def test_sagemaker_ranks_do_not_depend_on_the_order_of_the_list(hosts: list[str]) -> None:
    config = json.dumps({"current_host": "algo-2", "hosts": hosts})
    assert find_place({}, files({SAGEMAKER_FILE: config}), nodes=14).node_rank == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "no hosts and current_host"),
        ("[]", "no hosts and current_host"),
        ('{"hosts": ["algo-1"]}', "no hosts and current_host"),
        ('{"hosts": ["algo-1"], "current_host": "algo-7"}', "none of its hosts"),
    ],
)
def test_a_broken_sagemaker_file_says_what_is_wrong(config: str, message: str) -> None:
    with pytest.raises(NodeError, match=message):
        find_place({}, files({SAGEMAKER_FILE: config}), nodes=1)


def test_a_missing_sagemaker_file_is_named() -> None:
    with pytest.raises(NodeError, match=r"resourceconfig\.json is missing"):
        find_place({"CLOUDTUNE_PLACE": "sagemaker"}, files(), nodes=1)


def test_an_indexed_job_has_a_headless_service() -> None:
    variables = {"JOB_COMPLETION_INDEX": "2", "CLOUDTUNE_JOB_NAME": "tune", "CLOUDTUNE_SERVICE": "tune-nodes"}
    place = find_place(variables, files(), nodes=4)
    assert place == Place("kubernetes", 2, 4, "tune-0.tune-nodes", 29500, "tune-2.tune-nodes")


def test_a_train_job_injects_pet_variables() -> None:
    variables = {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "tune-node-0-0.tune",
        "PET_MASTER_PORT": "29500",
        "JOB_COMPLETION_INDEX": "1",
    }
    assert find_place(variables, files(), nodes=2) == Place("kubernetes", 1, 2, "tune-node-0-0.tune", 29500)


def test_the_rank_of_a_pytorch_job_is_the_nodes() -> None:
    variables = {"PET_NNODES": "3", "RANK": "2", "MASTER_ADDR": "tune-master-0", "MASTER_PORT": "23456"}
    assert find_place(variables, files(), nodes=3) == Place("kubernetes", 2, 3, "tune-master-0", 23456)


def test_an_elastic_pytorch_job_is_read_from_its_endpoint_and_names() -> None:
    variables = {"PET_NNODES": "1:4", "PET_RDZV_ENDPOINT": "tune-worker-0:23456", "HOSTNAME": "tune-worker-3"}
    assert find_place(variables, files(), nodes=4) == Place("kubernetes", 3, 4, "tune-worker-0", 23456)


def test_a_pytorch_job_of_workers_alone_cannot_form() -> None:
    with pytest.raises(NodeError, match="needs an elasticPolicy"):
        find_place({"PET_NNODES": "2"}, files(), nodes=2)


def test_a_pod_that_does_not_know_node_0_says_what_to_set() -> None:
    with pytest.raises(NodeError, match="CLOUDTUNE_JOB_NAME and CLOUDTUNE_SERVICE"):
        find_place({"JOB_COMPLETION_INDEX": "1"}, files(), nodes=2)


def test_one_node_can_be_anywhere_but_several_must_be_told() -> None:
    assert find_place({}, files(), nodes=1) == Place("single", 0, 1, "127.0.0.1")
    with pytest.raises(NodeError, match="one of 2 nodes, but nothing here says which"):
        find_place({}, files(), nodes=2)


def test_the_place_must_agree_with_the_order() -> None:
    with pytest.raises(NodeError, match="the order is for 3 nodes, but local started 2"):
        find_place(LOCAL, files(), nodes=3)
    with pytest.raises(NodeError, match="local calls this node 5"):
        find_place({**LOCAL, "CLOUDTUNE_NODE_RANK": "5"}, files(), nodes=2)


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(NodeError, match="'moon'; it must be one of local, oci, sagemaker, kubernetes"):
        find_place({"CLOUDTUNE_PLACE": "moon"}, files())
