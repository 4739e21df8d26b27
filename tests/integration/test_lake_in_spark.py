"""Spark reads the lake as docs/scale.md sets it up: the same rows, also of late ones and after a publication."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import psycopg
import pytest

from db.database import Database
from schemas.record import Log
from store.tiers.segments import SegmentState
from tests.lake_site import LakeSite
from tests.segment_rows import in_order, log_at

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DAY_US = 86_400_000_000
TODAY_US = 20_500 * DAY_US
COLUMNS = "unix_micros(timestamp) AS us, id, level, service_name, correlation_id, message, metadata"


def day(number: int) -> list[Log]:
    return [
        log_at(
            TODAY_US + number * DAY_US + index * 1_000_003,
            (number + 100) * 1_000_000 + index,
            level=1 + index % 24,
            service_name=("pay", "auth/a", "Z.z")[index % 3],
            message=f'line {index}, "quoted" é\n',
            correlation_id=None if index % 4 else f"c-{index}",
            metadata={"n": index},
        )
        for index in range(3_000)
    ]


@pytest.fixture
async def site(timescale_url: str, tmp_path: Path) -> AsyncIterator[LakeSite]:
    database = Database(timescale_url, application_name="test")
    await database.open()
    yield LakeSite(database, tmp_path / "segments")
    await database.close()


@pytest.fixture
def spark(site: LakeSite, tmp_path: Path) -> Iterator[Any]:
    """A session of Spark on this machine. Any: pyspark's, without types here."""
    from pyspark.sql import SparkSession

    from infra.native.install import install_iceberg

    place = psycopg.conninfo.conninfo_to_dict(site.database.url)
    database = quote(str(place["dbname"]))
    settings = {
        "spark.jars": ",".join(str(jar) for jar in sorted((install_iceberg() / "libs").glob("*.jar"))),
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "jdbc",
        "spark.sql.catalog.lake.uri": f"jdbc:postgresql://{place['host']}:{place['port']}/{database}?currentSchema=lake",
        "spark.sql.catalog.lake.jdbc.user": str(place["user"]),
        "spark.sql.catalog.lake.jdbc.password": str(place.get("password", "")),
        "spark.sql.catalog.lake.jdbc.schema-version": "V1",
        "spark.sql.catalog.lake.warehouse": site.locations.warehouse,
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(tmp_path / "spark"),
        "spark.driver.memory": "1g",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def read(spark: Any, where: str = "TRUE") -> list[Log]:
    """Rows of the table in order. spark: Any, as above."""
    rows = spark.sql(f"SELECT {COLUMNS} FROM lake.logfeed.logs WHERE {where}").collect()
    return in_order(
        Log(
            id=row["id"],
            timestamp=row["us"],
            level=row["level"],
            service_name=row["service_name"],
            message=row["message"],
            correlation_id=row["correlation_id"],
            metadata=msgspec.json.decode(row["metadata"]),
        )
        for row in rows
    )


async def test_spark_reads_what_was_published_and_deletes_nothing(site: LakeSite, spark: Any) -> None:
    late = [log_at(TODAY_US + number * DAY_US + 5, 7_000_000 + number, message="late") for number in range(-3, 3)]
    first = await site.add("a", day(0))
    await site.add("b", day(1))
    await site.add("late", late)
    await site.lake.publish()
    expected = in_order([*day(0), *day(1), *late])
    assert read(spark) == expected
    assert site.logs() == expected
    begin, end = "TIMESTAMP '2026-02-17'", "TIMESTAMP '2026-02-18'"
    bounds = spark.sql(f"SELECT unix_micros({begin}) AS begin, unix_micros({end}) AS end").collect()[0]
    assert bounds["begin"] == TODAY_US + DAY_US
    some = read(spark, f"timestamp >= {begin} AND timestamp < {end} AND service_name = 'pay'")
    assert some == [
        log for log in expected if bounds["begin"] <= log.timestamp < bounds["end"] and log.service_name == "pay"
    ]
    assert some
    # Days prune: of the two big files one is read, of the late ones, which have a day each, two.
    files = spark.sql(
        f"SELECT DISTINCT input_file_name() AS file FROM lake.logfeed.logs WHERE timestamp >= {begin}"
    ).collect()
    assert sorted(row["file"].rpartition("/")[2][0] for row in files) == ["b", "l", "l"]

    await site.set(first, SegmentState.RETIRED)
    await site.lake.publish()
    assert read(spark) == in_order([*day(1), *late])

    # Files of rows are not Spark's to delete.
    with pytest.raises(Exception, match="GC is disabled"):
        spark.sql("CALL lake.system.expire_snapshots(table => 'logfeed.logs', retain_last => 1)").collect()
    assert {segment.name for segment in await site.segments()} == {path.name for path in files_of(site)}


def files_of(site: LakeSite) -> list[Path]:
    """Segments on the disk."""
    return list(site.directory.glob("*.parquet"))
