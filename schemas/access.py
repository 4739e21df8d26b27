"""What the OpenAPI document says of credentials: one scheme, on every operation that wants them."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEME_NAME: Final = "bearer"
SECURITY: Final[list[dict[str, list[str]]]] = [{SCHEME_NAME: []}]
"""Of an operation that wants credentials."""
SCHEMES: Final[dict[str, Any]] = {
    SCHEME_NAME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`lf_…`, from `logfeed keys create`), or the access token of `/api/v1/auth/login`.",
    }
}


class Login(BaseModel):
    """Who wants in."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, examples=["ann"])
    password: str = Field(min_length=1, max_length=4_096)


class TokenAnswer(BaseModel):
    """Let in."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    access_token: str
    """For `Authorization: Bearer`. Keep it in memory only."""
    token_type: Literal["Bearer"]
    expires_in: int = Field(examples=[600])
    """Seconds for which it is good; `/api/v1/auth/refresh` gives the next one."""


class Identity(BaseModel):
    """Who asks, and what they may."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    subject: str = Field(examples=["user:7", "key:3kzj6qvw2xah"])
    """Stable."""
    name: str = Field(examples=["ann"])
    """Of the user or key, for people."""
    permissions: dict[str, list[str]] = Field(examples=[{"read": ["pay/*"]}])
    """Permission -> services (of `host`: hosts), by name, prefix with *, or * for all. What is not named is not permitted."""


class OidcOffer(BaseModel):
    """Whether people can log in through a provider, for whoever draws the button."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    offered: bool
    """Whether `/api/v1/auth/oidc/login` leads anywhere."""
    label: str = Field(examples=["Single sign-on"])
    """What the button says."""
