"""The web page: built files that are served as they are, to everybody, beside the query API.

The page asks the API like any other client, so nothing here knows a principal. Its paths answer with the one document, so
that an address that somebody kept or reloads is found; what is not its path is still the API's "no such path". Files under
`/assets/` bear a hash of their content in their name: browsers keep them for ever. The document is asked for again each time,
and names the files of its build.

The files are made by `make web` (web/dist) and are part of a wheel that was built where npm is. Without them the page's
paths say so, and the API is as always. They are read once, when they are first asked for; a page that was built anew is
served after a restart.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

PATHS: Final = ("/", "/login", "/experiments", "/connections", "/alerts", "/status", "/settings")
"""Of the page's views; each may have more behind a slash, but for the first two."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; worker-src 'self';"
    " manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: its own files and this server's API, nothing in place."""
NOTICE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Logfeed</title>
<h1>Logfeed runs; its page was not built</h1>
<p>The API works, and is documented at <a href="/docs">/docs</a>. The page needs Node.js 20 and npm once, where Logfeed is
installed from its sources: <code>make web</code>, then start again.</p>
</html>
"""
_DIRECTORIES: Final = (
    Path(__file__).resolve().parent / "page_files",  # of an installed wheel
    Path(__file__).resolve().parent.parent / "web" / "dist",  # of a checkout
)
_DOCUMENT: Final = "index.html"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
_GZIP_SUFFIX: Final = ".gz"


def page_directory() -> Path | None:
    """Where the built page lies; None when there is none."""
    return next((directory for directory in _DIRECTORIES if (directory / _DOCUMENT).is_file()), None)


class WebPage:
    """Routes of the page, for one HTTP application. Never a reason not to be ready."""

    def __init__(self, directory: Path | None) -> None:
        """directory: of the built page; None: a notice in its place. Nothing else in it than what is public."""
        self._directory = directory
        self.router = APIRouter(include_in_schema=False)
        for path in PATHS:
            self.router.add_api_route(path, self._document, methods=["GET"])
            if path not in PATHS[:2]:
                self.router.add_api_route(f"{path}/{{rest:path}}", self._document, methods=["GET"])
        for name in self._names:
            kept = _FOR_EVER if name.startswith("assets/") else _ASK_AGAIN
            self.router.add_api_route(f"/{name}", self._file(name, kept), methods=["GET"])

    def ready(self) -> list[str]:
        """See HttpService."""
        return []

    async def _document(self, request: Request) -> Response:
        if self._directory is None:
            return Response(NOTICE, media_type="text/html", headers={"Content-Security-Policy": POLICY})
        return self._answer(_DOCUMENT, request, _ASK_AGAIN)

    def _file(self, name: str, kept: str) -> Callable[[Request], Awaitable[Response]]:
        async def file(request: Request) -> Response:
            return self._answer(name, request, kept)

        return file

    def _answer(self, name: str, request: Request, kept: str) -> Response:
        headers = {"Cache-Control": kept, "Content-Security-Policy": POLICY}
        body = self._files[name]
        if (compressed := self._files.get(name + _GZIP_SUFFIX)) is not None:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("accept-encoding", ""):
                body, headers["Content-Encoding"] = compressed, "gzip"
        return Response(body, media_type=_media_type(name), headers=headers)

    @cached_property
    def _names(self) -> list[str]:
        """Of files with a path of their own."""
        if self._directory is None:
            return []
        files = (path for path in self._directory.rglob("*") if path.is_file())
        names = (path.relative_to(self._directory).as_posix() for path in files)
        return sorted(name for name in names if not name.startswith(".") and _is_public(name))

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        """All files by name, the compressed ones as well: some hundred kilobytes."""
        assert self._directory is not None
        found = {name: (self._directory / name).read_bytes() for name in [_DOCUMENT, *self._names]}
        for name in list(found):
            compressed = self._directory / (name + _GZIP_SUFFIX)
            if compressed.is_file():
                found[name + _GZIP_SUFFIX] = compressed.read_bytes()
        return found


def _is_public(name: str) -> bool:
    return name != _DOCUMENT and not name.endswith((_GZIP_SUFFIX, ".map"))


def _media_type(name: str) -> str:
    # Not what this machine's own table says of .js.
    known = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    return known.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
