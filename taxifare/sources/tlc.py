"""Trips from the monthly files of New York's Taxi and Limousine Commission, as published: yellow or green, parquet.

Since 2011 they say in which taxi zone a ride starts and ends; a ride is placed at the zones' centroids, computed in the
projection of the published shapefile. What is no ride of the month or starts or ends nowhere known is left out and
counted. A month of millions is read a piece at a time and sampled: the same file gives the same rides. How rides are
drawn, and why zones have two numbers: docs/decisions.md, under sources.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxifare.digests import digest
from taxifare.secrets import below, shown
from taxifare.settings import TaxiColor, TlcSettings
from taxifare.sources.base import (
    Answer,
    MonthNotPublishedError,
    NoBaseError,
    SourceError,
    TripSource,
    checked_month,
    new_york_now,
    not_there,
    told_apart,
    unchanged,
)
from taxifare.sources.files import ensure_no_bomb, open_parquet, reading
from taxifare.sources.web import Web, WebError, answers_of
from taxifare.trips import stored
from taxifare.trips.clock import Clocked, ClockError, on_pickups_clock, wall_clock
from taxifare.trips.months import Month, bounds, months_between
from taxifare.trips.publication import BasePublication, LargePublication, Publication
from taxifare.trips.table import DTYPES

Rows = dict[str, npt.NDArray[Any]]

READER_VERSION = 1
"""Part of each revision: to be raised when the same file would give other trips."""

USUAL_DELAY_MONTHS = 4
"""A month is published about two months late; if none of the months older than this is there, the address is wrong."""

_METER = {"yellow": "tpep", "green": "lpep"}
_BATCH_ROWS = 1 << 18
_SMALL_TYPES = {"from_zone": np.int16, "to_zone": np.int16, "row": np.int32}
"""Of columns whose values fit there: rides of zones that are known, and numbers of rows."""

_MOST_BYTES_OF_ZONES = 1 << 27
_HIGHEST_ZONE = 10_000
"""The city has 263, in a file of a megabyte; memory goes with the highest number."""

_TIME_ZONE = "America/New_York"


@dataclass(frozen=True)
class Zones:
    """Where the taxi zones are; a zone that is unknown is at NaN.

    Attributes:
        longitude: Of the centroid of each zone, by its number; degrees.
        latitude: Likewise.
    """

    longitude: npt.NDArray[np.float64]
    latitude: npt.NDArray[np.float64]

    @classmethod
    def read(cls, file: Path, origin: str) -> "Zones":
        """Returns the zones of the published shapefile, a zip; messages call it `origin`.

        Zones that are several polygons have the number of their first in `LocationID` of all; trips use the polygons'
        own numbers (`OBJECTID`): 57 beside 56, 104 and 105 beside 103.

        Raises:
            SourceError: It is no zip, or has no shapefile of numbered zones in a projection.
        """
        import pyproj
        import shapefile
        import shapely

        points: dict[int, shapely.Point] = {}
        try:
            with zipfile.ZipFile(file) as archive:
                _ensure_small(archive, origin)
                members = {Path(name).suffix: archive.read(name) for name in archive.namelist() if "/._" not in name}
            crs = pyproj.CRS.from_wkt(members[".prj"].decode())
            parts = {ending: io.BytesIO(members[f".{ending}"]) for ending in ("shp", "shx", "dbf")}
            with shapefile.Reader(**parts) as reader:
                for entry in reader.iterShapeRecords():
                    first, own = entry.record["LocationID"], entry.record["OBJECTID"]
                    outline = shapely.geometry.shape(entry.shape.__geo_interface__)
                    points[own if first in points else first] = outline.centroid
        except SourceError:
            raise
        except (
            *(OSError, LookupError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),
            *(shapefile.ShapefileException, pyproj.exceptions.CRSError),
        ) as error:
            raise SourceError(f"{origin}: expected a zip of the taxi zones' shapefile: {error!r}") from error
        if not crs.is_projected or not points:
            received = f"{len(points)} zones in {crs.name}"
            raise SourceError(
                f"{origin}: expected zones in a projection, in which centroids are right, received {received}"
            )
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        numbers = np.array(list(points))
        if not ((numbers >= 0) & (numbers <= _HIGHEST_ZONE)).all():
            raise SourceError(f"{origin}: expected zones numbered up to {_HIGHEST_ZONE:,}, received {numbers.max():,}")
        longitude, latitude = np.full((2, numbers.max() + 1), np.nan)
        longitude[numbers], latitude[numbers] = to_degrees.transform(
            [point.x for point in points.values()], [point.y for point in points.values()]
        )
        return cls(longitude, latitude)

    def known(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Returns which of the numbers are those of zones with a place."""
        within = (numbers >= 0) & (numbers < len(self.longitude))
        return within & ~np.isnan(self.longitude)[np.where(within, numbers, 0)]


