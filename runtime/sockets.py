"""Options of TCP connections."""

from __future__ import annotations

import socket


def alive_options() -> list[tuple[int, int, int]]:
    """(level, option, value) by which a connection ends within 25 s of its other side being gone without a word."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
