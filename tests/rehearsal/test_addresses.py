"""Addresses of nodes and ports of jobs: what one has, no other gets."""

from __future__ import annotations

import socket

from cloudtune.rehearsal.addresses import Addresses


def test_no_address_is_handed_out_twice() -> None:
    addresses = Addresses()
    taken = [address for _ in range(3) for address in addresses.take(200)]
    assert len(set(taken)) == len(taken)
    assert all(address.startswith("127.") for address in taken)


def test_a_job_gets_a_port_that_is_free_on_every_address_and_so_is_the_next() -> None:
    addresses = Addresses()
    ports = [addresses.take_port() for _ in range(20)]
    assert len(set(ports)) == 20
    for port in (ports[0], ports[0] + 1):
        with socket.create_server(("", port)):
            pass


def test_a_port_of_which_the_next_one_is_taken_is_left_alone(monkeypatch) -> None:
    first, second = Addresses().take_port(), Addresses().take_port()
    monkeypatch.setattr("cloudtune.rehearsal.addresses._PORTS", (first, second))
    monkeypatch.setattr("cloudtune.rehearsal.addresses._TRIES", 2)
    with socket.create_server(("127.0.0.1", first + 1)):
        assert Addresses().take_port() == second
