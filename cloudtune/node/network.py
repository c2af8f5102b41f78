"""Which network interface of this node has an address (Linux)."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys

_SIOCGIFADDR = 0x8915


def loopback_interface() -> str:
    """Return the name of the loopback interface."""
    return "lo" if sys.platform == "linux" else "lo0"


def interface_of(address: str) -> str | None:
    """Return the interface that has an IPv4 address, None if no interface has it or the system does not tell."""
    if address.startswith("127."):
        return loopback_interface()
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
