"""Settings of ingest, and what must hold between them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from access.principal import RateLimits
from ingest.filters.config import ChainConfig, ServiceRates
from runtime.settings import Section
from schemas.frames import FRAME_DECODED_BYTES_MAX
from schemas.ids import WORKERS

MiB = 1024 * 1024


class KeyRate(Section):
    """What a key may send that was made without a rate of its own, and every user; each ingest process counts for itself."""

    logs_per_s: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Logs per second on average (429 past it); none: no limit."""
    bytes_per_s: Annotated[float, Field(gt=0, le=10_000_000_000)] | None = None
    """Bytes of bodies per second on average, decompressed (429 past it); none: no limit."""
    burst_s: Annotated[float, Field(gt=0, le=3_600)] = 1.0
    """Seconds' worth that may come at once after a pause."""

    @property
    def limits(self) -> RateLimits:
        """As subjects have them."""
        return RateLimits(self.logs_per_s, self.bytes_per_s, self.burst_s)


class IngestSettings(Section):
    """How logs are taken in over HTTP."""

    body_bytes_max: Annotated[int, Field(ge=1024, le=16 * MiB)] = 8 * MiB
    """Largest body, in bytes after decompression; larger ones get 413. Bounds a frame as well."""
    logs_max: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Most logs in one request; more get 413."""
    body_deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds in which a request's body must have arrived completely (408 after it)."""
    in_flight_bytes_max: Annotated[int, Field(ge=MiB)] = 128 * MiB
    """Decompressed bytes of all requests under way together, up to their answers; past it 503. Costs five times that. One key
    or user may hold as much of it as it leaves free, so half when it is alone."""
    publish_deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds a request waits for the broker's acknowledgement before it gets 503 (the send itself goes on)."""
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """Days after which logs expire; live logs with an older timestamp are rejected."""
    retention_risk_max: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the broker's retention that unstored logs may have used up before requests get 503."""
    retention_poll_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds between two looks at that share."""
    counts_flush_s: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Seconds after which counts of requests with nothing to keep are published (the ledger's delay)."""
    reservation_deadline_s: Annotated[float, Field(gt=0, le=30)] = 1.0
    """Seconds a keyed request waits for the database; after it the request goes on without a reservation."""
    reservation_pause_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    """Seconds for which reservations are left out after the database did not answer."""
    implied_keys: bool = True
    """Whether a body of OTLP or Loki in which every record has its own time, or of Elasticsearch in which every document has an
    id, is its own Idempotency-Key, so that what these clients send again is stored once."""
    drain_deadline_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Seconds that requests under way get at a clean stop."""
    regions: Annotated[int, Field(ge=1, le=16)] = 1
    """Regions with a database each whose ids must differ: each has its share of the 1,024 worker numbers in ids. The same in
    all of them, and not changed while ids of before may be given out (docs/scale.md)."""
    region: Annotated[int, Field(ge=0, le=15)] = 0
    """Number of this region, from 0 on."""
    key_rate: KeyRate = KeyRate()
    """What keys may send that name no rate of their own (docs/limits.md)."""
    service_rates: ServiceRates = ServiceRates()
    """What each service may send (docs/limits.md)."""
    filters: ChainConfig = ()
    """The filter chain, in order (docs/filters.md)."""

    @property
    def worker_numbers(self) -> range:
        """Of this region, for ids."""
        share = WORKERS // self.regions
        return range(self.region * share, (self.region + 1) * share)

    @model_validator(mode="after")
    def _limits_fit(self) -> IngestSettings:
        if self.region >= self.regions:
            raise ValueError(f"region must be 0..{self.regions - 1}: there are {self.regions} regions")
        if self.body_bytes_max * 4 > FRAME_DECODED_BYTES_MAX:
            raise ValueError(
                f"body_bytes_max may be at most {FRAME_DECODED_BYTES_MAX // 4}: a frame must hold the body re-encoded"
            )
        if self.in_flight_bytes_max < 2 * self.body_bytes_max:
            raise ValueError(
                "in_flight_bytes_max must be at least twice body_bytes_max: nobody may hold more than half of it, and no"
                " request of full size would pass"
            )
        return self
