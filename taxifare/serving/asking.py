"""What can be asked of whoever prices rides, and the answers: the same messages over HTTP and in a stream."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from taxifare.serving.following import Served
from taxifare.serving.problems import Problem, ProblemError
from taxifare.serving.rides import Fault, Ride, RideError, checked, shown
from taxifare.serving.turns import Asked, Quote
from taxifare.serving.zones import placed, zones_of

LONGEST_ID = 200
"""Characters."""

MOST_RIDES = 10_000
"""In one request."""

_decode = msgspec.json.Decoder().decode


class Priced(msgspec.Struct, kw_only=True):
    """The answer to a ride; what each field means is in `openapi`."""

    ride_id: str | int
    fare: float
    upper: float
    corrected: float
    quoted: float
    unit: str
    model_version: str
    sequence: int | None
    warnings: tuple[str, ...]


class Unpriced(msgspec.Struct, kw_only=True):
    """A ride among others that is not priced, and why."""

    ride_id: Any
    problem: Problem


def decoded(body: bytes) -> Any:
    """Returns what was sent.

    Raises:
        ProblemError: It is not JSON.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"expected JSON in UTF-8: {error}") from None


def asked_of(entry: Any, received_at: datetime, served: Served) -> Asked:
    """Returns the requested ride with its id, checked against the model that is going to price it.

    Raises:
        ProblemError: It is not a ride that can be priced; says for each field what is wrong.
    """
    found = only(entry, ("ride_id", "ride"))
    ride_id = found["ride_id"]
    if not is_id(ride_id):
        expected = f"a text of at most {LONGEST_ID} characters, or a whole number"
        raise unfit([Fault("ride_id", expected, shown(ride_id))])
    return Asked(ride_id, found["ride"], ride_of(found["ride"], served), received_at)


def is_id(found: Any) -> bool:
    """Returns whether this can be the id of a ride."""
    return isinstance(found, str | int) and not isinstance(found, bool) and 0 < len(str(found)) <= LONGEST_ID


def ride_of(told: Any, served: Served) -> Ride:
    """Returns the ride that was described.

    Raises:
        ProblemError: It cannot be priced; says for each field what is wrong.
    """
    if not isinstance(told, dict):
        raise unfit([Fault("ride", "an object", shown(told))])
    try:
        manifest = served.bundle.manifest
        return checked(placed(told, zones_of(manifest.city)), manifest.limits)
    except RideError as error:
        raise unfit(error.faults, error.remarks) from None


def answer_to(asked: Asked, quote: Quote) -> Priced:
    """Returns the answer to a ride."""
    return Priced(
        ride_id=asked.ride_id,
        fare=quote.fare,
        upper=quote.upper,
        corrected=quote.corrected,
        quoted=quote.quoted,
        unit=quote.served.bundle.manifest.unit,
        model_version=quote.served.version,
        sequence=quote.served.sequence,
        warnings=warnings_of(quote),
    )


def warnings_of(quote: Quote) -> tuple[str, ...]:
    """Returns what else has to be known about a quote."""
    return tuple(map(_unlearned, quote.unlearned))


@cache
def _unlearned(rule: str) -> str:
    return f"{rule} is in force at the pickup, and this version has learned from no trip since"


def only(found: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns an object that has these fields and no other.

    Raises:
        ProblemError: It is something else; says for each field what is wrong.
    """
    if not isinstance(found, dict):
        raise unfit([Fault("body", f"an object with {' and '.join(names)}", shown(found))])
    faults = [Fault(name, "a value", "nothing") for name in names if name not in found]
    faults += [Fault(str(name), "no such field", shown(found[name])) for name in found if name not in names]
    if faults:
        raise unfit(faults)
    return found


def unfit(faults: Sequence[Fault], remarks: Sequence[str] = ()) -> ProblemError:
    """Returns the problem with a request, made of its faults and of what explains them."""
    detail = "; ".join([*map(str, faults[:3]), *remarks])
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, faults)
