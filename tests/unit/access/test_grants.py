"""What grants mean."""

from __future__ import annotations

import pytest

from access.errors import AccountError
from access.grants import Permission, check_grants, grant, principal_of
from schemas.scope import AUDIT_SERVICE


def test_a_grant_holds_for_its_services_and_for_nothing_else() -> None:
    ann = principal_of("user:1", "ann", ["read:shop", "read:pay/*", "write:mail"])
    assert [ann.may_read.permits(name) for name in ("shop", "shop2", "pay/a", "pay", "mail")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert ann.may_write.permits("mail")
    assert not ann.may_write.permits("shop")
    assert ann.may_tail.is_empty
    assert ann.may_admin.is_empty


def test_admin_holds_all_of_reading_and_no_writing() -> None:
    root = principal_of("user:1", "root", ["admin:pay/*"])
    for scope in (root.may_read, root.may_tail, root.may_export, root.may_alert, root.may_admin):
        assert scope.permits("pay/a")
        assert not scope.permits("shop")
    assert root.may_write.is_empty


@pytest.mark.parametrize("services", ["*", "logfeed/*", "logfeed/audit*", "l*"])
def test_the_audit_log_is_read_by_who_may_by_its_name_and_written_by_nobody(services: str) -> None:
    reader = principal_of("key:a", "", [f"read:{services}", f"write:{services}", f"admin:{services}"])
    assert not reader.may_read.permits(AUDIT_SERVICE)
    auditor = principal_of("key:b", "", [f"read:{services}", f"admin:{AUDIT_SERVICE}"])
    assert auditor.may_read.permits(AUDIT_SERVICE)
    assert not auditor.may_write.permits(AUDIT_SERVICE)
    assert not reader.may_write.permits(AUDIT_SERVICE)
    assert reader.may_write.permits("logfeed/audits")
    with pytest.raises(AccountError, match="nobody else"):
        grant(Permission.WRITE, AUDIT_SERVICE)
    by_hand = principal_of("key:a", "", [f"write:{AUDIT_SERVICE}", f"read:{AUDIT_SERVICE}"])
    assert by_hand.may_write.is_empty
    assert by_hand.may_read.is_empty
    assert by_hand.may_write.only_name is None


def test_hosts_are_registered_by_their_names_and_by_no_other_right() -> None:
    key = principal_of("key:a", "", ["host:web-*", "host:db.1", "write:nginx"])
    assert [key.may_host.permits(name) for name in ("web-1", "db.1", "db.10", "web", "nginx")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not key.may_write.permits("web-1")
    assert key.may_read.is_empty
    assert principal_of("key:b", "", ["admin:*", "write:*"]).may_host.is_empty
    assert grant(Permission.HOST, "*") == "host:*"
    for wrong in ("", "a/b", "-a", ".a", "a b", "a*b", "**", "x" * 101, "a\n"):
        with pytest.raises(AccountError, match="host"):
            grant(Permission.HOST, wrong)


def test_what_nobody_knows_grants_nothing() -> None:
    principal = principal_of("key:a", "", ["own:*", "read", "", "readx:*", "READ:*"])
    assert principal.may_read.is_empty
    assert principal.may_write.is_empty


@pytest.mark.parametrize(
    "grants", [[], ["own:*"], ["read:"], ["read:a b"], ["read:a*b"], ["read:**"], ["read:" + "x" * 101], ["read"]]
)
def test_grants_that_mean_nothing_are_refused(grants: list[str]) -> None:
    with pytest.raises(AccountError):
        check_grants(grants)


def test_the_only_service_of_a_key_is_known() -> None:
    assert principal_of("key:a", "", ["write:shop"]).may_write.only_name == "shop"
    for grants in (["write:shop*"], ["write:*"], ["write:a", "write:b"], ["read:shop"]):
        assert principal_of("key:a", "", grants).may_write.only_name is None
