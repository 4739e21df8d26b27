"""Asks one OpenID provider: what it says of itself (Discovery 1.0), its keys (RFC 7517), an ID token for a code (RFC 6749).

Its address comes from the settings, all others from its own document; each must be https, or http on this machine where the
issuer is. Redirects are not followed, answers are bounded in time and bytes, and compressed ones refused. Document and keys are
kept for DOCUMENT_S and KEYS_S; keys are read again for a key id that is not among them, once, and no more often than every
KEYS_AGAIN_S. A provider that did not answer is not asked again for AWAY_S, so that who waits for it does not do so in turn.

HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE of the environment are in force. Concurrency: one event loop; one question for document
or keys at a time, for which all others wait.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import structlog

from access.errors import ProviderFaulty, ProviderUnavailable, Unauthenticated
from access.oidc.addresses import checked_address
from access.oidc.attempts import Attempt
from access.oidc.id_tokens import PublicKey, UnknownKey, public_keys, read_id_token
from access.oidc.settings import OidcSettings, client_secret
from runtime.addresses import is_loopback
from runtime.clock import Clock
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

DOCUMENT_S: Final = 3_600.0
KEYS_S: Final = 3_600.0
KEYS_AGAIN_S: Final = 30.0
AWAY_S: Final = 2.0
ANSWER_S_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 512 * 1024

_RETRY_AFTER_S: Final = 5
ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")
"""Of OAuth 2.0: what may be shown of what a provider says."""
_NOT_OURS: Final = frozenset({"invalid_grant"})
"""What the token endpoint says of a code; all else it says of the settings."""


class _Document(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool | None = None


class _Keys(msgspec.Struct):
    keys: list[Any]  # Any: each is judged by itself


class _Tokens(msgspec.Struct):
    id_token: str


class _Error(msgspec.Struct):
    error: str = ""


_Read = TypeVar("_Read", bound=msgspec.Struct)


class Provider:
    """The provider of the settings."""

    def __init__(self, settings: OidcSettings, clock: Clock, *, redirect_uri: str) -> None:
        """settings: with issuer and client_id. redirect_uri: as it is registered. Raises ConfigurationError."""
        if settings.issuer is None or settings.client_id is None:
            raise ConfigurationError("access.oidc: expected issuer and client_id")
        self.issuer: Final = settings.issuer
        self._client_id = settings.client_id
        self._secret = client_secret(settings)
        self._scopes = settings.scopes
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._is_local = is_loopback(checked_address(self.issuer).hostname or "")
        self._http = httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(ANSWER_S_MAX, connect=5.0),
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=2),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        self._asking = asyncio.Lock()
        self._document: tuple[_Document, float] | None = None
        self._keys: tuple[list[PublicKey], float] | None = None
        """With when they were read (monotonic seconds), as the document."""
        self._away: tuple[ProviderUnavailable, float] | None = None

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def login_address(self, attempt: Attempt) -> str:
        """Where the browser goes to log in. Raises ProviderUnavailable, ProviderFaulty."""
        document = await self._known_document()
        question = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(document.authorization_endpoint).copy_merge_params(question))

    async def check_answer_issuer(self, issuer: str | None) -> None:
        """That the browser comes from this provider and no other (RFC 9207). issuer: of the answer. Raises Unauthenticated,
        ProviderUnavailable, ProviderFaulty."""
        is_due = (await self._known_document()).authorization_response_iss_parameter_supported is True
        if issuer != self.issuer and (is_due or issuer is not None):
            raise Unauthenticated("the answer comes from another provider: start again", error="invalid_token")

    async def claims(self, code: str, attempt: Attempt) -> dict[str, Any]:
        """The claims of the ID token that the provider gives for a code. Raises Unauthenticated (a code that is used, over, or
        of another attempt; a token that is not good), ProviderUnavailable, ProviderFaulty."""
        token = await self._id_token(code, attempt)
        keys = await self._known_keys()
        try:
            return self._read(token, keys, attempt)
        except UnknownKey:
            return self._read(token, await self._newer_keys(keys), attempt)

    def _read(self, token: str, keys: list[PublicKey], attempt: Attempt) -> dict[str, Any]:
        return read_id_token(
            token,
            keys,
            issuer=self.issuer,
            client_id=self._client_id,
            nonce=attempt.nonce,
            now_s=self._clock.now_us() / 1e6,
        )

    async def _id_token(self, code: str, attempt: Attempt) -> str:
        document = await self._known_document()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.verifier,
        }
        basic: httpx.BasicAuth | None = None
        methods = document.token_endpoint_auth_methods_supported or ["client_secret_basic"]
        if self._secret is not None and "client_secret_basic" in methods:
            basic = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._secret, safe=""))  # RFC 6749, 2.3.1
        else:
            form["client_id"] = self._client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        status, body = await self._ask("POST", document.token_endpoint, form=form, basic=basic)
        if status == 200:
            return _read_as(
                _Tokens, body, "its token endpoint answers without an ID token: is openid in the scopes?"
            ).id_token
        found = _read_as(_Error, body, f"its token endpoint answers {status}").error
        if found in _NOT_OURS:
            raise Unauthenticated("the provider does not take this code (any more): start again", error="invalid_token")
        said = found if ERROR_CODE.fullmatch(found) else "an unknown error"
        raise ProviderFaulty(
            f"the login provider refuses this installation ({said}): check client_id and client_secret"
        )

    async def _known_document(self) -> _Document:
        async with self._asking:
            if self._document is None or self._is_over(self._document[1], DOCUMENT_S):
                url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
                document = _read_as(_Document, await self._get(url), f"{url} is no discovery document")
                self._check(document)
                self._document = (document, self._clock.monotonic_s())
            return self._document[0]

    async def _known_keys(self) -> list[PublicKey]:
        document = await self._known_document()
        async with self._asking:
            if self._keys is None or self._is_over(self._keys[1], KEYS_S):
                await self._read_keys(document)
            assert self._keys is not None, "they were just read"
            return self._keys[0]

    async def _newer_keys(self, known: list[PublicKey]) -> list[PublicKey]:
        """What is there instead of the keys that are known. Raises ProviderUnavailable also when it is too soon to ask."""
        document = await self._known_document()
        async with self._asking:
            assert self._keys is not None, "they are known"
            if self._keys[0] is known:
                if not self._is_over(self._keys[1], KEYS_AGAIN_S):
                    raise ProviderUnavailable(
                        "the login provider signs with a key that it does not publish yet: try again shortly",
                        retry_after_s=int(KEYS_AGAIN_S),
                    )
                await self._read_keys(document)
            return self._keys[0]

    async def _read_keys(self, document: _Document) -> None:
        found = public_keys(_read_as(_Keys, await self._get(document.jwks_uri), "it has no readable set of keys").keys)
        if not found:
            raise ProviderFaulty("the login provider is not usable: there is no public key for signatures in its set")
        self._keys = (found, self._clock.monotonic_s())

    def _is_over(self, since_s: float, lasts_s: float) -> bool:
        return self._clock.monotonic_s() - since_s >= lasts_s

    def _check(self, document: _Document) -> None:
        if document.issuer != self.issuer:
            raise ProviderFaulty(
                f"the login provider calls itself {document.issuer[:200]!r}, access.oidc.issuer says {self.issuer!r}"
            )
        for url in (document.authorization_endpoint, document.token_endpoint, document.jwks_uri):
            try:
                checked_address(url, loopback=self._is_local)
            except ValueError as error:
                raise ProviderFaulty(f"the login provider names {url[:200]!r}: {error}") from error

    async def _get(self, url: str) -> bytes:
        if self._away is not None and not self._is_over(self._away[1], AWAY_S):
            raise ProviderUnavailable(str(self._away[0]), retry_after_s=_RETRY_AFTER_S)
        self._away = None
        try:
            status, body = await self._ask("GET", url)
        except ProviderUnavailable as error:
            self._away = (error, self._clock.monotonic_s())
            raise
        if status != 200:
            raise ProviderFaulty(
                f"the login provider answers {status} for {url}: expected 200; redirects are not followed"
            )
        return body

    async def _ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, basic: httpx.BasicAuth | None = None
    ) -> tuple[int, bytes]:
        """Status and body. Raises ProviderUnavailable (429 and 5xx too), ProviderFaulty."""
        body = bytearray()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                async with self._http.stream(method, url, data=form, auth=basic) as response:
                    status = response.status_code
                    if response.headers.get("Content-Encoding", "identity") != "identity":
                        raise ProviderFaulty("the login provider compresses answers although it was told not to")
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > ANSWER_BYTES_MAX:
                            raise ProviderFaulty(f"the login provider answers with more than {ANSWER_BYTES_MAX} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log.warning("the login provider does not answer", url=url, error=repr(error)[:300])
            raise ProviderUnavailable(retry_after_s=_RETRY_AFTER_S) from error
        if status == 429 or status >= 500:
            log.warning("the login provider cannot answer now", url=url, status=status)
            raise ProviderUnavailable(retry_after_s=_RETRY_AFTER_S)
        return status, bytes(body)


def _read_as(kind: type[_Read], body: bytes, otherwise: str) -> _Read:
    """The body as JSON of a kind. otherwise: goes on "the login provider is not usable: ". Raises ProviderFaulty."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderFaulty(f"the login provider is not usable: {otherwise}") from error
