"""Lines of the prediction log."""

from datetime import UTC, datetime

from taxifare.serving.prediction_log import Answer, Role


def answer(ride_id: str | int, version: str = "4", role: Role = "production", fare: float = 9.5) -> Answer:
    """A line as a service writes it."""
    now = datetime.now(UTC)
    return Answer(
        ride_id=ride_id,
        ride={"pickup_datetime": "2015-03-14 18:05"},
        role=role,
        version=version,
        bundle="d" * 64,
        sequence=7,
        fare=fare,
        upper=12.0,
        corrected=10.0,
        quoted=9.5,
        unit="USD",
        received_at=now,
        answered_at=now,
    )
