"""What counts as one place on the network."""

from __future__ import annotations

import ipaddress


def network_of(address: str) -> str:
    """What counts as one place: an IPv4 address, the /64 of an IPv6 address, any other text as it is."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
