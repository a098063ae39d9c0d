"""What every source of trips promises, and what each uses to keep it.

How trips are published in one place only belongs into the module of that source. What a source may answer of a month –
published, not published yet, cannot tell – is told apart in `told_apart`, and nowhere else. Why the third answer is
never taken for the second: docs/decisions.md, under sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import pandas as pd

from taxifare.errors import ToldError
from taxifare.trips.clock import Offsets, all_offsets, from_utc
from taxifare.trips.columns import TIME_COLUMNS
from taxifare.trips.months import Month, bounds, months_between
from taxifare.trips.publication import BasePublication, LargePublication, Publication
from taxifare.trips.table import TripTableError, as_trip_table
from taxifare.trips.targets import Target
from taxifare.trips.wholeness import Extent


class SourceError(ToldError, RuntimeError):
    """A source cannot give what was asked; the message names the file or address, the month and what was expected.

    Of whether there is a month, or base years, it says nothing: it cannot tell.
    """


class MonthNotPublishedError(SourceError):
    """The source has no such month (yet), and there is a positive sign of it."""


class NoBaseError(SourceError):
    """The source has no years before the first month, and says so; one that does not answer is another error."""


class CannotTellError(SourceError):
    """A source cannot tell whether it has a month; those before it are known.

    Attributes:
        month: The oldest of which it cannot tell.
        before: The published months before that, and their revisions, oldest first.
    """

    def __init__(self, message: str, month: Month, before: Mapping[Month, str]) -> None:
        super().__init__(message)
        self.month = month
        self.before = dict(before)


Published = TypeVar("Published", Publication, LargePublication, Publication | LargePublication)

Answer: TypeAlias = str | SourceError
"""What a source answers of one month: its revision; that it is not published (`MonthNotPublishedError`); or any other
error, which says that it cannot tell."""


@dataclass(frozen=True)
class Sample:
    """Some trips of a month or of the base years, to see what they are like.

    Attributes:
        published: The trips.
        share: Which share of what is there they are, 0 to 1; None where that is not known.
        offsets: Which offsets all times say that are there, as far as that is known.
    """

    published: Publication
    share: float | None
    offsets: Offsets = field(default_factory=Offsets)


class TripSource(Protocol):
    """A publisher of monthly trips and of the base years before them.

    Reading is deterministic: the same revision has the same rows. Months are half-open. A source raises `SourceError`
    (or a subclass) with a message a person can act on, and never returns part of a month.
    """

    def months(self) -> dict[Month, str]:
        """Returns the published months and their revisions, oldest first, without reading trips.

        Raises:
            CannotTellError: Of one of the months the source cannot tell whether it is published.
            SourceError: It cannot tell of any.
        """
        ...

    def rides(self) -> Mapping[Month, int]:
        """Returns how many rides published months have, of those whose number is known without reading trips."""
        return {}

    def extent(self, month: Month) -> Extent | None:  # noqa: ARG002 - most sources say so of every month
        """Returns how far a published month goes; None where that is not known before all of it is read as trips."""
        return None

    def sample(self, month: Month | None) -> Sample | None:  # noqa: ARG002 - likewise
        """Returns some trips of a month, or of the base years, read as all of them would be.

        None where no setting says what their columns are: those of publishers, and simulated ones.

        Args:
            month: A published one; None: the base years.

        Raises:
            NoBaseError: There are no base years.
            SourceError: They cannot be read as trips of that month, or of before the first month.
        """
        return None

    def read_month(self, month: Month) -> Publication:
        """Returns one month of trips, at least one row.

        Raises:
            MonthNotPublishedError: The source does not have this month (yet).
            SourceError: The source cannot tell, or the month cannot be read as trips of that month.
        """
        ...

    def open_month(self, month: Month) -> Publication | LargePublication:
        """Returns one month of trips as `read_month` does, but not as a frame where that should not be in memory."""
        return self.read_month(month)

    def read_base(self) -> BasePublication:
        """Returns the trips of the years before the first month, which are read when their parts are asked for.

        Raises:
            NoBaseError: There are none.
            SourceError: They cannot be read.
        """
        ...

    def base_revision(self) -> str:
        """Returns the revision of the base years without reading trips.

        Raises:
            NoBaseError: There are none.
            SourceError: It cannot be known now.
        """
        ...


def told_apart(answers: Mapping[Month, Answer], first: Month, last: Month | None, origin: str) -> dict[Month, str]:
    """Returns the months that are published, and their revisions, oldest first.

    A month that is not there, beyond all that are published, is not published yet. One that is not there while a later
    one is, and one of which the source says anything but that, is one of which it cannot tell. So it is of the months
    that are worked on, from the first to the last; others are published, or nobody asks.

    Args:
        answers: What the source said of each month; one that is not among them is not there.
        first: The first month that is worked on.
        last: The last one, None: the present one.
        origin: Where the months are, for people.

    Raises:
        CannotTellError: Of one of the months it cannot be told.
    """
    revisions = {month: answer for month, answer in sorted(answers.items()) if isinstance(answer, str)}
    now = new_york_now().to_period("M")
    worked_on = [month for month in answers if first <= month <= min(last or now, now)]
    newest = max((month for month in worked_on if month in revisions), default=None)
    for month in months_between(first, max(worked_on, default=first - 1)):
        answer = answers.get(month, MonthNotPublishedError(f"{origin}: no month {month}"))
        if isinstance(answer, str):
            continue
        if not isinstance(answer, MonthNotPublishedError):
            why = str(answer)
        elif newest is not None and month < newest:
            why = f"{newest} is, and this is not: {answer}: if it never will be, set FIRST_MONTH to a month after it"
        else:
            continue
        before = {earlier: revision for earlier, revision in revisions.items() if earlier < month}
        told = f"cannot tell whether month {month} is published: {why}; nothing from {month} on is run meanwhile"
        raise CannotTellError(told, month, before)
    return revisions


def published_before(source: TripSource, month: Month) -> dict[Month, str]:
    """Returns the published months before one, and their revisions; of later ones the source need not tell.

    Raises:
        SourceError: Of an earlier month, or of any, the source cannot tell whether it is published.
    """
    try:
        published = source.months()
    except CannotTellError as doubt:
        if doubt.month < month:
            raise
        published = doubt.before
    return {earlier: revision for earlier, revision in published.items() if earlier < month}


def not_there(source: TripSource, month: Month, told: str) -> SourceError:
    """Returns what it means that a source does not have a month when asked for it: not published, or it cannot tell.

    Args:
        source: Says which months are published.
        month: Which it does not have.
        told: What to say of it.

    Raises:
        SourceError: Of no month the source can tell.
    """
    try:
        published = source.months()
    except CannotTellError as doubt:
        if doubt.month <= month:
            return doubt
        published = doubt.before
    if month in published:
        return SourceError(f"{told}: it was there a moment ago: try again")
    return MonthNotPublishedError(told)


def unchanged(publication: Published, revision: str) -> Published:
    """Returns a part of the base years, which has to be of the revision that was announced.

    Raises:
        SourceError: It has another one.
    """
    if publication.revision != revision:
        raise SourceError(
            f"{publication.origin}: expected revision {revision}, received {publication.revision}: the base years "
            "changed while they were read: try again"
        )
    return publication


def base_revision_of(source: TripSource) -> str | None:
    """Returns the revision of the base years, None where the source has none.

    Raises:
        SourceError: It cannot be known now.
    """
    try:
        return source.base_revision()
    except NoBaseError:
        return None


def month_with(target: Target, source: TripSource, month: Month) -> Publication | LargePublication:
    """Returns a month as published, some of whose trips tell the target.

    Raises:
        MonthNotPublishedError: The source does not have this month.
        SourceError: It cannot be read as trips of that month, or none of them tells the target.
    """
    published = source.open_month(month)
    origin = f"{published.origin}: month {month}"
    ensure_target(target, published.known(target.column), len(published.pickups), origin)
    return published


def ensure_target(target: Target, known: int, trips: int, origin: str) -> None:
    """Ensures that trips as published tell the target; single ones that do not are cleaning's business.

    Args:
        target: What is to be learned of them.
        known: How many of them have a value in the target's column.
        trips: How many there are.
        origin: Where they are from.

    Raises:
        SourceError: None of them does; names the origin and the column.
    """
    if trips and not known:
        raise SourceError(
            f"{origin}: column {target.column}: expected values, which TARGET={target.name} needs, received none in "
            f"{trips:,} trips"
        )


def now_in(time_zone: str) -> pd.Timestamp:
    """Returns what the clocks show there."""
    return pd.Timestamp.now(tz=time_zone).tz_localize(None)


def new_york_now() -> pd.Timestamp:
    """Returns what the clocks in New York show."""
    return now_in("America/New_York")


def checked_trips(
    frame: pd.DataFrame,
    origin: str,
    time_zone: str | None,
    *,
    first_number: int = 0,
    left_out: Mapping[str, int] | None = None,
    offsets: Offsets | None = None,
) -> pd.DataFrame:
    """Returns rows as read from a source as a trip table with at least one row, see `as_trip_table`.

    Args:
        frame: The rows.
        origin: Where they are from.
        time_zone: Of the city; None where times are the city's clock already.
        first_number: Where their numbering starts.
        left_out: How many rows were there besides and are no such trips, by reason.
        offsets: Of all times of what is read, where the rows are a part of it.

    Raises:
        SourceError: There are no rows, or they are not trips; names the origin, the column and the first misfit.
    """
    try:
        trips = as_trip_table(frame, origin, first_number=first_number, time_zone=time_zone, offsets=offsets)
    except TripTableError as error:
        raise SourceError(str(error)) from error
    if trips.empty:
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in (left_out or {}).items() if rows)
        raise SourceError(f"{origin}: expected trips, received no rows{reasons and '; left out were '}{reasons}")
    return trips


def checked_month(
    frame: pd.DataFrame,
    month: Month,
    origin: str,
    time_zone: str | None,
    *,
    left_out: Mapping[str, int] | None = None,
    offsets: Offsets | None = None,
) -> pd.DataFrame:
    """Returns rows as read from a source as a trip table of that month: at least one row, all of them in the month.

    Raises:
        SourceError: As `checked_trips`, or a pickup is before the month or at or after the first instant of the next.
    """
    trips = checked_trips(frame, f"{origin}: month {month}", time_zone, left_out=left_out, offsets=offsets)
    first, until = bounds(month)
    pickups = trips["pickup_datetime"]
    strays = pickups[(pickups < first) | (pickups >= until)]
    if len(strays):
        raise SourceError(
            f"{origin}: month {month}: column pickup_datetime: expected times from {first} until before {until}, "
            f"received {strays.iloc[0]} (the first of {len(strays):,} such rows of {len(trips):,})"
            f"{_if_they_are_utc(pickups, month, time_zone)}{_if_all_said_utc(frame, time_zone, offsets)}"
        )
    return trips


def _if_they_are_utc(pickups: pd.Series, month: Month, time_zone: str | None) -> str:
    """Returns what to do where times would all be of the month if they were UTC; nothing where they would not."""
    if time_zone is None:
        return ""
    (first, until), shown = bounds(month), pd.Series(from_utc(pickups.to_numpy(), time_zone))
    if not shown.between(first, until, inclusive="left").all():
        return ""
    return (
        ": if they were UTC they would all be of the month, and they are taken for the city's clock: write them as it "
        "showed them, or with its offset from UTC, as in 12:00-05:00"
    )


def _if_all_said_utc(frame: pd.DataFrame, time_zone: str | None, offsets: Offsets | None) -> str:
    """Returns why times that say UTC were converted from it; nothing where none were."""
    said = offsets or all_offsets((frame[name] for name in TIME_COLUMNS if name in frame), time_zone)
    return f"; {said.remark(str(time_zone))}" if said.is_utc_meant else ""


def untold_dropoffs(frame: pd.DataFrame, trips: pd.DataFrame) -> dict[str, int]:
    """Returns how many drop-off times of the rows are not in the trip table that was made of them, under their reason.

    Those are the times at a change of the clock that leave open how long a ride took, see `clock.on_pickups_clock`;
    whoever learns durations has no use for such a ride, and cleaning drops it.
    """
    if "dropoff_datetime" not in frame:
        return {}
    untold = int(frame["dropoff_datetime"].count() - trips["dropoff_datetime"].count())
    return {"dropoff_at_clock_change": untold} if untold else {}
