"""Limits the logs per second of each service with a token bucket.

on_exceed `drop` drops the logs above the limit. `refuse` answers 429 for the whole request: a request is let in when its
services have a token left, and is then counted whole, so that a bucket may go below zero and the next request waits
until it is paid off; a batch larger than the burst can pass at all, and the average holds. Requests with an
Idempotency-Key are always refused as a whole, because the chain must keep the same logs at each retry.

Bounded: at most `services_max` buckets. A bucket that is full again holds no information and makes room; while none is,
further services share one bucket.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import Final, Literal

from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Refuse, TokenBucket, Verdict

_RETRY_AFTER_S_MAX: Final = 3600


class RateLimit:
    """Token bucket per service."""

    reads_metadata = False

    def __init__(
        self,
        name: str,
        *,
        logs_per_second: float,
        burst: float,
        on_exceed: Literal["drop", "refuse"],
        services_max: int = 10_000,
    ) -> None:
        """burst: tokens of a full bucket, at least 1."""
        self.name = name
        self._rate = logs_per_second
        self._burst = max(1.0, burst)
        self._refuse = on_exceed == "refuse"
        self._drop = Drop(name)
        self._services_max = services_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._shared = TokenBucket(self._burst, -math.inf)

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Take a token, or drop, or refuse the request."""
        if occasion.admitted:
            return PASS
        bucket = self._bucket(log.service_name, occasion.now_s)
        whole = self._refuse or occasion.key is not None
        if bucket.tokens >= 1.0 or (whole and bucket in occasion.taken):
            bucket.tokens -= 1.0
            occasion.taken[bucket] = occasion.taken.get(bucket, 0) + 1
            return PASS
        if whole:
            return Refuse(self.name, self._seconds_until_token(bucket))
        return self._drop

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Whether every bucket has tokens for all its logs, or one for a request that is counted whole; takes them then."""
        if occasion.admitted:
            return True
        wanted: Counter[TokenBucket] = Counter()
        for service_name, logs in gist.services.items():
            wanted[self._bucket(service_name, occasion.now_s)] += logs
        whole = self._refuse or occasion.key is not None
        if any(bucket.tokens < (1.0 if whole else logs) for bucket, logs in wanted.items()):
            return False
        for bucket, logs in wanted.items():
            bucket.tokens -= logs
            occasion.taken[bucket] = occasion.taken.get(bucket, 0) + logs
        return True

    def _bucket(self, service_name: str, now_s: float) -> TokenBucket:
        bucket = self._buckets.get(service_name)
        if bucket is None:
            bucket = self._new_bucket(service_name, now_s)
        else:
            self._buckets.move_to_end(service_name)
        elapsed_s = now_s - bucket.filled_at_s
        if elapsed_s > 0.0:
            bucket.tokens = min(self._burst, bucket.tokens + elapsed_s * self._rate)
            bucket.filled_at_s = now_s
        return bucket

    def _new_bucket(self, service_name: str, now_s: float) -> TokenBucket:
        if len(self._buckets) >= self._services_max:
            oldest = next(iter(self._buckets.values()))
            if oldest.tokens + (now_s - oldest.filled_at_s) * self._rate < self._burst:
                return self._shared
            self._buckets.popitem(last=False)
        bucket = self._buckets[service_name] = TokenBucket(self._burst, now_s)
        return bucket

    def _seconds_until_token(self, bucket: TokenBucket) -> int:
        return max(1, min(_RETRY_AFTER_S_MAX, math.ceil((1.0 - bucket.tokens) / self._rate)))
