"""Where agents may be: in the networks of the settings, and never where a cloud gives its rights away."""

from __future__ import annotations

import ipaddress

import pytest

from query.hosts.addresses import is_permitted, read_address
from query.hosts.settings import HostSettings
from search.params import ParameterError

PRIVATE = tuple(map(ipaddress.ip_network, HostSettings().networks))
ANYWHERE = tuple(map(ipaddress.ip_network, ("0.0.0.0/0", "::/0")))


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "172.31.0.1", "192.168.1.1", "127.0.0.1", "::1", "fd12::5", "::ffff:10.0.0.5"]
)
def test_private_addresses_and_loopback_are_permitted_by_default(address: str) -> None:
    assert is_permitted(ipaddress.ip_address(address), PRIVATE)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "100.64.0.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_others_are_permitted_where_the_settings_name_them(address: str) -> None:
    assert not is_permitted(ipaddress.ip_address(address), PRIVATE)
    assert is_permitted(ipaddress.ip_address(address), ANYWHERE)


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
        *("fe80::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"),
    ],
)
def test_metadata_services_and_what_is_no_host_are_never_permitted(address: str) -> None:
    for networks in (PRIVATE, ANYWHERE, (ipaddress.ip_network("169.254.0.0/16"), *ANYWHERE)):
        assert not is_permitted(ipaddress.ip_address(address), networks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.5:8085", "http://10.0.0.5:8085"),
        ("https://Web-1.example:8085/", "https://web-1.example:8085"),
        ("http://web-1", "http://web-1"),
        ("http://[FD12::5]:80", "http://[fd12::5]:80"),
    ],
)
def test_an_address_is_scheme_host_and_port_in_one_spelling(text: str, expected: str) -> None:
    assert read_address(text, PRIVATE) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ftp://10.0.0.5",
            "10.0.0.5:8085",
            "http://",
            "http://u:p@10.0.0.5",
            "http://u@10.0.0.5",
            "http://10.0.0.5/x",
        ),
        *("http://10.0.0.5/?", "http://10.0.0.5?a=b", "http://10.0.0.5#f", "http://10.0.0.5 /", "http://10.0.0.5\n/"),
        *("http://[fe80::1%25eth0]", "http://169.254.169.254", "http://1.1.1.1", "http://[::ffff:169.254.169.254]"),
        *("http://10.0.0.5:0", "http://10.0.0.5:99999", "http://hôte", "file:///etc/passwd", "http:///x", ""),
    ],
)
def test_what_an_agent_cannot_be_at_is_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        read_address(text, PRIVATE)
