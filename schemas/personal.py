"""What the query API answers about what people keep for themselves: the shapes, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.pages import Answer


class BookmarkModel(Answer):
    """Something that you want to find again."""

    kind: Literal["log", "connection", "experiment"]
    target_id: str = Field(examples=["382110771345817600"])
    """Of the log, connection or experiment."""
    note: str
    created_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])


class BookmarkList(Answer):
    """Your bookmarks, newest first."""

    bookmarks: list[BookmarkModel]


class NewBookmark(BaseModel):
    """What a bookmark says."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(default="", max_length=2_000, examples=["the first refusal"])


class ViewModel(Answer):
    """A view of the page, under a name."""

    name: str = Field(examples=["payment errors"])
    address: str = Field(examples=["/?query=level:error"])
    """Path and query of the page."""
    created_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    changed_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])


class ViewList(Answer):
    """Your views, by name."""

    views: list[ViewModel]


class NewView(BaseModel):
    """Where a view leads."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(min_length=1, max_length=4_096, pattern="^/", examples=["/?query=level:error"])
