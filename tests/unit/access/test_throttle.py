"""How often somebody may try a password."""

from __future__ import annotations

import pytest

from access.errors import TooManyLogins
from access.throttle import ENTRIES_MAX, LoginThrottle
from runtime.addresses import network_of


def tries(throttle: LoginThrottle, account: str, address: str, *, seconds: int) -> int:
    """Attempts that were let through when one comes each second."""
    taken = 0
    for second in range(seconds):
        try:
            throttle.begin(account, address, now_s=float(second))
        except TooManyLogins:
            continue
        taken += 1
    return taken


def test_guessing_slows_down_for_an_account_wherever_it_comes_from() -> None:
    throttle = LoginThrottle()
    taken = sum(tries(throttle, "ann", f"10.0.{n // 250}.{n % 250}", seconds=1) for n in range(1_000))
    assert taken == 5
    assert 60 <= tries(LoginThrottle(), "ann", "10.0.0.1", seconds=24 * 3_600) <= 1_500


def test_guessing_slows_down_for_an_address_whoever_it_tries() -> None:
    throttle = LoginThrottle()
    taken = 0
    for second in range(3_600):
        try:
            throttle.begin(f"user{second}", "10.0.0.1", now_s=float(second))
        except TooManyLogins:
            continue
        taken += 1
    assert taken <= 5 + 9 + 3_600 // 300


def test_who_is_let_in_starts_anew() -> None:
    throttle = LoginThrottle()
    for second in range(100):
        throttle.begin("ann", "10.0.0.1", now_s=float(second))
        throttle.succeeded("ann", "10.0.0.1")


def test_places_are_networks_and_counts_are_bounded() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1")
    throttle = LoginThrottle()
    for number in range(ENTRIES_MAX):
        throttle.begin(f"a{number}", f"x{number}", now_s=0.0)
    assert len(throttle._failures) <= ENTRIES_MAX


def test_who_has_to_wait_waits_with_the_right_password_too() -> None:
    throttle = LoginThrottle()
    for _ in range(5):
        throttle.begin("ann", "10.0.0.1", now_s=0.0)
    with pytest.raises(TooManyLogins) as refused:
        throttle.begin("ann", "10.0.0.2", now_s=1.0)
    assert refused.value.retry_after_s == 4
    throttle.begin("ann", "10.0.0.2", now_s=5.0)


def test_an_attempt_that_is_taken_back_counts_for_nobody_and_clears_nothing() -> None:
    throttle = LoginThrottle()
    for _ in range(4):
        throttle.begin("ann", "10.0.0.1", now_s=0.0)
    for _ in range(20):
        throttle.begin("ann", "10.0.0.1", now_s=0.0)
        throttle.take_back("ann", "10.0.0.1")
    throttle.begin("ann", "10.0.0.1", now_s=0.0)
    with pytest.raises(TooManyLogins):
        throttle.begin("ann", "10.0.0.2", now_s=0.0)
    with pytest.raises(TooManyLogins):
        throttle.begin("bob", "10.0.0.1", now_s=0.0)
    LoginThrottle().take_back("ann", "10.0.0.1")
