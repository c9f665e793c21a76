"""What an error of a store means: try again, it is not there, or somebody has to mend something.

Told apart by S3's error codes, HTTP status, errno and names of exception classes, so that neither
botocore nor gcsfs need be there. Codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sar_eval.errors import SarEvalError
from sar_eval.storage.files import CAUSES

Kind = Literal["transient", "missing", "exists", "refused"]

NO_PERMISSION = (
    "no permission: the credentials in use need to list, read and write there (on S3 s3:ListBucket, "
    "s3:GetObject and s3:PutObject; s3:DeleteObject for `synth clean`)"
)
NO_BUCKET = "there is no such bucket: make it, or mend the name"
CLOCK = "this machine's clock differs from the store's by more than it allows (15 minutes): set the clock"
BAD_CREDENTIALS = "the store does not accept the credentials (unknown, mistyped or expired): renew them"
NO_CREDENTIALS = (
    "no credentials found: for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "for Google Cloud run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
)
NO_CONDITION = "this store has no conditional writes (If-None-Match), so that two workers could both commit"
FULL = "the store is full, or your quota of it"

_REFUSED = {
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), NO_PERMISSION),
    **dict.fromkeys(("NoSuchBucket",), NO_BUCKET),
    **dict.fromkeys(("RequestTimeTooSkewed",), CLOCK),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "401"),
        BAD_CREDENTIALS,
    ),
    **dict.fromkeys(("TokenRefreshRequired", "AuthFailure", "InvalidSecurity"), BAD_CREDENTIALS),
    **dict.fromkeys(("NotImplemented", "501"), NO_CONDITION),
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "507"), FULL),
}
_REGION = (
    *("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
    *("TemporaryRedirect", "301", "307"),
)
_TRANSIENT_CODES = (
    *(
        "InternalError",
        "ServiceUnavailable",
        "SlowDown",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
    ),
    *("RequestLimitExceeded", "OperationAborted", "ConditionalRequestConflict", "BadDigest"),
    *("IncompleteBody", "XAmzContentSHA256Mismatch", "408", "409", "429"),
)
_EXISTS = ("PreconditionFailed", "412")
_BY_CLASS = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"), NO_CREDENTIALS),
    **dict.fromkeys(("DefaultCredentialsError", "CredentialRetrievalError"), NO_CREDENTIALS),
    **dict.fromkeys(("RefreshError", "TokenRetrievalError"), BAD_CREDENTIALS),
    "NoRegionError": "no region is set: set AWS_DEFAULT_REGION",
}
# Of botocore, aiohttp, http.client, fsspec, requests and google.auth: the connection, not the request.
_TRANSIENT_CLASSES = {
    *("TimeoutError", "ConnectionError", "FSTimeoutError", "IncompleteRead"),
    *("HTTPClientError", "ConnectionClosedError", "EndpointConnectionError", "ResponseParserError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "RequestException"),
    *("TransportError", "ChecksumError", "IncompleteReadError", "ResponseStreamingError"),
}
_TRANSIENT_ERRNO = (
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE),  # ESTALE: NFS
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, getattr(errno, "EREMOTEIO", errno.EAGAIN)),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and for what somebody has to mend also how, as words of a message."""

    kind: Kind
    text: str


def is_transient(error: Exception) -> bool:
    """Whether the same call may work a little later."""
    return not isinstance(error, SarEvalError) and fault(error).kind == "transient"


def fault(error: BaseException) -> Fault:
    """What an error of a store or a file system means."""
    # The nearest link that says something: those behind it may be another call's, whose error was being
    # handled when this one was made.
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            return _of_response(response)
        if found := _of_class(link) or _of_status(link):
            return found
    return _of_errno(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was made from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _of_response(response: Mapping[str, Any]) -> Fault:
    """Of botocore's `ClientError.response`. An answer to HEAD has no body: its code is the status."""
    code = str(response["Error"].get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status = str(metadata.get("HTTPStatusCode", ""))
    said = _one_line(f"{code}: {response['Error'].get('Message', '')}")
    if code in _REGION or (code == "400" and "x-amz-bucket-region" in metadata.get("HTTPHeaders", {})):
        return Fault("refused", _region(response))
    for key in (code, status):
        if found := _of_code(key, said):
            return found
    return Fault("refused", said)


def _of_code(code: str, said: str) -> Fault | None:
    if code in _EXISTS:
        return Fault("exists", said)
    if code in _REFUSED:
        return Fault("refused", f"{_REFUSED[code]} ({said})")
    if code in ("NoSuchKey", "404"):
        return Fault("missing", said)
    if code in _TRANSIENT_CODES or (len(code) == 3 and code.startswith("5")):
        return Fault("transient", said)
    return None


def _region(response: Mapping[str, Any]) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = response["Error"].get("Region") or headers.get("x-amz-bucket-region")
    name = f" ({_one_line(str(region))})" if region else ""
    return f"the bucket is in another region{name}: set AWS_DEFAULT_REGION to it"


def _of_class(error: BaseException) -> Fault | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    for name in names:
        if name in _BY_CLASS:
            return Fault("refused", f"{_BY_CLASS[name]} ({_one_line(str(error))})")
    if _TRANSIENT_CLASSES.intersection(names):
        return Fault("transient", _one_line(f"{names[0]}: {error}"))
    return None


def _of_status(error: BaseException) -> Fault | None:
    """Of gcsfs, whose errors carry the HTTP status, or the word alone where it is 403."""
    said = _one_line(str(error))
    code = getattr(error, "code", None)
    if code is not None:
        return _of_code(str(code), said)
    return Fault("refused", f"{NO_PERMISSION} ({said})") if said.startswith("Forbidden: ") else None


def _of_errno(error: BaseException) -> Fault:
    number = getattr(error, "errno", None)
    if isinstance(error, FileExistsError):
        return Fault("exists", "something else is in the way")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        is_barred = isinstance(error, NotADirectoryError)
        return Fault("missing", "a file is in the way" if is_barred else "it does not exist")
    if number in _TRANSIENT_ERRNO:
        return Fault("transient", _one_line(str(error)))
    if number in CAUSES:
        return Fault("refused", CAUSES[number])
    if isinstance(error, PermissionError):
        return Fault("refused", f"no permission ({_one_line(str(error))})")
    return Fault("refused", _one_line(f"{type(error).__name__}: {error}"))


def _one_line(text: str, limit: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
