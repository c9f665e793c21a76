"""A process that asks nobody beyond this machine."""

import ipaddress
import socket

_connect = socket.socket.connect


def refuse(self, address):
    """In place of `socket.connect`: an error for what is neither a local socket nor this machine."""
    loopback = isinstance(address, tuple) and ipaddress.ip_address(address[0]).is_loopback
    if self.family != socket.AF_UNIX and not loopback:
        raise AssertionError(f"the network was asked: {address}")
    return _connect(self, address)


def forbid() -> None:
    """For the rest of this process."""
    socket.socket.connect = refuse
