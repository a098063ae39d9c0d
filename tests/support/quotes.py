"""What quotes came to in tests that price no rides."""

from collections.abc import Mapping

from upath import UPath

from taxifare.gate.scores import Interval
from taxifare.monitoring.realised import ALL, Beside, Promise, RealisedError, RealisedMonth

PROMISE = Promise(subject="base", mae=Interval(mean=2.1, low=2.0, high=2.2), difficulty_mae=2.48)


def quotes_of(month: str, maes: Mapping[str, float], *, beside: tuple[Beside, ...] = ()) -> RealisedMonth:
    """A month in which versions were off by so much, each on 900 rides as hard as those it was approved on."""

    def error(name: str, mae: float, promise: Promise | None) -> RealisedError:
        return RealisedError(
            name=name,
            rides=900,
            mae=mae,
            bias=-0.3,
            difficulty_mae=2.48,
            served_as="production",
            interval=Interval(mean=mae, low=mae - 0.1, high=mae + 0.1),
            quoted_mae=mae,
            promise=promise,
            weeks=(),
            slices=(),
        )

    mean = sum(maes.values()) / len(maes)
    errors = (error(ALL, mean, None), *(error(version, mae, PROMISE) for version, mae in maes.items()))
    return RealisedMonth(month=month, unit="USD", rides=1_000, share_matched=0.9, errors=errors, beside=beside)


def put_quotes(lake: UPath, months: Mapping[str, RealisedMonth]) -> None:
    """Ensures that the lake has them where the asset `served_mae` leaves them."""
    (lake / "served_mae").mkdir(parents=True, exist_ok=True)
    for month, found in months.items():
        (lake / "served_mae" / f"{month}-01.json").write_text(found.model_dump_json())
