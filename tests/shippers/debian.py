"""rsyslog and syslog-ng as Debian has them, as processes over directories of their own.

They run from a private prefix with its own C library, configured as docs/shippers/ says: a test reads the page's
configuration and puts its addresses, key and directory in the places of those that are shown.
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Final

from infra.fleet import REPOSITORY, die_with_parent, free_port
from infra.native.install import install_shippers, shipper_command

PAGES: Final = REPOSITORY / "docs" / "shippers"


def configuration_of(page: str, begins: str) -> str:
    """The code block of a page that begins with this text."""
    text = (PAGES / f"{page}.md").read_text()
    for block in re.findall(r"^```[a-z]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if block.startswith(begins):
            found: str = block
            return found
    raise AssertionError(f"no configuration in {page}.md begins with {begins!r}")


def replaced(text: str, places: dict[str, str]) -> str:
    """The text with each of these, which must be there, replaced."""
    for shown, here in places.items():
        assert shown in text, f"the page does not show {shown!r} any more"
        text = text.replace(shown, here)
    return text


class Shipper:
    """One process that takes syslog lines over TCP and ships them."""

    def __init__(self, name: str, directory: Path, command: list[str], port: int) -> None:
        self.port = port
        self._name = name
        self._log = directory / f"{name}.log"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again)."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent
            )

    def kill(self) -> None:
        """With SIGKILL: an orderly stop waits for what is on its way."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def listens(self) -> bool:
        """Whether it takes lines; fails where it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self._name} ended: {self.said()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def write(self, lines: list[bytes]) -> None:
        """Syslog lines, one after the other on one connection."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"".join(line + b"\n" for line in lines))

    def said(self) -> str:
        """The end of what it wrote about itself."""
        return self._log.read_text(errors="replace")[-4_000:] if self._log.exists() else ""


def rsyslog(directory: Path, *, logfeed_port: int, key: str, tls_ca: Path | None = None) -> Shipper:
    """Not started. directory: its own; what is written to `shop.log` there is shipped as well. tls_ca: asks for HTTPS."""
    prefix, port = install_shippers(), free_port()
    modules = next(prefix.glob("usr/lib/*/rsyslog"))
    places = {
        'serverport="8080"': f'serverport="{logfeed_port}"',
        "/etc/rsyslog.d/logfeed.key": str(_private(directory / "key", key)),
        "/var/log/rsyslog-logfeed-errors.json": str(directory / "errors.json"),
        'action.resumeinterval="5"': 'action.resumeinterval="1"',
    }
    if tls_ca is not None:
        shown = replaced(_said("rsyslog", 'usehttps="on"'), {"/etc/ssl/certs/ca-certificates.crt": str(tls_ca)})
        places['usehttps="off"'] = shown
    page = replaced(configuration_of("rsyslog", 'module(load="omelasticsearch")'), places)
    files = replaced(
        configuration_of("rsyslog", 'module(load="imfile")'),
        {"/var/log/shop": str(directory), 'readtimeout="5"': 'readtimeout="1"'},
    )
    settings = directory / "rsyslog.conf"
    settings.write_text(
        f'global(workDirectory="{directory}" net.enableDNS="off")\nmodule(load="imtcp")\n'
        f'input(type="imtcp" address="127.0.0.1" port="{port}")\n{page}{files}'
    )
    command = [*shipper_command(prefix, "usr/sbin/rsyslogd"), "-n", "-iNONE", "-f", str(settings), "-M", str(modules)]
    return Shipper("rsyslog", directory, command, port)


def syslog_ng(directory: Path, *, logfeed_port: int, key: str, tls_ca: Path | None = None) -> Shipper:
    """As `rsyslog`."""
    prefix, port = install_shippers(), free_port()
    modules = next(prefix.glob("usr/lib/**/libhttp.so")).parent
    key_file = _private(directory / "key", replaced(configuration_of("syslog-ng", "@define"), {"KEY": key}))
    places = {
        "127.0.0.1:8080": f"127.0.0.1:{logfeed_port}",
        "/etc/syslog-ng/logfeed.key": str(key_file),
        "/var/lib/syslog-ng": str(directory),
        "time-reopen(5)": "time-reopen(1)",
        "source(s_src);": "source(s_test); source(s_shop);",
    }
    if tls_ca is not None:
        shown = replaced(_said("syslog-ng", "tls(ca-file("), {"/etc/logfeed/ca.pem": str(tls_ca)})
        places |= {"http://": "https://", 'method("POST")': f'method("POST") {shown}'}
    page = replaced(configuration_of("syslog-ng", "@include"), places)
    files = replaced(
        configuration_of("syslog-ng", "source s_shop"),
        {"/var/log/shop": str(directory), "multi-line-timeout(5)": "multi-line-timeout(2)"},
    )
    settings = directory / "syslog-ng.conf"
    settings.write_text(
        '@version: 4.8\nsource s_test { network(transport("tcp") ip("127.0.0.1") '
        f"port({port}) keep-hostname(yes) flags(syslog-protocol)); }};\n{files}{page}"
    )
    options = {
        "--cfgfile": settings,
        "--persist-file": directory / "persist",
        "--pidfile": directory / "pid",
        "--control": directory / "control",
        "--module-path": modules,
    }
    command = [*shipper_command(prefix, "usr/sbin/syslog-ng"), "--foreground", "--no-caps", "--stderr"]
    return Shipper("syslog-ng", directory, [*command, *(f"{name}={path}" for name, path in options.items())], port)


def _private(path: Path, text: str) -> Path:
    """A file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _said(page: str, begins: str) -> str:
    """Options that the text of a page shows between backticks."""
    for said in re.findall(r"`([^`\n]+)`", (PAGES / f"{page}.md").read_text()):
        if said.startswith(begins):
            found: str = said
            return found
    raise AssertionError(f"{page}.md shows nothing that begins with {begins!r}")