@dataclass(frozen=True, kw_only=True)
class Tlc(TripSource):
    """Publishes months of the Taxi and Limousine Commission's files, sampled.

    The base years are the months before the first, as many as are set, each sampled as a month is.

    Attributes:
        web: Gets the files.
        url: Address that the folders `trip-data` and `misc` are under.
        color: Yellow taxis or green ones.
        trips_per_month: Trips to draw from a month that has more; None is all.
        base_months: How many months the base years are.
        first_month: First month.
        last_month: Last month, None: the present one, as soon as it is published.
        now: The wall clock in New York.
    """

    web: Web
    url: str = field(repr=False)
    color: TaxiColor
    trips_per_month: int | None
    base_months: int
    first_month: Month
    last_month: Month | None
    now: Callable[[], pd.Timestamp] = new_york_now

    @classmethod
    def from_settings(cls, settings: TlcSettings, web: Web) -> Self:
        """Returns the commission's taxis of TLC_COLOR."""
        return cls(
            web=web,
            url=settings.tlc_url.get_secret_value(),
            color=settings.tlc_color,
            trips_per_month=settings.tlc_trips_per_month,
            base_months=settings.tlc_base_months,
            first_month=settings.first_month,
            last_month=settings.last_month,
        )

    def months(self) -> dict[Month, str]:
        """Returns the months that are published, asked for one by one.

        Raises:
            CannotTellError: A month is missing or refused though a later one is there, or the server does not answer.
            SourceError: The server has none of months that must be out by now, or not the zones.
        """
        now = self.now().to_period("M")
        # The month before the first is published, and shows that the server does not refuse everything.
        answers = self._answers(self.first_month - 1, min(self.last_month or now, now))
        del answers[self.first_month - 1]
        published = told_apart(answers, self.first_month, self.last_month, shown(self.url))
        if not published and self.first_month < now - USUAL_DELAY_MONTHS:
            raise SourceError(
                f"{shown(self._address(self.first_month))}: expected months from {self.first_month} on, received none: "
                "check TLC_URL, TLC_COLOR and FIRST_MONTH"
            )
        return published

    def read_month(self, month: Month) -> Publication:
        """Returns the month's trips, sampled.

        Raises:
            MonthNotPublishedError: The server has no such file (yet).
            SourceError: Whether it has one it cannot tell, or the file is not trips of that month with zones.
        """
        return self._rides(month).in_memory()

    def open_month(self, month: Month) -> Publication | LargePublication:
        """Returns the month's trips, sampled; not as a frame where there are more than should be in memory.

        Raises:
            SourceError: As `read_month`.
        """
        rides = self._rides(month)
        return rides.in_memory() if len(rides.columns["row"]) <= stored.MOST_IN_MEMORY else rides.by_parts()

    def _rides(self, month: Month) -> "_Rides":
        """Returns what the month's file has."""
        origin = shown(self._address(month))
        try:
            received = self.web.download(self._address(month), partial(_check_columns, origin=origin, color=self.color))
        except WebError as error:
            if error.is_absence or (error.is_refusal and month >= self.first_month):
                raise not_there(self, month, f"no month {month}, or not yet: {error}") from error
            raise
        zones = self.web.download(self._zones_address, self._check_zones)
        places = _zones(zones.path, shown(self._zones_address))
        columns, dropped = _read_rides(received.path, month, self.color, places, self.trips_per_month, origin)
        return _Rides(columns, dropped, month, places, self._digest(received.revision, zones.revision), origin)

    def read_base(self) -> BasePublication:
        """Returns the trips of the months before the first, month by month.

        Raises:
            NoBaseError: None of them is there.
            SourceError: One of them cannot be had, is not trips with zones, or changes meanwhile.
        """
        revisions = self._base_revisions()
        parts = (part for month, revision in revisions.items() for part in self._parts(month, revision))
        ends = sorted({shown(self._address(month)) for month in (min(revisions), max(revisions))})
        return BasePublication(parts, digest(list(revisions.values())), " and ".join(ends))

    def _parts(self, month: Month, revision: str) -> Iterator[Publication]:
        """Yields a month of the base years, in parts where it is large."""
        published = unchanged(self.open_month(month), revision)
        if isinstance(published, Publication):
            yield published
            return
        dropped = published.dropped
        for trips in published.parts():
            yield Publication(trips, revision, published.origin, dropped=dropped)
            dropped = {}

    def base_revision(self) -> str:
        """Returns the revision of the base years.

        Raises:
            NoBaseError: None of the months is there.
            SourceError: One of them is not there, or the server does not answer.
        """
        return digest(list(self._base_revisions().values()))

    def _base_revisions(self) -> dict[Month, str]:
        """Returns the months of the base years and their revisions, oldest first."""
        first = self.first_month - self.base_months
        answers = self._answers(first, self.first_month - 1, later=self.first_month)
        revisions = {month: answer for month, answer in answers.items() if isinstance(answer, str)}
        if len(revisions) == self.base_months:
            return revisions
        lacking = next(month for month in answers if month not in revisions)
        way_out = "lower TLC_BASE_MONTHS, or set FIRST_MONTH to a later month"
        if all(isinstance(answer, MonthNotPublishedError) for answer in answers.values()):
            raise NoBaseError(
                f"no base years of {self.base_months} months before {self.first_month}: none of them is there: "
                f"{answers[lacking]}; {way_out}"
            )
        raise SourceError(
            f"base years of {self.base_months} months before {self.first_month}: expected all of them, received of "
            f"{lacking}: {answers[lacking]}: try again later; if it never was published, {way_out}"
        )

    @property
    def _zones_address(self) -> str:
        return below(self.url, "misc/taxi_zones.zip")

    def _address(self, month: Month) -> str:
        return below(self.url, f"trip-data/{self.color}_tripdata_{month}.parquet")

    def _check_zones(self, file: Path) -> None:
        """Ensures that the file has taxi zones."""
        Zones.read(file, shown(self._zones_address))

    def _answers(self, first: Month, last: Month, later: Month | None = None) -> dict[Month, Answer]:
        """Returns what the server says of the months from first to last.

        Raises:
            SourceError: It does not give the zones.
        """
        zones = self.web.revision(self._zones_address, self._check_zones)

        def revision(month: Month, insist: bool) -> str:
            address = self._address(month)
            check = partial(_check_columns, origin=shown(address), color=self.color)
            return self._digest(self.web.revision(address, check, insist=insist), zones)

        return answers_of(revision, months_between(first, last), later=later)

    def _digest(self, file: str, zones: str) -> str:
        """Returns what all that decides the trips of a month comes to."""
        return digest([READER_VERSION, file, zones, self.trips_per_month])


