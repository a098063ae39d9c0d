"""Problems: why a request cannot be answered, in the format of RFC 9457 (`application/problem+json`)."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from taxifare.serving.rides import Fault

MEDIA_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a request, or one ride of it, is not answered."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        status: Of the answer.
        detail: What is wrong, and the way out.
        errors: What is wrong with which field.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        errors: Sequence[Fault] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(title=status.phrase, status=status.value, detail=detail, errors=tuple(errors))
        self.headers = tuple(headers)
