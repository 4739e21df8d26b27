"""Debian packages unpacked into a private directory; the system's own package state is never touched.

Promise: `unpack` only reads the machine's apt configuration. Lists, cache and state live in the scratch directory it is
given, the hooks of the machine's configuration (some empty the system's cache) do not run, and packages are verified
against the signed release file as always. The mirror is the one that the machine already uses.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.native.errors import InstallError
from infra.native.programs import run

ETC_APT = Path("/etc/apt")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
_DEBIAN_SUITES = {"bookworm", "trixie", "stable", "oldstable", "oldoldstable"}
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and suite of an apt source file."""

    uri: str
    suite: str
    components: tuple[str, ...]


def debian_mirror(etc_apt: Path = ETC_APT) -> str:
    """The address of the Debian archive that this machine uses. `InstallError` when its apt sources name none."""
    for source in _sources(etc_apt):
        if source.suite in _DEBIAN_SUITES and "main" in source.components and "security" not in source.uri:
            return source.uri
    raise InstallError(
        f"no Debian archive (bookworm or trixie, component main) in {etc_apt}/sources.list or sources.list.d; "
        "the native TimescaleDB needs Debian 12 or 13: elsewhere use docker compose"
    )


def unpack(packages: Sequence[str], *, suite: str, into: Path, scratch: Path) -> None:
    """Downloads `packages` of `suite` and unpacks each into the directory `into`. `InstallError` says what failed."""
    apt = _private_apt(suite, scratch)
    run(["apt-get", "-q", "update"], cwd=scratch, env=apt, downloads=True)
    debs = scratch / "debs"
    debs.mkdir()
    run(["apt-get", "-q", "download", *packages], cwd=debs, env=apt, downloads=True)
    for deb in sorted(debs.glob("*.deb")):
        run(["dpkg-deb", "-x", str(deb), str(into)], cwd=scratch, env=apt)


def _private_apt(suite: str, scratch: Path) -> dict[str, str]:
    """Writes an apt configuration of its own and returns the environment that makes apt use it."""
    keyring = next((path for path in KEYRINGS if path.exists()), None)
    if keyring is None:
        raise InstallError(f"no Debian archive keyring: looked for {', '.join(map(str, KEYRINGS))}")
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources.list").write_text(f"deb [signed-by={keyring}] {debian_mirror()} {suite} main\n")
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": f"{scratch}/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": f"{scratch}",
        "Dir::State::lists": f"{scratch}/lists",
        "Dir::State::status": f"{scratch}/status",
        "Dir::Cache": f"{scratch}/cache",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",  # else a mirror out of reach is a warning, and packages are "not found" later
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    lines = [*_transport_settings(scratch), *(f'{key} "{value}";' for key, value in settings.items())]
    config = scratch / "apt.conf"
    config.touch(mode=0o600)  # a proxy's address may hold a password
    config.write_text("\n".join(lines) + "\n")
    return {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}


def _transport_settings(scratch: Path) -> Iterator[str]:
    """The machine's proxies, time-outs and date checks, without index targets, hooks and everything else."""
    for line in run(["apt-config", "dump"], cwd=scratch).splitlines():
        if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages")):
            yield line


def _sources(etc_apt: Path) -> Iterator[Source]:
    parts = etc_apt / "sources.list.d"
    one_line = [path for path in (etc_apt / "sources.list", *sorted(parts.glob("*.list"))) if path.is_file()]
    for path in sorted(parts.glob("*.sources")):
        yield from _deb822(path.read_text(encoding="utf-8", errors="replace"))
    for path in one_line:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _ONE_LINE.match(line.partition("#")[0].strip()):
                yield Source(match["uri"], match["suite"], tuple(match["components"].split()))


def _deb822(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if not line[:1].isspace():
                name, _, line = line.partition(":")
            fields.setdefault(name.strip().lower(), []).extend(line.split())
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield Source(uri, suite, tuple(fields.get("components", [])))
