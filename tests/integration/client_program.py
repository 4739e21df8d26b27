"""A program that logs through the client, for tests that kill it: says what it does on stdout, one word a line.

    python client_program.py URL KEY SERVICE SPOOL FIRST COUNT [then: spooled | idle | fork]

then. spooled: says `spooled` when all is on disk, and waits to be killed. idle: says `idle` when nothing waits anywhere, and
ends. fork: makes a child that logs as many again under `SERVICE/child`, and ends with it. Without: ends at once.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from logfeed_client import LogfeedHandler, SenderLimits


def main() -> None:
    """See the module."""
    url, key, service, spool, first, count, *then = sys.argv[1:]
    handler = LogfeedHandler(
        url,
        service_name=service,
        api_key=key,
        spool_dir=spool or None,
        limits=SenderLimits(linger_s=0.05, close_s=30.0),
    )
    log = logging.getLogger("program")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    for number in range(int(first), int(first) + int(count)):
        log.info("number %d", number, extra={"number": number})
    match then:
        case ["spooled"]:
            while not handler.sender.flush():
                time.sleep(0.01)
            print("spooled", flush=True)
            sys.stdin.read()
        case ["idle"]:
            while not handler.sender.flush() or handler.stats().spooled or handler.stats().trouble is not None:
                time.sleep(0.01)
            print("idle", flush=True)
        case ["fork"]:
            pid = os.fork()
            child = logging.getLogger("child")
            child.propagate = False
            child.setLevel(logging.INFO)
            if pid == 0:
                child.addHandler(LogfeedHandler(sender=handler.sender, service_name=f"{service}/child"))
                for number in range(int(count)):
                    child.info("number %d", number, extra={"number": number})
                sys.exit(0)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
