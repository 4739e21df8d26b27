"""Finds what looks like a secret in text: our own keys, private keys, tokens that well-known services give out.

Only shapes that nothing else has, so that a find is one. Passwords in addresses are not looked for: documentation is full of
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from access.keys import KEY_PATTERN

KINDS: Final[dict[str, re.Pattern[str]]] = {
    "Logfeed API key": KEY_PATTERN,
    "private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=]{20}"),
    "JSON Web Token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)(?![0-9A-Z]*EXAMPLE)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,})"),
    "GitLab token": re.compile(r"\bglpat-[\w-]{20,}"),
    "Slack token": re.compile(r"\bxox[abeoprs]-[\w-]{10,}"),
    "Stripe key": re.compile(r"\b[rs]k_live_\w{16,}"),
    "Google API key": re.compile(r"\bAIza[\w-]{35}\b"),
    "package index token": re.compile(r"\b(?:pypi-AgEI[\w-]{20,}|npm_\w{36})"),
    "AI provider key": re.compile(r"\bsk-(?:ant|proj|svcacct)-[\w-]{20,}"),
}


class Find(NamedTuple):
    """Where one stands: line from 1. The text itself is not repeated."""

    line: int
    kind: str


def secrets_in(text: str) -> Iterator[Find]:
    """Every one that is found."""
    for kind, pattern in KINDS.items():
        for found in pattern.finditer(text):
            yield Find(text.count("\n", 0, found.start()) + 1, kind)
