"""What the OpenAPI document says of credentials: one scheme, on every operation that wants them."""

from __future__ import annotations

from typing import Any, Final

SCHEME_NAME: Final = "bearer"
SECURITY: Final[list[dict[str, list[str]]]] = [{SCHEME_NAME: []}]
"""Of an operation that wants credentials."""
SCHEMES: Final[dict[str, Any]] = {
    SCHEME_NAME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`lf_…`, from `logfeed keys create`), or the access token of `/api/v1/auth/login`.",
    }
}