def _ensure_small(archive: zipfile.ZipFile, origin: str) -> None:
    """Ensures that an archive unpacks to no more than could be zones; more than it says is never unpacked."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_BYTES_OF_ZONES:
        raise SourceError(f"{origin}: expected taxi zones, received a zip that unpacks to {unpacked:,} bytes")


def read_trips(
    file: Path, month: Month, color: TaxiColor, zones: Zones, limit: int | None, origin: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Returns at most `limit` rides of a month's file, drawn at random but always the same, and what was left out.

    Args:
        file: Parquet as published.
        month: Rides of other months in it are left out as `outside_month`.
        color: Whose columns it has.
        zones: Rides that start or end in none of them are left out as `unknown_zone`.
        limit: Further rides are left out as `not_drawn`; None is all.
        origin: What to call it in messages.

    Returns:
        Rows in the order of the file, with `key`: the month and the number of the row in the file.

    Raises:
        SourceError: It is damaged, or a column holds what it should not.
    """
    rides, dropped = _read_rides(file, month, color, zones, limit, origin)
    return _as_trips(rides, month, zones), dropped


def _read_rides(
    file: Path, month: Month, color: TaxiColor, zones: Zones, limit: int | None, origin: str
) -> tuple[Rows, dict[str, int]]:
    """Returns what `read_trips` makes trips of, in half of their room, and what was left out."""
    dropped, rows = {"outside_month": 0, "unknown_zone": 0}, 0
    first, until = (instant.to_datetime64().astype("datetime64[us]") for instant in bounds(month))
    with reading(f"{origin}: month {month}", "taxi trips in parquet"), open_parquet(file) as parquet:
        ensure_no_bomb(parquet, file.stat().st_size, origin)
        groups = map(parquet.metadata.row_group, range(parquet.metadata.num_row_groups))
        drawn = _Drawn(limit, month, sum(group.num_rows for group in groups))
        for batch in _batches(parquet, color, f"{origin}: month {month}"):
            in_month = (batch["pickup"] >= first) & (batch["pickup"] < until)
            placed = zones.known(batch["from_zone"]) & zones.known(batch["to_zone"])
            dropped["outside_month"] += int(np.count_nonzero(~in_month))
            dropped["unknown_zone"] += int(np.count_nonzero(in_month & ~placed))
            numbers = np.arange(rows, rows + len(in_month), dtype=np.int64)
            rows += len(in_month)
            drawn.offer(batch | {"row": numbers}, in_month & placed)
    if not rows:
        raise SourceError(f"{origin}: month {month}: expected taxi trips, received no rows")
    ride = drawn.result()
    ride.pop("rank", None)
    dropped["not_drawn"] = rows - sum(dropped.values()) - len(ride["row"])
    if untold := _put_on_pickups_clock(ride):
        dropped["dropoff_at_clock_change"] = untold
    return ride, dropped


