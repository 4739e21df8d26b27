"""Limits the logs per second of each service with a token bucket (ingest/buckets.py).

on_exceed `drop` drops the logs above the limit. `refuse` answers 429 for the whole request: a request is let in when its
services have a token left, and is then counted whole, so that a bucket may go below zero and the next request waits
until it is paid off; a batch larger than the burst can pass at all, and the average holds. Requests with an
Idempotency-Key are always refused as a whole, because the chain must keep the same logs at each retry.

Bounded: at most `services_max` buckets, and one for each service that is named with a rate of its own: nobody takes that one's
place. While none of the others is full again, further services share one bucket, those of a prefix with a rate of its own
another: made-up names win nobody more than `services_max` bursts, and take nothing from services that have a bucket.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from ingest.buckets import BucketTable, Rate, TokenBucket
from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Refuse, Verdict


class RateLimit:
    """Token bucket per service."""

    reads_metadata = False

    def __init__(
        self,
        name: str,
        *,
        rate: Rate | None,
        services: Mapping[str, Rate],
        on_exceed: Literal["drop", "refuse"],
        services_max: int = 10_000,
    ) -> None:
        """rate: of each service that `services` does not name; None: no limit. services: exact name, or prefix with * behind it
        -> rate of each such service; the exact name counts, then the longest prefix."""
        self.name = name
        self._refuse = on_exceed == "refuse"
        self._drop = Drop(name)
        self._table = BucketTable(services_max)
        self._named: dict[str, TokenBucket] = {}
        groups = [] if rate is None else [("", rate)]
        for pattern, own in services.items():
            if pattern.endswith("*"):
                groups.append((pattern[:-1], own))
            else:
                self._named[pattern] = TokenBucket.full(own, -math.inf)
        groups.sort(key=lambda group: len(group[0]), reverse=True)
        self._groups = [(prefix, own, TokenBucket.full(own, -math.inf)) for prefix, own in groups]
        """(prefix, rate, bucket of those that found no room), the longest first."""

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Take a token, or drop, or refuse the request."""
        if occasion.admitted:
            return PASS
        bucket = self._bucket(log.service_name, occasion.now_s)
        if bucket is None:
            return PASS
        whole = self._refuse or occasion.key is not None
        if bucket.tokens >= 1.0 or (whole and bucket in occasion.taken):
            bucket.tokens -= 1.0
            occasion.taken[bucket] = occasion.taken.get(bucket, 0) + 1
            return PASS
        if whole:
            return Refuse(self.name, bucket.seconds_until_token())
        return self._drop

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Whether every bucket has tokens for all its logs, or one for a request that is counted whole; takes them then."""
        if occasion.admitted:
            return True
        wanted: Counter[TokenBucket] = Counter()
        for service_name, logs in gist.services.items():
            bucket = self._bucket(service_name, occasion.now_s)
            if bucket is not None:
                wanted[bucket] += logs
        whole = self._refuse or occasion.key is not None
        if any(bucket.tokens < (1.0 if whole else logs) for bucket, logs in wanted.items()):
            return False
        for bucket, logs in wanted.items():
            bucket.tokens -= logs
            occasion.taken[bucket] = occasion.taken.get(bucket, 0) + logs
        return True

    def _bucket(self, service_name: str, now_s: float) -> TokenBucket | None:
        """The service's bucket at this moment; None where nothing limits it."""
        bucket = self._named.get(service_name) or self._table.find(service_name) or self._new(service_name, now_s)
        if bucket is not None:
            bucket.refill(now_s)
        return bucket

    def _new(self, service_name: str, now_s: float) -> TokenBucket | None:
        for prefix, rate, shared in self._groups:
            if service_name.startswith(prefix):
                return self._table.add(service_name, rate, now_s) or shared
        return None
