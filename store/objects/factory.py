"""The object storage that settings ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping

from schemas.errors import ConfigurationError
from store.objects.local_store import LocalObjectStore
from store.objects.port import ObjectStore
from store.objects.s3_store import S3ObjectStore
from store.objects.settings import ObjectSettings, check_endpoint


def make_object_store(settings: ObjectSettings, environment: Mapping[str, str] | None = None) -> ObjectStore:
    """Asks nobody yet. environment: where AWS's variables are looked for (obstore reads the credentials among them itself,
    from the process's). Raises ConfigurationError when there is no URL, or AWS's variables hold no endpoint.
    """
    variables = os.environ if environment is None else environment
    if settings.directory is not None:
        return LocalObjectStore(settings.directory, settings)
    if settings.bucket is None:
        raise ConfigurationError("no object storage: set objects.url (LOGFEED_OBJECTS__URL=s3://bucket/prefix)")
    endpoint, region = s3_place(settings, variables)
    return S3ObjectStore(settings, endpoint=endpoint, region=region)


def s3_place(settings: ObjectSettings, environment: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """Endpoint (None: AWS's own) and region of the S3 server. Raises ConfigurationError."""
    variables = os.environ if environment is None else environment
    return _endpoint(settings, variables), _region(settings, variables)


def _endpoint(settings: ObjectSettings, variables: Mapping[str, str]) -> str | None:
    if settings.endpoint is not None:
        return check_endpoint(settings.endpoint)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if found := variables.get(name):
            try:
                return check_endpoint(found)
            except ValueError as error:
                raise ConfigurationError(f"{name}: {str(error).removeprefix('endpoint: ')}") from None
    return None


def _region(settings: ObjectSettings, variables: Mapping[str, str]) -> str:
    return settings.region or variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or "us-east-1"
