"""Passwords of PostgreSQL roles, as the server stores them."""

from __future__ import annotations

from db.database import Connection


def scram_verifier(connection: Connection, role: str, password: str) -> str:
    """What SCRAM-SHA-256 (RFC 7677) checks a password by. The server is sent this, so that no log of its statements has the
    password. Raises ValueError for a text that PostgreSQL cannot have as a password."""
    if "\0" in password:
        raise ValueError("a password has no NUL in it")
    return connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
