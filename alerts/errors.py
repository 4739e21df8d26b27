"""What goes wrong in alerting. The edge owns the table from class to status."""

from __future__ import annotations

from schemas.errors import InvalidInput, LogfeedError, Overloaded


class StaleEpoch(Overloaded):
    """Another process evaluates rules now: the lease `alerts` went to it."""


class StateMoved(Overloaded):
    """The saved state is not the one that this process went on from: it is read anew."""


class NoSuchRule(LogfeedError):
    """There is no such rule, or it is not yours."""


class NoSuchSilence(LogfeedError):
    """There is no such silence, or it is not yours."""


class RuleInvalid(InvalidInput):
    """The rule is not valid."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        """problems: (field, what was expected) of each."""
        super().__init__("; ".join(f"{field}: {text}" if field else text for field, text in problems))
        self.problems = problems


class RuleConflict(LogfeedError):
    """There is a rule of this name already, or it was changed meanwhile."""


class DeliveryFailed(LogfeedError):
    """The channel did not take the message; another attempt may do."""

    retriable = True


class DeliveryRefused(LogfeedError):
    """The message can never go this way: nothing was sent."""
