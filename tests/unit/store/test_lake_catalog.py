"""The database's address, as SQLAlchemy has it."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from store.lake.catalog import _catalog_url


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            "postgresql://u:p%40@h1:1,h2:2/d?target_session_attrs=read-write",
            ("u", "p@", "h1,h2", "1,2", "d", "read-write"),
        ),
        ("postgresql://u:p@h1:1,h2:2/d", ("u", "p", "h1,h2", "1,2", "d", None)),
        ("postgresql://u:p@h1:1/d?target_session_attrs=any", ("u", "p", "h1", 1, "d", "any")),
    ],
)
def test_an_address_of_several_servers_stays_one(address: str, expected: tuple[object, ...]) -> None:
    url = make_url(_catalog_url(address, "lake"))
    _, options = url.get_dialect()().create_connect_args(url)
    names = ("user", "password", "host", "port", "dbname", "target_session_attrs")
    assert tuple(options.get(name) for name in names) == expected
    assert options["options"] == "-csearch_path=lake -ctimezone=UTC"
