"""A real OpenID provider as a process of its own, over Authlib's server: `OidcProvider` starts it and tells it what to do.

Authlib decides what a conforming provider must: clients and their secrets, redirect URIs, PKCE, codes that are good once,
nonces that are. Keys are real (RS256, ES256) and can be rotated. Below /test it is told who its users are, and to go wrong.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import httpx

from infra.fleet import die_with_parent, free_port

CLIENT_ID = "logfeed test"
CLIENT_SECRET = "a secret: with % and +"
_START_SECONDS_MAX = 60.0


class OidcProvider:
    """One provider, for clients that come back to `redirect_uri`."""

    def __init__(self, directory: Path, *, redirect_uri: str) -> None:
        """directory: for its log."""
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._redirect_uri = redirect_uri
        self._log: IO[bytes] = (directory / "oidc.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with new keys and no users, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.oidc_provider", str(self.port), self._redirect_uri],
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS_MAX
        while True:
            try:
                self._tell("GET", "asked")
                return
            except httpx.HTTPError:
                assert self._process.poll() is None, "the provider ended"
                assert time.monotonic() < deadline, "the provider did not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Kill it for good."""
        self.stop()
        self._log.close()

    def user(self, subject: str, **claims: Any) -> None:
        """Make or change a user. claims: any JSON values."""
        self._tell("PUT", f"users/{subject}", claims)

    def rotate(self, algorithm: str, **options: Any) -> None:
        """Sign with a new key from now on, and publish it alone. options: is_published, kid (None: a key without a name)."""
        self._tell("POST", "rotate", {"algorithm": algorithm, **options})

    def go_wrong(self, **faults: Any) -> None:
        """See Faults; without any it behaves."""
        self._tell("PUT", "faults", faults)

    def asked(self) -> dict[str, int]:
        """How often each of its documents was asked for."""
        found: dict[str, int] = self._tell("GET", "asked").json()
        return found

    def published_kid(self) -> str:
        """What the key is called that it publishes."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            kid: str = client.get(f"{self.issuer}/keys").json()["keys"][-1]["kid"]
        return kid

    async def answer(self, address: str, subject: str | None) -> str:
        """What somebody does there whose browser came with this address: logs in, or turns back (None). Where they are sent."""
        action = {"action": "deny"} if subject is None else {"action": "allow", "subject": subject}
        async with httpx.AsyncClient(trust_env=False) as browser:
            page = await browser.get(address, timeout=30)
            assert page.status_code == 200, page.text
            sent = await browser.post(address, data=action, timeout=30)
        assert sent.status_code == 302, sent.text
        return sent.headers["location"]

    def _tell(self, method: str, path: str, content: Any = None) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.request(method, f"{self.issuer}/test/{path}", json=content).raise_for_status()


def query_of(address: str) -> dict[str, str]:
    """The parameters of an address, each of which stands there once."""
    return {name: value for name, [value] in parse_qs(urlsplit(address).query).items()}


@dataclass
class Faults:
    """What it does wrong."""

    claims: dict[str, Any] = field(default_factory=dict)
    """Claims of ID tokens instead of the right ones; null: left out."""
    algorithm: str | None = None
    """none: unsigned. HS256: signed with its own public key as the secret."""
    kid: str | None = None
    """Of ID tokens, instead of their key's."""
    document: dict[str, Any] = field(default_factory=dict)
    """Of the discovery document, instead of what is right."""
    status: dict[str, int] = field(default_factory=dict)
    """What is answered for discovery, keys, token."""
    answer: dict[str, str] = field(default_factory=dict)
    """Put behind the address that browsers are sent back to."""
    padding_bytes: int = 0
    """Of the discovery document."""


