"""No key, password or token stands in what a process writes, at its most talkative, wherever a client puts it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import run
from urllib.parse import urlsplit

import httpx
import pytest

from access.accounts import Accounts
from access.keys import new_key
from access.passwords import hash_password
from db.database import Database
from infra.fleet import REPOSITORY, Role, free_port, until

PASSWORD = "correct-horse-battery-staple"
GUESS = "wrong-horse-battery-staple"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def accounts(native_url: str) -> AsyncIterator[Accounts]:
    database = Database(native_url, application_name="secrets test", connections_max=2)
    await database.open()
    yield Accounts(database)
    await database.close()


def environment(database_url: str, port: int) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOGFEED_", "PYTHONDONT"))}
    return {
        **clean,
        "LOGFEED_DATABASE__URL": database_url,
        "LOGFEED_HTTP__PORT": str(port),
        "LOGFEED_LOG__LEVEL": "debug",
        "LOGFEED_LOG__JSON_LINES": "true",
        "PYTHONASYNCIODEBUG": "1",
    }


async def test_a_talkative_service_keeps_what_it_is_told(native_url: str, accounts: Accounts, tmp_path: Path) -> None:
    key = (await accounts.create_key("test", ["admin:*", "write:*"], created_by="tests")).text
    await accounts.create_user("ann", ["read:*"], password_hash=hash_password(PASSWORD))
    stranger = new_key().text
    port = free_port()
    role = Role(["serve"], environment(native_url, port), tmp_path / "serve.log")
    role.start()
    secrets = {key, stranger, PASSWORD, GUESS}
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=60, base_url=f"http://127.0.0.1:{port}") as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready, what="serve is ready", timeout_s=120)
            login = await http.post("/api/v1/auth/login", json={"name": "ann", "password": PASSWORD})
            assert login.status_code == 200
            access, cookie = login.json()["access_token"], login.cookies["logfeed_refresh"]
            secrets |= {access, cookie, access.rpartition(".")[2], cookie.rpartition(".")[2]}
            for token in (key, stranger, access, access[:-2] + "xx", f"{key}.", f"{key}x"):
                for scheme in ("Bearer", "bearer", "Basic", "Token"):
                    for method, path in (("GET", "/api/v1/logs"), ("POST", "/api/v1/logs"), ("GET", "/nothing")):
                        await http.request(method, path, headers={"Authorization": f"{scheme} {token}"}, content=b"{")
                await http.get("/api/v1/logs", params={"api_key": token, "q": token})
                await http.get(f"/api/v1/logs/{token}", headers={"Authorization": f"Bearer {key}"})
                await http.post(
                    "/api/v1/logs",
                    json={"Authorization": token},
                    headers={"X-Api-Key": token, "Idempotency-Key": token},
                )
            for body in (
                {"name": "ann", "password": GUESS},
                {"name": "ann", "pasword": PASSWORD},
                [PASSWORD],
                PASSWORD,
            ):
                await http.post("/api/v1/auth/login", json=body)
            await http.post("/api/v1/auth/login", data={"name": "ann", "password": PASSWORD})
            for _ in range(2):  # the second is a stolen one
                http.cookies.set("logfeed_refresh", cookie, domain="127.0.0.1", path="/api/v1/auth")
                renewed = await http.post("/api/v1/auth/refresh")
                secrets |= set(renewed.cookies.values())
            await http.post("/api/v1/auth/logout", headers={"Origin": f"https://{stranger}.example"})
    finally:
        role.kill()
    written = role.log_path.read_text()
    assert "login refused" in written, "it does write"
    password = urlsplit(native_url).password
    for secret in secrets | ({password} if password else set()):
        assert secret not in written


def test_a_process_that_cannot_start_keeps_its_password(tmp_path: Path) -> None:
    word = "very-secret-word"
    for command, url in (
        (["keys", "list"], f"postgresql://user:{word}@127.0.0.1:1/none"),
        (["db", "migrate"], f"postgresql://user:{word}@127.0.0.1:1/none"),
        (["keys", "list"], f"postgres//user:{word}@127.0.0.1:1/none"),
        (["config", "explain"], f"postgresql://user:{word}@127.0.0.1:1/none"),
    ):
        done = run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=REPOSITORY,
            env={**environment(url, 0), "LOGFEED_BROKER__SASL_PASSWORD": word, "LOGFEED_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout + done.stderr
        assert word not in done.stdout + done.stderr, command
