"""A real Keycloak in development mode, on loopback, with one imported realm: the login provider of tests.

Everything lives in memory: a server that was stopped begins anew with the realm as it was given. Development mode means plain
http and no cluster; protocol, forms and keys are those of every Keycloak. The distribution is shared and only read; a home of
the server's own holds what it writes.
"""

from __future__ import annotations

import json
import shutil
import signal
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.native.install import install_keycloak, keycloak_command
from infra.native.node import Node
from infra.native.places import open_to_all, remove_tree

ADMIN = "admin"
"""Who may everything there, with `secret()`."""


class KeycloakNode(Node):
    """One server with one realm."""

    name = "keycloak"
    death_signal = signal.SIGKILL
    stop_signal = signal.SIGTERM
    start_seconds_max = 300.0  # 20 s of processor time, on a machine that is busy with other tests

    def __init__(self, directory: Path, realm: Mapping[str, Any], *, die_with_parent: bool = True) -> None:
        """realm: as Keycloak exports realms (RealmRepresentation of its Admin API); `realm` is its name."""
        super().__init__(directory, die_with_parent=die_with_parent)
        self._realm = realm

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port()}"

    @property
    def issuer(self) -> str:
        """Of the realm."""
        return f"{self.url}/realms/{self._realm['realm']}"

    def prepare(self) -> None:
        distribution = install_keycloak()
        remove_tree(self._home)
        imports = self._home / "data" / "import"
        for directory in (self._home, self._home / "data", imports, self._home / "providers"):
            open_to_all(directory)
            self.own(directory)
        for name in ("lib", "themes"):
            (self._home / name).symlink_to(distribution / name)
        shutil.copytree(distribution / "conf", self._home / "conf")
        (imports / "realm.json").write_text(json.dumps(self._realm))

    def command(self) -> list[str]:
        return [
            *keycloak_command(self._home, "-Dkc.config.built=true"),
            "start-dev",
            "--db=dev-mem",
            "--import-realm",
            "--http-host=127.0.0.1",
            f"--http-port={self.port()}",
            "--log-level=info",
        ]

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": self.secret(),
        }

    def answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with suppress(OSError), opener.open(f"{self.issuer}/.well-known/openid-configuration", timeout=10) as answer:
            return bool(answer.status == 200)
        return False

    @property
    def _home(self) -> Path:
        return self.directory / "home"