def _serve(port: int, redirect_uri: str) -> None:
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2.rfc6749 import ClientMixin, grants
    from authlib.oauth2.rfc7636 import CodeChallenge
    from authlib.oidc.core import AuthorizationCodeMixin
    from authlib.oidc.core.grants import OpenIDCode
    from flask import Flask, Response, jsonify, redirect, request
    from joserfc import jwt
    from joserfc.jwk import ECKey, RSAKey
    from werkzeug.serving import make_server

    app = Flask("provider")
    issuer = f"http://127.0.0.1:{port}"
    users: dict[str, dict[str, Any]] = {}
    codes: dict[str, Code] = {}
    nonces: set[str] = set()
    asked = {"discovery": 0, "keys": 0, "token": 0}
    faults = Faults()
    signing: dict[str, Any] = {}

    def rotate(algorithm: str, *, is_published: bool = True, kid: str | None = "new") -> None:
        named: Any = None if kid is None else {"kid": secrets.token_hex(4), "use": "sig", "alg": algorithm}
        key = RSAKey.generate_key(2048, named) if algorithm == "RS256" else ECKey.generate_key("P-256", named)
        signing.update(key=key, algorithm=algorithm, kid=named and named["kid"])
        if is_published:
            signing["published"] = [key.as_dict(private=False)]

    rotate("RS256")

    class Client(ClientMixin):  # type: ignore[misc]  # Authlib has no types
        def get_client_id(self) -> str:
            return CLIENT_ID

        def get_default_redirect_uri(self) -> str:
            return redirect_uri

        def get_allowed_scope(self, scope: str) -> str:
            return scope

        def check_redirect_uri(self, uri: str) -> bool:
            return uri == redirect_uri

        def check_client_secret(self, secret: str) -> bool:
            return hmac.compare_digest(secret, CLIENT_SECRET)

        def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
            return method in ("client_secret_basic", "client_secret_post")

        def check_response_type(self, response_type: str) -> bool:
            return bool(response_type == "code")

        def check_grant_type(self, grant_type: str) -> bool:
            return bool(grant_type == "authorization_code")

    @dataclass
    class Code(AuthorizationCodeMixin):  # type: ignore[misc]  # as above
        code: str
        subject: str
        asked: dict[str, str]
        """The parameters of the browser's way in."""

        @property
        def code_challenge(self) -> str:
            return self.asked["code_challenge"]

        @property
        def code_challenge_method(self) -> str:
            return self.asked["code_challenge_method"]

        def get_redirect_uri(self) -> str:
            return self.asked["redirect_uri"]

        def get_scope(self) -> str:
            return self.asked["scope"]

        def get_nonce(self) -> str:
            return self.asked["nonce"]

        def get_auth_time(self) -> int:
            return int(time.time())

        def get_acr(self) -> None:
            return None

        def get_amr(self) -> None:
            return None

    class Grant(grants.AuthorizationCodeGrant):  # type: ignore[misc]  # as above
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]  # noqa: RUF012  # Authlib's own

        def save_authorization_code(self, code: str, request: Any) -> None:
            codes[code] = Code(code, request.user, dict(request.payload.data))

        def query_authorization_code(self, code: str, client: Any) -> Code | None:
            return codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> str:
            return authorization_code.subject

    class IdTokens(OpenIDCode):  # type: ignore[misc]  # as above
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return nonce in nonces

        def encode_id_token(self, token: dict[str, Any], request: Any) -> str:
            nonce, now_s = request.authorization_code.get_nonce(), int(time.time())
            nonces.add(nonce)
            claims = {"iss": issuer, "aud": CLIENT_ID, "sub": request.user, "iat": now_s, "exp": now_s + 300}
            claims |= {"nonce": nonce, **users[request.user], **faults.claims}
            claims = {name: value for name, value in claims.items() if value is not None}
            header = {"alg": faults.algorithm or signing["algorithm"], "kid": faults.kid or signing["kid"]}
            if header["kid"] is None:
                del header["kid"]
            if faults.algorithm is None:
                return jwt.encode(header, claims, signing["key"], [signing["algorithm"]])
            signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            secret = signing["key"].as_pem(private=False)
            signature = b"" if faults.algorithm == "none" else hmac.digest(secret, signed, hashlib.sha256)
            return (signed + b"." + _base64(signature)).decode()

    server = AuthorizationServer(
        app, query_client=lambda name: Client() if name == CLIENT_ID else None, save_token=lambda token, request: None
    )
    server.register_grant(Grant, [IdTokens(require_nonce=True), CodeChallenge(required=True)])

    def fault(name: str) -> Response | None:
        asked[name] += 1
        status = faults.status.get(name)
        if status is None:
            return None
        return Response("{}", status, {"Location": f"{issuer}/test/asked"}, content_type="application/json")

    @app.get("/.well-known/openid-configuration")
    def discovery() -> Any:
        document = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize?kind=test",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "code_challenge_methods_supported": ["S256"],
            "padding": "x" * faults.padding_bytes,
        }
        return fault("discovery") or jsonify({**document, **faults.document})

    @app.get("/keys")
    def keys() -> Any:
        strange = [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, {"kty": "of tomorrow", "kid": "b"}, {"kty": "RSA"}]
        return fault("keys") or jsonify({"keys": [*strange, *signing["published"]]})

    @app.get("/authorize")
    def ask() -> Any:
        server.get_consent_grant(end_user=None)
        return "<form method=post><input name=subject><button name=action value=allow></form>"

    @app.post("/authorize")
    def answer() -> Any:
        grant = server.get_consent_grant(end_user=None)
        assert {"code_challenge", "nonce", "state"} <= set(request.args), "what a careful client sends"
        assert request.args["code_challenge_method"] == "S256"
        subject = request.form.get("subject") if request.form["action"] == "allow" else None
        sent = server.create_authorization_response(grant_user=subject, grant=grant)
        more = "".join(f"&{name}={value}" for name, value in faults.answer.items())
        return redirect(sent.headers["Location"] + more)

    @app.post("/token")
    def token() -> Any:
        return fault("token") or server.create_token_response()

    @app.put("/test/users/<subject>")
    def put_user(subject: str) -> Any:
        users[subject] = request.get_json()
        return {}

    @app.post("/test/rotate")
    def post_rotate() -> Any:
        rotate(**request.get_json())
        return {}

    @app.put("/test/faults")
    def put_faults() -> Any:
        faults.__init__(**request.get_json())  # type: ignore[misc]  # the same object, anew
        return {}

    @app.get("/test/asked")
    def get_asked() -> Any:
        return asked

    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


def _base64(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
