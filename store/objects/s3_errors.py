"""What S3 and the network said, in our errors.

obstore's exceptions carry the server's whole answer. That of a wrong signature repeats the request, session token
included: so the texts are made anew from the status, S3's error code and the kind of network trouble, and the original is
not kept as the cause (it would be written with tracebacks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from schemas.errors import LogfeedError
from store.objects.port import ObjectMissing, ObjectStoreRefused, ObjectStoreUnavailable

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>|\(code: (\w{1,64})\)")
_RETRIES: Final = re.compile(r"after (\d+) retries")
_KIND: Final = re.compile(r"kind: (Timeout|Connect)\b")
_METADATA_SERVICE: Final = ("/latest/api/token", "/latest/meta-data")

_CREDENTIALS: Final = "the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)"
_OF_CREDENTIALS: Final = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("InvalidSecurity", "AuthorizationHeaderMalformed", "InvalidClientTokenId", "UnrecognizedClientException"),
)
_OF_REGION: Final = ("PermanentRedirect", "IllegalLocationConstraintException", "AuthorizationHeaderMalformed")
_PASSING: Final = (
    *("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "RequestLimitExceeded", "Throttling"),
    # An upload that was completed although its answer was lost, or aborted by somebody: putting it again is right.
    *("NoSuchUpload", "OperationAborted"),
)
_RETRIED: Final = (408, 429)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of whom."""

    operation: str
    what: str
    """Key or prefix."""
    bucket: str
    place: str
    endpoint: str
    region: str


def translate(error: Exception, asked: Asked) -> LogfeedError:
    """Our error for one of obstore's."""
    text = str(error)
    status = int(match[1]) if (match := _STATUS.search(text)) else None
    code = (match[1] or match[2]) if (match := _CODE.search(text)) else None
    if code in _PASSING:
        return _unavailable(text, f"the server answered {code}", asked)
    if code == "NoSuchBucket":
        return _refused(f"objects.url: there is no bucket {asked.bucket} at {asked.endpoint}", asked)
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(asked.what, asked.place)
    if any(part in text for part in _METADATA_SERVICE):
        return _refused(
            f"no credentials: {_CREDENTIALS.removeprefix('the credentials ')[1:-1]} are not set, and this machine's"
            " metadata service has none",
            asked,
        )
    if status == 301 or code in _OF_REGION or "incorrectly configured region" in text:
        return _refused(
            f"objects.region (AWS_REGION): the bucket {asked.bucket} is not in {asked.region}"
            f"{', or the credentials are malformed' if code == 'AuthorizationHeaderMalformed' else ''}",
            asked,
        )
    if code == "RequestTimeTooSkewed":
        return _refused("this machine's clock is too far from the server's (RequestTimeTooSkewed)", asked)
    if code in _OF_CREDENTIALS or status == 401:
        return _refused(f"{_CREDENTIALS} are not accepted ({code or status})", asked)
    if status == 403 or code == "AccessDenied":
        return _refused(f"{_CREDENTIALS} are wrong or do not permit this ({code or 'status 403'})", asked)
    if "certificate" in text:
        return _refused(f"objects.endpoint: the certificate of {asked.endpoint} is not trusted", asked)
    if status is not None and 400 <= status < 500 and status not in _RETRIED:
        return _refused(f"the server answered {status}{f' {code}' if code else ''}", asked)
    if status is not None:
        return _unavailable(text, f"the server answered {status}{f' {code}' if code else ''}", asked)
    return _unavailable(text, _trouble(text), asked)


def _trouble(text: str) -> str:
    match _KIND.search(text):
        case None:
            return "the connection broke"
        case found if found[1] == "Connect" or "ConnectError" in text or "tcp connect error" in text:
            return "no connection"
        case _:
            return "no answer within objects.silence_s"


def _refused(why: str, asked: Asked) -> ObjectStoreRefused:
    return ObjectStoreRefused(f"{asked.place}: {asked.operation} {asked.what} was refused: {why}")


def _unavailable(text: str, why: str, asked: Asked) -> ObjectStoreUnavailable:
    retries = f" after {match[1]} retries" if (match := _RETRIES.search(text)) else ""
    return ObjectStoreUnavailable(
        f"{asked.place}: {asked.operation} {asked.what} failed{retries}: {why} ({asked.endpoint})"
    )
