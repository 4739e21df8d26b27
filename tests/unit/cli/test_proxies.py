"""Whose word about where a request comes from is believed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cli.settings import HttpSettings


@pytest.mark.parametrize(
    ("proxies", "is_everybody"),
    [
        ((), False),
        (("10.0.0.1", "2001:db8::/32"), False),
        (("*",), True),
        (("10.0.0.1", "0.0.0.0/0"), True),
        (("::/0",), True),
    ],
)
def test_it_is_known_whether_anybody_is_believed(proxies: tuple[str, ...], is_everybody: bool) -> None:
    assert HttpSettings(trusted_proxies=proxies).believes_everybody == is_everybody


@pytest.mark.parametrize("text", ["proxy.example.org", "10.0.0.1/8", "10.0.0", ""])
def test_what_names_no_address_is_refused_rather_than_believed_in_vain(text: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        HttpSettings(trusted_proxies=(text,))
