"""Settings of query, and what must hold between them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from runtime.settings import Section

MiB = 1024 * 1024


class QuerySettings(Section):
    """How questions are answered over HTTP."""

    page_bytes_max: Annotated[int, Field(ge=1024, le=256 * MiB)] = 8 * MiB
    """Bytes of messages and metadata at which a page is cut (its cursor goes on); one log may exceed it."""
    scan_budget_ms: Annotated[int, Field(ge=50, le=30_000)] = 2_000
    """Milliseconds a page may search; after them it says how far it came and has a cursor."""
    scans_max: Annotated[int, Field(ge=1, le=100)] = 6
    """Questions that the database works on at once; each holds at most one page in memory."""
    scans_per_subject_max: Annotated[int, Field(ge=1, le=100)] = 4
    """Questions of one key or user that the database works on at once. Less than scans_max, so that whoever asks slow questions
    without end leaves places to others."""
    scans_waiting_max: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Questions that wait for a place; more get 503 at once."""
    scans_waiting_per_subject_max: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Questions of one key or user that wait for a place; more get 429 at once."""
    scan_wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 2_000
    """Milliseconds a question waits for a place before it gets 503, or 429 where the subject's own are in the way."""
    cache_bytes_max: Annotated[int, Field(ge=0)] = 32 * MiB
    """Bytes of answers kept: logs by id and pages of closed ranges; 0 keeps none."""
    cache_ttl_s: Annotated[float, Field(ge=0, le=3_600)] = 300.0
    """Seconds an answer is kept, if all that it tells of is closed. It is given again only while it is still true: what comes
    late, is dropped or erased ends it at once. A first page that ends its walk at the newest log of its moment is not kept."""
    services_ttl_s: Annotated[float, Field(ge=0, le=300)] = 2.0
    """Seconds the list of services is kept: it sums what was not rolled up yet."""
    exports_max: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Exports that run at once; each holds one page, and a place for a question only while that is read. More get 503."""
    exports_per_subject_max: Annotated[int, Field(ge=1, le=1_000)] = 2
    """Exports of one key or user that run at once; more get 429."""
    export_patience_s: Annotated[float, Field(ge=0, le=3_600)] = 60.0
    """Seconds for which an export that has begun asks again where the database is busy or a file is on its way; then it is
    cut."""
    bookmarks_max: Annotated[int, Field(ge=0, le=10_000)] = 1_000
    """Bookmarks of one key or user; more are refused."""
    views_max: Annotated[int, Field(ge=0, le=10_000)] = 200
    """Saved views of one key or user; more are refused."""
    ledger_minutes_max: Annotated[int, Field(ge=1, le=527_040)] = 10_100
    """Longest stretch of the ledger in one answer, in minutes: a week and a little, so that `-7d` fits."""
    ledger_rows_max: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Most sums of the ledger in one answer; more are refused with advice."""

    @model_validator(mode="after")
    def _limits_fit(self) -> QuerySettings:
        if self.cache_bytes_max and self.cache_bytes_max < self.page_bytes_max:
            raise ValueError("cache_bytes_max must be 0 or at least page_bytes_max: a full page would never be kept")
        if self.exports_max < self.exports_per_subject_max:
            raise ValueError("exports_max must be at least exports_per_subject_max: one subject could never have them")
        return self
