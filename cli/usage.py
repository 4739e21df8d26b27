"""Help as typer writes it, without a type beside flags: they take no value."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:  # of typer's own click, which has no public types
        """See TyperCommand."""
        return _untyped(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:  # as above
        """See TyperGroup."""
        return _untyped(super().get_params(ctx))


def group(**options: Any) -> typer.Typer:  # typer.Typer's
    """A group whose commands are `Command`s."""
    return typer.Typer(cls=Group, no_args_is_help=True, **options)


def _untyped(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag and param.metavar is None:
            param.metavar = ""
    return params
