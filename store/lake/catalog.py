"""The catalog of the table: Iceberg's own two tables in our database, which is what its JDBC catalog reads as well.

They lie in a schema of their own. The row of a table names its newest metadata file, and replacing that name is the commit:
one UPDATE that holds only where the former name is still there. pyiceberg writes metadata, with pyarrow's file systems: to a
directory, or to S3 with the endpoint and region of `objects` and AWS's usual variables for credentials. Nothing of it is synced
to disk: after a power cut a table whose newest metadata is damaged is made anew (`publish --anew`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationError,
    ValidationException,
)
from pyiceberg.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from schemas.errors import DatabaseUnavailable, LogfeedError, Overloaded
from store.lake.data_files import BY_DAY, PROPERTIES, SCHEMA
from store.lake.settings import LakeSettings
from store.objects.factory import s3_place
from store.objects.settings import ObjectSettings

_DRIVER: Final = "postgresql+psycopg"
_SEVERAL_HOSTS: Final = re.compile(r"([a-z]+://(?:[^@/]*@)?)([^/?]*,[^/?]*)(/[^?]*)?(\?.*)?")


class LakeConflict(Overloaded):
    """Another program changed the table meanwhile; try again."""


class LakeUnreadable(LogfeedError):
    """The table's metadata cannot be read or written."""


class LakeCatalog:
    """The catalog, with at most one of our tables in it. Blocking: for a thread. Every call raises DatabaseUnavailable,
    LakeConflict, LakeUnreadable.
    """

    def __init__(self, database_url: str, settings: LakeSettings, objects: ObjectSettings, *, warehouse: str) -> None:
        """database_url: postgresql://…; its schema `settings.database_schema` must be there. warehouse: URL."""
        self._settings = settings
        with explained("the catalog"):
            self._catalog = SqlCatalog(
                settings.catalog,
                uri=_catalog_url(database_url, settings.database_schema),
                warehouse=warehouse,
                **_file_properties(objects),
            )

    @property
    def identifier(self) -> tuple[str, str]:
        """Namespace and name of the table."""
        return self._settings.namespace, self._settings.table

    def find(self) -> Table | None:
        """The table as it is now; None when it was never published."""
        with explained("the table"):
            try:
                return self._catalog.load_table(self.identifier)
            except NoSuchTableError:
                return None

    def make(self) -> Table:
        """A table without files, partitioned by day. Another one of that name is LakeConflict."""
        with explained("the table"):
            self._catalog.create_namespace_if_not_exists(self._settings.namespace)
            return self._catalog.create_table(
                self.identifier, schema=SCHEMA, partition_spec=BY_DAY, properties=PROPERTIES
            )

    def forget(self) -> None:
        """Take the table out of the catalog; no file is touched."""
        with explained("the table"):
            try:
                self._catalog.drop_table(self.identifier)
            except NoSuchTableError:
                return

    def close(self) -> None:
        """Give connections back."""
        self._catalog.close()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """The block's errors in our words."""
    try:
        yield
    except (CommitFailedException, TableAlreadyExistsError, ValidationException) as error:
        raise LakeConflict(f"{what} was changed by another program meanwhile: {error}") from error
    except DBAPIError as error:
        # The message of the driver alone: SQLAlchemy's own holds the statement.
        raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
    except (OSError, ValueError, ValidationError) as error:
        raise LakeUnreadable(
            f"{what} cannot be read or written: {error}; where its metadata is lost or damaged,"
            " `logfeed lake publish --anew` makes it again"
        ) from error


def _catalog_url(database_url: str, schema: str) -> str:
    """As SQLAlchemy has it, which takes several hosts as parameters only."""
    if several := _SEVERAL_HOSTS.fullmatch(database_url):
        before, hosts, path, query = several.groups(default="")
        parameters = [f"host={host}" for host in hosts.split(",")] + query.removeprefix("?").split("&")
        database_url = f"{before}{path}?{'&'.join(filter(None, parameters))}"
    url = make_url(database_url).set(drivername=_DRIVER)
    url = url.update_query_dict({"options": f"-csearch_path={schema} -ctimezone=UTC", "connect_timeout": "10"})
    return url.render_as_string(hide_password=False)


def _file_properties(objects: ObjectSettings) -> dict[str, str]:
    """For pyiceberg's files. Credentials are AWS's usual ones."""
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    if objects.bucket is not None:
        endpoint, region = s3_place(objects)
        properties |= {"s3.region": region} | ({} if endpoint is None else {"s3.endpoint": endpoint})
    return properties
