"""Other people's programs, run to their end, with errors that a person can act on."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.native.errors import DownloadError, InstallError

ERROR_LINES_MAX = 8
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MARKED = re.compile(r"^(\[ERROR\]|E:|W:)\s+(?!To see|Re-run|For more|\[Help)\S")


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str] | None = None,
    downloads: bool = False,
    expected_code: int = 0,
) -> str:
    """Runs a program and returns its output. When it ends otherwise than expected or is not there: `InstallError` with what
    it complained of, or `DownloadError` where the program `downloads` and another attempt may help."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InstallError(f"the program {command[0]} was not found; install it and try again") from error
    if done.returncode != expected_code:
        kind = DownloadError if downloads else InstallError
        complaint = _complaint(done.stdout + done.stderr)
        raise kind(f"`{' '.join(command[:4])} …` failed with exit code {done.returncode}:\n{complaint}")
    return done.stdout


def _complaint(output: str) -> str:
    """The lines that Maven and apt mark as errors; without any, the last lines."""
    lines = [line for line in _COLOUR.sub("", output).splitlines() if line.strip()]
    marked = [line for line in lines if _MARKED.match(line)]
    return "\n".join((marked or lines)[-ERROR_LINES_MAX:])
