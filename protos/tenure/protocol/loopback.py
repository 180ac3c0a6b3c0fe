"""Addresses that only this machine can reach: what listens there needs no protection."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach or listen in on a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
