"""Keys and users as `/api/v1/keys` and `/api/v1/users` take and show them, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.pages import Answer

Permissions = Annotated[
    dict[
        Literal["write", "read", "tail", "export", "alert", "admin", "host"],
        Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=1_000)],
    ],
    Field(examples=[{"read": ["pay/*"], "tail": ["pay/*"]}]),
]
"""What may be done, with which services (of `host`: hosts) each: by name, prefix with * behind it, or * for all."""
Rate = Annotated[float, Field(gt=0, le=1e15)] | Literal["none"] | None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NewKey(_Body):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, examples=["shop-production"])
    """Who has it, for people."""
    permissions: Permissions
    expires_at: AwareDatetime | None = None
    """From then on it opens nothing; null: never."""
    networks: list[Annotated[str, Field(max_length=100)]] = Field(default=[], max_length=100, examples=[["10.0.0.0/8"]])
    """Where requests may come from (CIDR); none: anywhere."""
    logs_per_s: Rate = None
    """What it may send; null: as the settings say."""
    bytes_per_s: Rate = None
    """Of bodies, decompressed."""
    burst_s: float = Field(default=1.0, gt=0, le=3_600)
    """After a pause so many seconds' worth may come at once."""


class NewUser(_Body):
    """A user to be made."""

    name: str = Field(min_length=1, max_length=100, examples=["ann"])
    """Lower-case letters, digits and . _ @ + -"""
    permissions: Permissions
    password: str = Field(min_length=10, max_length=1_024)


class UserChange(_Body):
    """What is to be otherwise; what is left out, or null, stays."""

    permissions: Permissions | None = None
    """Instead of those that there are."""
    disabled: bool | None = None
    """true ends their sessions, and lets them in no more."""


class NewPassword(_Body):
    """Another password."""

    password: str = Field(min_length=10, max_length=1_024)
    current_password: str | None = Field(default=None, max_length=4_096)
    """Needed where the user is yourself."""


class KeyModel(Answer):
    """A key, without what opens anything."""

    prefix: str = Field(examples=["3kzj6qvw2xah"])
    """The characters after `lf_`: names the key."""
    name: str
    state: str = Field(examples=["good"])
    """good, expired or revoked."""
    permissions: dict[str, list[str]] = Field(examples=[{"write": ["shop"]}])
    """Permission -> services, by name, prefix with *, or * for all."""
    networks: list[str]
    """Where requests may come from (CIDR); none: anywhere."""
    created_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """When somebody was let in by it last, to the minute; null: never."""
    logs_per_s: float | Literal["none"] | None
    """What it may send; null: as the settings say."""
    bytes_per_s: float | Literal["none"] | None
    burst_s: float


class MadeKey(KeyModel):
    """A key that was just made."""

    key: str = Field(examples=["lf_3kzj6qvw2xah_…"])
    """All of it: shown this once, and kept nowhere."""


class KeyList(Answer):
    """A page of keys, newest first."""

    keys: list[KeyModel]
    next_cursor: str | None


class UserModel(Answer):
    """A user."""

    name: str
    state: str = Field(examples=["good"])
    """good or disabled."""
    permissions: dict[str, list[str]] = Field(examples=[{"read": ["pay/*"], "tail": ["pay/*"]}])
    """Permission -> services, by name, prefix with *, or * for all."""
    created_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    disabled_at: str | None
    issuer: str | None
    """The login provider that they come from, whose groups say what they may; null: they have a password here."""


class SessionModel(Answer):
    """A login that goes on."""

    began_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    refreshed_at: str
    """When it was used last, some minutes exact."""
    ends_at: str
    """Unless it is refreshed before, or ended."""


class SessionList(Answer):
    """Sessions of a user, the one that was used last first; 1,000 at most."""

    sessions: list[SessionModel]


class UserList(Answer):
    """A page of users, by name."""

    users: list[UserModel]
    next_cursor: str | None
