"""The merged OpenAPI document, made without starting anything: `python -m cli.openapi FILE` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from access.authenticator import AccessControl
from broker.factory import make_broker
from cli.http_app import build_app
from cli.http_role import http_services
from cli.settings import Settings
from cli.unread import UnreadRecords
from db.database import Database
from runtime.clock import SystemClock


def document() -> dict[str, Any]:
    """The document as `/openapi.json` serves it, whatever the environment sets."""
    settings = Settings()
    database = Database("postgresql://nowhere", application_name="openapi")
    broker = make_broker(settings.broker, database)
    unread = UnreadRecords(settings.broker, database)
    access = AccessControl(settings.access, database, SystemClock())
    services = http_services(settings, broker, database, unread, access, None, ingest=True, query=True)
    return build_app(list(services.values())).openapi()


def render() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
