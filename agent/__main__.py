"""`python -m agent [FILE]`: what `logfeed agent` becomes, without what only its command line needs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from runtime.collector import keep_what_exists, look_seldom

look_seldom()  # before most is imported
# Without these two structlog and httpx leave out what they do on terminals: 8 MB that nothing here would use.
sys.modules.update({"rich": None, "pygments": None})  # type: ignore[dict-item]  # how an import is made to fail

from agent.main import run_agent  # noqa: E402
from agent.settings import load_agent  # noqa: E402
from runtime.telemetry import configure_logging  # noqa: E402
from schemas.errors import ConfigurationError, LogfeedError  # noqa: E402


def main() -> None:
    """Errors become a line and an exit code: 2 for a configuration that cannot be used, 1 for all else."""
    try:
        configuration = load_agent(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
        configure_logging(level=configuration.log.level, json_lines=configuration.log.json_lines, role="agent")
        keep_what_exists()
        asyncio.run(run_agent(configuration))
    except LogfeedError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
