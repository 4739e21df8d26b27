"""Who may what, as one part of the roles that need it."""

from __future__ import annotations

import structlog

from access.authenticator import AccessControl
from cli.settings import Settings
from db.database import Database
from runtime.clock import SystemClock

log = structlog.get_logger(__name__)


def access_control(settings: Settings, database: Database) -> AccessControl | None:
    """What decides who may what, not opened; None, loudly, where that is switched off. Raises ConfigurationError."""
    if settings.access.enabled:
        return AccessControl(settings.access, database, SystemClock(), public_url=settings.http.public_url)
    log.warning("ACCESS CONTROL IS OFF: everyone on this machine may read and write every log", host=settings.http.host)
    return None
