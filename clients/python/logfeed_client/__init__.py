"""Client of Logfeed: subscribes to derived topics over HTTP."""

from logfeed_client.subscriber import Gap, GapError, Record, Subscriber, SubscriptionError

__all__ = ["Gap", "GapError", "Record", "Subscriber", "SubscriptionError"]
