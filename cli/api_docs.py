"""The page at /docs that shows the API and tries it: Swagger UI, from a package (fastapi-swagger), never from elsewhere.

The page is made once, with paths and no host, so that it works below any name and proxy that keeps paths. Its policy lets
it run its two scripts alone: the package's, and the few lines that start it, named by their hash. Keys that are typed into
it are gone with the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Final

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import RedirectResponse

PAGE_PATH: Final = "/docs"
_PACKAGE: Final = "fastapi_swagger.resources"
_ASSETS: Final = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_KEPT: Final = {"Cache-Control": "public, max-age=3600"}
_PARAMETERS: Final = {
    "tryItOutEnabled": True,
    "persistAuthorization": False,
    "filter": True,
    "displayRequestDuration": True,
    "validatorUrl": None,
}
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def docs_router(title: str) -> APIRouter:
    """The page and its files. title: of the page."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url="/swagger/swagger-ui-bundle.js",
        swagger_css_url="/swagger/swagger-ui.css",
        swagger_favicon_url="/swagger/favicon-32x32.png",
        swagger_ui_parameters=dict(_PARAMETERS),
    ).body
    policy = {"Content-Security-Policy": _policy(bytes(page).decode())}
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def docs_are_elsewhere() -> Response:
        return RedirectResponse(PAGE_PATH)

    @router.get(PAGE_PATH)
    async def docs_page() -> Response:
        return Response(page, media_type="text/html", headers=policy)

    for name, media_type in _ASSETS.items():
        _add_asset(router, name, media_type)
    return router


def _policy(page: str) -> str:
    """Swagger UI styles elements in place and has images in its style sheet."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in _INLINE_SCRIPT.findall(page))
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_asset(router: APIRouter, name: str, media_type: str) -> None:
    async def asset() -> Response:
        return Response((resources.files(_PACKAGE) / name).read_bytes(), media_type=media_type, headers=_KEPT)

    router.add_api_route(f"/swagger/{name}", asset, methods=["GET"])


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