def _put_on_pickups_clock(ride: Rows) -> int:
    """Ensures that drop-offs are by the clock that was right at the pickup; returns how many cannot be told."""
    untold, in_utc = 0, {end: ride.pop(f"{end}_in_utc", None) for end in ("pickup", "dropoff")}
    for start in range(0, len(ride["row"]), stored.BATCH_TRIPS):
        part = slice(start, start + stored.BATCH_TRIPS)
        pickup, dropoff = (
            Clocked(ride[end][part], None if instants is None else instants[part]) for end, instants in in_utc.items()
        )
        stopped = on_pickups_clock(pickup, dropoff, _TIME_ZONE)
        untold += int(np.count_nonzero(np.isnat(stopped) & ~np.isnat(dropoff.wall)))
        ride["dropoff"][part] = stopped
    return untold


def _as_trips(ride: Rows, month: Month, zones: Zones) -> pd.DataFrame:
    """Returns rides as a frame with the columns of the trip table."""
    number = pc.utf8_lpad(pa.array(ride["row"]).cast(pa.string()), 9, "0")
    columns = {
        "key": pd.Series(pc.binary_join_element_wise(f"{month}", number, "-"), dtype=DTYPES["text"]),
        "pickup_datetime": ride["pickup"],
        "pickup_longitude": zones.longitude[ride["from_zone"]],
        "pickup_latitude": zones.latitude[ride["from_zone"]],
        "dropoff_longitude": zones.longitude[ride["to_zone"]],
        "dropoff_latitude": zones.latitude[ride["to_zone"]],
        "passenger_count": ride["passengers"],
        "fare_amount": ride["fare"],
        "dropoff_datetime": ride["dropoff"],
    }
    return pd.DataFrame(columns, copy=False)


@dataclass(frozen=True)
class _Rides:
    """The rides of a month's file, not yet trips.

    Attributes:
        columns: What they are made of, in the order of the file.
        dropped: What was left out.
        month: Which month.
        zones: Where the zones are.
        revision: Of the month.
        origin: What to call it in messages.
    """

    columns: Rows
    dropped: dict[str, int]
    month: Month
    zones: Zones
    revision: str
    origin: str

    def in_memory(self) -> Publication:
        """Returns the trips as a frame."""
        rows = _as_trips(self.columns, self.month, self.zones)
        trips = checked_month(rows, self.month, self.origin, None, left_out=self.dropped)
        return Publication(trips, self.revision, self.origin, dropped=self.dropped)

    def by_parts(self) -> LargePublication:
        """Returns the trips, to be made a batch at a time."""
        columns = self.columns
        counts = {
            "fare_amount": int(np.count_nonzero(~np.isnan(columns["fare"]))),
            "dropoff_datetime": int(np.count_nonzero(~np.isnat(columns["dropoff"]))),
        }
        return LargePublication(columns["pickup"], self._parts, self.revision, self.origin, self.dropped, counts)

    def _parts(self) -> Iterator[pd.DataFrame]:
        order = np.argsort(self.columns["pickup"], kind="stable").astype(np.int32)
        for start in range(0, len(order), stored.BATCH_TRIPS):
            some = order[start : start + stored.BATCH_TRIPS]
            rows = _as_trips({name: column[some] for name, column in self.columns.items()}, self.month, self.zones)
            yield checked_month(rows, self.month, self.origin, None)


