"""The Helm chart, rendered: `python -m infra.helm_chart` writes tests/data/helm/*.yaml, one for each file of infra/helm/values.

Helm is no package of any index that `make install-test` reads, and compiling it takes minutes: so what it makes of the chart is
kept in the repository with a digest of what it was made of. Tests look at these files, and fail where the chart has changed.
`make helm` renders them anew, with a `helm` on PATH or one that the Go toolchain compiles into the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.native.errors import InstallError
from infra.native.places import cache_root, server_account
from infra.native.programs import run

HELM_VERSION: Final = "v3.22.0"
KUBERNETES_VERSION: Final = "1.34.0"
"""What the chart is rendered for; it asks for 1.30 or later."""
ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "infra/helm/logfeed"
VALUES: Final = ROOT / "infra/helm/values"
RENDERED: Final = ROOT / "tests/data/helm"
_DIGEST: Final = "# made by `make helm` of "


def chart_digest() -> str:
    """SHA-256 over names and bytes of all that a rendering depends on, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in (CHART, VALUES) for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def digest_of(rendered: Path) -> str:
    """Of what a rendering was made."""
    first = rendered.read_text().partition("\n")[0]
    return first.removeprefix(_DIGEST)


def helm_program() -> Path:
    """A helm: that on PATH, or one compiled into the cache. Raises InstallError where there is no Go toolchain either."""
    if found := shutil.which("helm"):
        return Path(found)
    directory = cache_root(server_account()) / f"helm-{HELM_VERSION}"
    program = directory / "helm"
    if not program.exists():
        print(f"compiling helm {HELM_VERSION}, which takes minutes …", file=sys.stderr)
        directory.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(directory), "GOFLAGS": "-trimpath"}
        run(
            ["go", "install", f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}"],
            cwd=directory,
            env=environment,
            downloads=True,
        )
    return program


def render(helm: Path, values: Path) -> str:
    """What Helm makes of the chart with a file of values, as YAML documents. Raises subprocess.CalledProcessError."""
    command = [str(helm), "template", "logfeed", str(CHART), "--namespace", "logs", "--values", str(values)]
    done = subprocess.run(
        [*command, "--kube-version", KUBERNETES_VERSION], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def rendered(helm: Path) -> Iterator[tuple[Path, str]]:
    """(file, content) of each rendering."""
    for values in sorted(VALUES.glob("*.yaml")):
        yield RENDERED / values.name, f"{_DIGEST}{chart_digest()}\n{render(helm, values)}"


def main() -> int:
    """Exit code 1: the chart does not render, or there is no helm."""
    try:
        RENDERED.mkdir(parents=True, exist_ok=True)
        for path, content in rendered(helm_program()):
            path.write_text(content)
            print(path.relative_to(ROOT))
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
