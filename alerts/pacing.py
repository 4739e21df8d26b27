"""From settings to how often is told: for the role, and for those who try a rule without its channels."""

from __future__ import annotations

from alerts.breaker import BreakerLimits
from alerts.notify import Pace
from alerts.settings import AlertSettings


def pace_of(settings: AlertSettings) -> Pace:
    """How often is told."""
    return Pace(
        group_wait_s=settings.group_wait,
        group_interval_s=settings.group_interval,
        repeat_interval_s=settings.repeat_interval,
        breaker=BreakerLimits(
            notifications_max=settings.breaker_notifications_max,
            window_s=settings.breaker_window,
            cool_down_s=settings.breaker_cool_down,
        ),
    )