class _Drawn:
    """At most `limit` rows of all that are offered: each draws a rank, and the lowest ranks stay.

    The room for them is taken once, for pieces that are put together leave as much memory behind as they took.

    Args:
        limit: None is all.
        month: Decides the ranks.
        offered: How many rows at most are to be offered.
    """

    def __init__(self, limit: int | None, month: Month, offered: int) -> None:
        self._limit, self._cutoff = limit, np.uint64(2**64 - 1)
        self._room = offered if limit is None else min(offered, 2 * limit + _BATCH_ROWS)
        self._columns, self._rows = Rows(), 0
        # Of numpy's generators these bits alone are the same in every version.
        self._bits = np.random.PCG64(np.random.SeedSequence([month.year, month.month]))

    def offer(self, rows: Rows, chosen: npt.NDArray[np.bool_]) -> None:
        """Takes the chosen rows into account, a batch of them at most."""
        if self._limit is not None:
            rows = rows | {"rank": self._bits.random_raw(len(chosen))}
            chosen = chosen & (rows["rank"] <= self._cutoff)
        until = self._rows + int(np.count_nonzero(chosen))
        if self._limit is not None and until > self._room:
            self._draw(self._limit)
            until = self._rows + int(np.count_nonzero(chosen))
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = np.empty(self._room, _SMALL_TYPES.get(name, values.dtype))
            self._columns[name][self._rows : until] = values[chosen]
        self._rows = until

    def result(self) -> Rows:
        """Returns the rows drawn so far, in the order in which they were offered."""
        if self._limit is not None and self._rows > self._limit:
            self._draw(self._limit)
        return {name: column[: self._rows] for name, column in self._columns.items()}

    def _draw(self, number: int) -> None:
        """Ensures that of more rows than so many those of the lowest ranks stay."""
        ranks = self._columns["rank"][: self._rows]
        self._cutoff = np.partition(ranks, number - 1)[number - 1]
        lowest = np.flatnonzero(ranks <= self._cutoff)
        for column in self._columns.values():
            column[: len(lowest)] = column[lowest]
        self._rows = len(lowest)


def _columns(color: TaxiColor) -> dict[str, tuple[str, pa.DataType]]:
    """Returns the columns that are read: what they are called here, there, and of which type they are."""
    meter = _METER[color]
    return {
        "pickup": (f"{meter}_pickup_datetime", pa.timestamp("us")),
        "dropoff": (f"{meter}_dropoff_datetime", pa.timestamp("us")),
        "from_zone": ("PULocationID", pa.int64()),
        "to_zone": ("DOLocationID", pa.int64()),
        "passengers": ("passenger_count", pa.float64()),
        "fare": ("fare_amount", pa.float64()),
        "tolls": ("tolls_amount", pa.float64()),
    }


def _batches(parquet: pq.ParquetFile, color: TaxiColor, origin: str) -> Iterator[Rows]:
    """Yields the columns of the file piece by piece; a null zone is 0, any other null NaN or NaT."""
    columns = _columns(color)
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=[name for name, _ in columns.values()]):
        times, values = Rows(), {}
        for name, (there, kind) in columns.items():
            if pa.types.is_timestamp(kind):
                times |= _times(batch.column(there), name, there)
                continue
            with reading(f"{origin}: column {there}", str(kind), str(batch.column(there).type)):
                values[name] = batch.column(there).cast(kind)
        for zone in ("from_zone", "to_zone"):
            values[zone] = values[zone].fill_null(0)
        rows = times | {name: column.to_numpy(zero_copy_only=False) for name, column in values.items()}
        rows["fare"] = np.round(rows["fare"] + rows.pop("tolls"), 2)
        yield rows


def _times(column: pa.Array, name: str, there: str) -> Rows:
    """Returns a column of times by the clock on the wall and, unless they are so in the file, in UTC.

    Raises:
        ClockError: A value is no time.
    """
    try:
        clocked = wall_clock(column, _TIME_ZONE)
    except ClockError as error:
        raise ClockError(f"column {there}: {error}") from None
    if clocked.instants is not None:
        return {name: clocked.wall, f"{name}_in_utc": clocked.instants}
    if pa.types.is_timestamp(column.type):
        return {name: clocked.wall}
    return {name: clocked.wall, f"{name}_in_utc": np.full_like(clocked.wall, "NaT")}


def _check_columns(file: Path, origin: str, color: TaxiColor) -> None:
    """Ensures that the file is parquet with the columns of trips with zones."""
    with reading(origin, "taxi trips in parquet", "something else"):
        names = pq.read_schema(file).names
    missing = [name for name, _ in _columns(color).values() if name not in names]
    if missing:
        raise SourceError(
            f"{origin}: missing columns {', '.join(missing)}; received {', '.join(names)}: only files with taxi zones "
            "can be read, which those of yellow taxis have since 2011"
        )


@lru_cache(maxsize=4)
def _zones(file: Path, origin: str) -> Zones:
    """Returns the zones of a file, which is called otherwise when it changes."""
    return Zones.read(file, origin)
