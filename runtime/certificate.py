"""The certificate that the HTTP application shows, read anew when its files change.

Whoever renews it replaces two files, one after the other, perhaps behind symbolic links. So the files are looked at every few
seconds; what cannot be used (half of a renewal, a key of another certificate) is said once, and the certificate that serves
goes on serving. Connections that are open keep what they began with. TLS 1.2 and 1.3, with OpenSSL's choice of ciphers.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from prometheus_client import Gauge

from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

EXPIRES: Final = Gauge(
    "logfeed_tls_certificate_expires_timestamp_seconds",
    "When the certificate that is shown expires, seconds since the Unix epoch",
    registry=REGISTRY,
)

LOOK_S: Final = 5.0
"""Seconds between two looks at the files."""

_SOON: Final = timedelta(days=14)
_PEM_BYTES_MAX: Final = 1024 * 1024

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """What a server shows. `context` may be another after each `look`."""

    def __init__(self, cert: Path, key: Path) -> None:
        """cert: PEM, the server's own first, then those that lead to the authority. key: PEM, without a password.

        Raises ConfigurationError: missing, not readable, not PEM, not of each other.
        """
        self._cert, self._key = cert, key
        self._stamp = self._seen()
        self.context = self._load()
        self._refused: _Stamp | None = None

    def shown(self) -> ssl.SSLContext:
        """For the next connection."""
        return self.context

    async def watch(self, stop: Stop, *, every_s: float = LOOK_S) -> None:
        """Look at the files every so many seconds until the stop."""
        while not await stop.wait(every_s):
            self.look()

    def look(self) -> bool:
        """Read the files if they are not those that were read last. True: another certificate is shown from now on."""
        stamp = self._seen()
        if stamp in (self._stamp, self._refused):
            return False
        try:
            self.context = self._load()
        except ConfigurationError as error:
            self._refused = stamp
            log.error("the new certificate cannot be used, the one before is shown on", error=str(error))
            return False
        self._stamp, self._refused = stamp, None
        log.info("another certificate is shown", tls_cert=str(self._cert))
        return True

    def _seen(self) -> _Stamp:
        """What tells one state of the files from another; empty for a file that is not there."""
        found = []
        for path in (self._cert, self._key):
            try:
                about = path.stat()
                found.append((about.st_ino, about.st_size, about.st_mtime_ns))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        certificate = _read_certificate(self._cert)
        _check_key(self._key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"http.tls_key: {self._key} is not the key of the certificate in {self._cert}"
                ) from error
            raise ConfigurationError(
                f"http.tls_cert and http.tls_key: {self._cert} and {self._key} cannot be used: {error.reason or error}"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"http.tls_cert, http.tls_key: {error}") from error
        _tell_of_expiry(self._cert, certificate)
        return context


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_PEM_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read("http.tls_cert", path))
    except ValueError as error:
        raise ConfigurationError(
            f"http.tls_cert: {path} has no certificate: expected PEM, got something else"
        ) from error


def _check_key(path: Path) -> None:
    text = _read("http.tls_key", path)
    if b"PRIVATE KEY-----" not in text:
        raise ConfigurationError(f"http.tls_key: {path} has no private key: expected PEM, got something else")
    if b"ENCRYPTED" in text:
        raise ConfigurationError(
            f"http.tls_key: {path} is encrypted: nobody is there to type its password at each start. Write it without one"
            " (`openssl pkey -in FILE`), readable by Logfeed's account alone"
        )


def _tell_of_expiry(path: Path, certificate: x509.Certificate) -> None:
    """One that has expired is shown all the same: who trusts it is the clients' decision, and a server that does not start
    again would lose more than one that warns."""
    expires = certificate.not_valid_after_utc
    EXPIRES.set(expires.timestamp())
    now = datetime.now(UTC)
    if expires <= now:
        log.warning("THE TLS CERTIFICATE HAS EXPIRED: clients will refuse it", tls_cert=str(path), expired=str(expires))
    elif certificate.not_valid_before_utc > now:
        log.warning(
            "the TLS certificate is not valid yet", tls_cert=str(path), begins=str(certificate.not_valid_before_utc)
        )
    elif expires - now < _SOON:
        log.warning("the TLS certificate expires soon", tls_cert=str(path), expires=str(expires))
