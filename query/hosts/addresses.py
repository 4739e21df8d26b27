"""Where agents may be: pure.

Who may register a host names an address that this server then asks. So it is never more than scheme, host and port, and what a
host's name means is judged at each connection, on the very address that is connected to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from runtime.outgoing import Address, Network, bare, check_url
from search.params import ParameterError

_NEVER: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this machine, for Linux
            "169.254.0.0/16",  # link-local: AWS, Azure, Google, Oracle, OpenStack
            "fe80::/10",
            "fd00:ec2::/32",  # AWS
            "fd20:ce::/32",  # Google
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.0/24",  # Oracle's older one among it
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/128",
            "ff00::/8",
        ),
    )
)
"""No agent is there, whatever the settings say: metadata services give their host's rights to whoever asks from it."""


def is_permitted(address: Address, networks: Sequence[Network]) -> bool:
    """Whether an agent may be there."""
    address = bare(address)
    return not any(address in network for network in _NEVER) and any(address in network for network in networks)


def read_address(text: str, networks: Sequence[Network]) -> str:
    """`scheme://host:port` as an agent registers it, in one spelling. What a name means is not asked here. Raises
    ParameterError."""
    try:
        check_url(text)
    except ValueError as error:
        raise ParameterError("address", str(error)) from error
    parts = urlsplit(text)
    if parts.path not in ("", "/") or parts.query or "?" in text or "#" in text:
        raise ParameterError("address", "expected scheme, host and port alone, such as http://10.0.0.5:8085")
    host = (parts.hostname or "").lower()
    if not host.isascii():
        raise ParameterError("address", "expected a host's name in ASCII letters")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        shown = host
    else:
        if not is_permitted(literal, networks):
            raise ParameterError("address", f"{literal} is not in the networks of agents (hosts.networks)")
        shown = f"[{literal}]" if literal.version == 6 else str(literal)
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port else "")
