"""S3, and what speaks its language: s3fs, whose refusals are told. Needs the extra `aws`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientError as TransportError
from botocore import exceptions as botocore
from botocore.exceptions import ClientError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from taxifare.buckets import Hints, Looking, Trouble, UnreachableError, unreachable

HINTS = Hints(
    login=(
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, say who asks, in the environment; .env is not "
        "enough"
    ),
    server="AWS_DEFAULT_REGION and AWS_ENDPOINT_URL say where it is",
)

_LOGINS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
# To these a 404 cannot mean that a file is not there, whatever the server says with it.
_OF_BUCKETS = {"HeadBucket", "ListObjects", "ListObjectsV2", "PutObject", "CreateMultipartUpload", "DeleteObjects"}
_REGIONS = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_NO_LOGIN = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.ProfileNotFound,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
)
_AWAY = (botocore.ConnectionError, botocore.HTTPClientError, TransportError, TimeoutError, ConnectionError)


def trouble_of(error: BaseException) -> tuple[Trouble, str] | None:
    """Returns what an error of Amazon's clients means, and what was said; None where it says that a file is not there.

    It is also None for what is no error of theirs.
    """
    if isinstance(error, ClientError):
        return _answer(error)
    if isinstance(error, _NO_LOGIN):
        return "login", str(error)
    said = str(error) or type(error).__name__
    if isinstance(error, _AWAY):
        return "away", said
    if isinstance(error, botocore.NoRegionError):
        return "region", said
    return ("other", said) if isinstance(error, botocore.BotoCoreError) else None


def _answer(error: ClientError) -> tuple[Trouble, str] | None:
    answer = error.response
    told = answer.get("Error", {})
    code, message = told.get("Code") or "", told.get("Message") or ""  # None where the element is empty
    facts = answer.get("ResponseMetadata", {})
    status = int(facts.get("HTTPStatusCode", 0)) or (int(code) if code.isdigit() else 0)
    region = facts.get("HTTPHeaders", {}).get("x-amz-bucket-region") or told.get("Region")
    named = [str(status)] if code.isdigit() else [str(status), code]
    said = f"{' '.join(named)}: {message}" + (f", it is in {region}" if region else "")
    if code == "NoSuchBucket" or (status == 404 and error.operation_name in _OF_BUCKETS):
        return "missing", said
    if code == "RequestTimeTooSkewed":
        return "clock", said
    if code in _REGIONS or status in {301, 307}:
        return "region", said
    if code in _LOGINS or status == 401:
        return "login", said
    if status == 403:
        return "forbidden", said
    if status in {429, 500, 502, 503, 504} or code in {"SlowDown", "RequestTimeout"}:
        return "throttled", said
    if status == 412:
        return "changed", said
    # To "HEAD" nobody can say more than the status; other pages that are not there are not the bucket's answer.
    is_absent = code in {"NoSuchKey", "NoSuchVersion"} or (status == 404 and error.operation_name == "HeadObject")
    return None if is_absent else ("other", said)


class Bucket(Looking, S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Buckets of S3, opened for a setting.

    Args:
        setting: Which names the bucket, for messages.
        options: As s3fs has them.
    """

    def __init__(self, *args: Any, setting: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self._setting = setting

    @contextmanager
    def _told(self, bucket: str, key: str = "") -> Iterator[None]:
        """Raises UnreachableError for what is no answer to the question whether there is a file."""
        try:
            yield
        except UnreachableError:
            raise
        except Exception as error:
            # What s3fs makes of an answer, it raises from it.
            found = trouble_of(error) or (error.__cause__ and trouble_of(error.__cause__))
            if found:
                address = f"s3://{bucket}/{key}".rstrip("/")
                raise unreachable(self._setting, address, *found, HINTS) from None
            raise

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """All requests go through here."""
        with self._told(kwargs.get("Bucket", ""), kwargs.get("Key") or kwargs.get("Prefix") or ""):
            return await super()._call_s3(method, *args, **kwargs)

    call_s3 = sync_wrapper(_call_s3)

    async def _cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        bucket, key, _ = self.split_path(path)
        with self._told(bucket, key):
            return await super()._cat_file(path, *args, **kwargs)

    async def _bulk_delete(self, pathlist: Sequence[str], **kwargs: Any) -> Sequence[str]:
        """One by one: of many in one request, each that is refused would be a text within an answer."""
        for path in pathlist:
            await self._rm_file(path, **kwargs)
        return pathlist

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """The answer may be cut off while it is read, which is no request any more."""
        file = super()._open(path, *args, **kwargs)
        fetch = file._fetch_range  # noqa: SLF001 - what fsspec has its files define

        def fetched(*span: int) -> bytes:
            bucket, key, _ = self.split_path(path)
            with self._told(bucket, key):
                content: bytes = fetch(*span)
            return content

        file._fetch_range = fetched  # noqa: SLF001
        if file.readable():
            file.cache.fetcher = fetched
        return file
