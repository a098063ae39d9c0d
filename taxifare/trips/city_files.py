"""City files: what there is to know of a city, read from YAML and checked. The project's own cities are such files.

What models carry with them becomes a `City`; what else depends on the city – its clock, its currency, its meter –
stands beside it. A worked example: docs/your-city.md.

YAML is read as texts in lists and tables, and every text by what its field is: so `NO` is no truth value, `12:30` no
number, and a quoted date a date. What YAML offers beyond that – aliases, tags, several documents – is refused.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import available_timezones

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from taxifare.errors import ToldError
from taxifare.texts import EXPECTED, did_you_mean, written_as
from taxifare.trips.cities import Airport, City, Rule
from taxifare.trips.features import feature_names
from taxifare.trips.meters import Meter, MeterStep

SHIPPED = ("new-york", "chicago")
"""Slugs of the project's own cities, each with a file beside this module."""

MINUTES = "min"
"""What durations are in; no currency is called so."""

EXAMPLE = "a complete file stands in docs/your-city.md"

_ENDINGS = (".yaml", ".yml")

_MOST_BYTES = 2**16

_MOST_NESTED = 8

_MOST_TOLD = 5

_MOST_SHOWN = 60

# A box that is wider than any city is a mistake, and beyond it distances on a plane are wrong.
_MOST_DEGREES = 4.0

_YEARS = (1900, 2199)

_NO_PLACES = {"localtime", "Factory"}
"""Names of time zones that are another one on each machine, or none."""

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class CityFileError(ToldError, ValueError):
    """A file that does not describe a city; says which file and field, what was expected and received."""


@dataclass(frozen=True)
class Currency:
    """What fares are in.

    Attributes:
        name: Its code, as in USD.
        hundredth: What a hundredth of it is called, for small differences; None where nobody counts in those.
    """

    name: str
    hundredth: str | None


@dataclass(frozen=True)
class CityFile:
    """What a city file says.

    Attributes:
        slug: What the city is called in states, streams, requests and names of models. It is who the city is: a file
            may be moved or renamed, and a fact of it corrected, and it is the same city.
        path: Where the file is.
        facts: Box, angle of the streets, airports, dated rules, hours: what models carry with them.
        time_zone: Of the city's clocks.
        currency: Of its fares.
        highest_fare: At or above it, a fare is a defect.
        meter: The steps that its meter counts fares in; none where they are not known.
    """

    slug: str
    path: Path
    facts: City
    time_zone: str
    currency: Currency
    highest_fare: float
    meter: Meter

    def __str__(self) -> str:
        """The slug, for messages."""
        return self.slug

    @property
    def is_shipped(self) -> bool:
        """Whether it is one of the project's own cities, by whichever file."""
        return self.slug in SHIPPED

    @property
    def on_record(self) -> str | None:
        """What records call it; None for the project's own cities, which records of before do not name."""
        return None if self.is_shipped else self.slug

    @property
    def told(self) -> str:
        """What `CITY` is, for messages: the slug, and the file where it is one's own."""
        return self.slug if self.path == _shipped_path(self.slug) else f"{self.slug} ({self.path})"


def city_named(told: object) -> object:
    """Returns the city that a setting names: by the slug of one of the project's own, or by the path of a file.

    >>> str(city_named("chicago"))
    'chicago'
    >>> city_named("chikago")
    Traceback (most recent call last):
    taxifare.trips.city_files.CityFileError: expected new-york, chicago or the path of a YAML file (a complete file
    stands in docs/your-city.md), received 'chikago' (did you mean chicago?)

    Raises:
        CityFileError: There is no such file, or it does not describe a city.
    """
    if isinstance(told, CityFile):
        return told
    text = str(told).strip()
    if text in SHIPPED:
        return shipped(text)
    if "://" in text or not (text.lower().endswith(_ENDINGS) or os.sep in text):
        raise CityFileError(
            f"expected {', '.join(SHIPPED)} or the path of a YAML file ({EXAMPLE}), received {_shown(text)}"
            f"{did_you_mean(text, SHIPPED)}"
        )
    return read_city(Path(text).expanduser().absolute())


@cache
def shipped(slug: str) -> CityFile:
    """Returns one of the project's own cities; KeyError where there is none of that slug."""
    if slug not in SHIPPED:
        raise KeyError(slug)
    return read_city(_shipped_path(slug))


def _shipped_path(slug: str) -> Path:
    return Path(__file__).parent / f"{slug}.yaml"


def read_city(path: Path) -> CityFile:
    """Returns the city that a file describes.

    Raises:
        CityFileError: There is no such file, or it does not describe a city.
    """
    plain = _Plain(path, _text_of(path))
    try:
        form = _CityForm.model_validate(plain.content)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
        told = "; ".join(plain.told(fault) for fault in faults[:_MOST_TOLD])
        raise CityFileError(f"{path}: {told}{more}; {EXAMPLE}") from None
    return form.as_city(path)


def _text_of(path: Path) -> str:
    """Returns what a file says, whatever is in its place."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "what is no file"
            raise CityFileError(f"{path}: expected a YAML file that describes a city, received {what}")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, CityFileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CityFileError(
            f"{path}: expected a YAML file that describes a city, received {reason}: CITY names it, from the folder "
            "that taxifare is started in or from /"
        ) from None
    if len(content) > _MOST_BYTES:
        raise CityFileError(f"{path}: expected at most {_MOST_BYTES:,} bytes about a city, received more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CityFileError(
            f"{path}, line {line}: expected text in UTF-8, received the byte {content[error.start]:#x}"
        ) from None


class _Plain:
    """A YAML file as tables, lists and texts, and the line of each.

    Raises:
        CityFileError: It is no YAML, or more of YAML than a city takes.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines: dict[tuple[str | int, ...], int] = {}
        try:
            self._ensure_simple(text)
            node = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
            raise self._error(None if mark is None else mark.line, f"expected YAML, received {said}") from None
        if not isinstance(node, yaml.MappingNode):
            raise self._error(
                None, f"expected the fields of a city, received {'nothing' if node is None else 'none'}; {EXAMPLE}"
            )
        self.content: Any = self._of(node, ())

    def told(self, fault: ErrorDetails) -> str:
        """Returns what is wrong with a field: its line, its name, what was expected and received."""
        kind, context = fault["type"], fault.get("ctx", {})
        place = (*fault["loc"], *getattr(context.get("error"), "place", ()))
        line = next((self._lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self._lines), None)
        where = "" if line is None else f"line {line + 1}"
        name = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        if kind == "value_error":
            said = str(context["error"])
        elif kind == "missing":
            said = "expected a value, received none"
        elif kind == "extra_forbidden":
            said = f"is no field of a city file{did_you_mean(str(place[-1]), _FIELDS)}"
        else:
            expected = EXPECTED.get(kind, fault["msg"]).format(**context)
            said = f"expected {expected}, received {_shown(fault['input'])}"
        return ": ".join(filter(None, (", ".join(filter(None, (where, name))), said)))

    def _ensure_simple(self, text: str) -> None:
        """Ensures that nothing in a file stands for something elsewhere, and that it is not nested beyond reason."""
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self._error(line, "expected values as they are, received an anchor or an alias (& or *)")
            if getattr(event, "tag", None) is not None:
                raise self._error(line, f"expected plain values, received the tag {_shown(event.tag)}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_NESTED:
                raise self._error(line, "expected the fields of a city, received lists within lists")

    def _of(self, node: yaml.Node, place: tuple[str | int, ...]) -> object:
        self._lines[place] = node.start_mark.line
        if isinstance(node, yaml.SequenceNode):
            return [self._of(item, (*place, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return dict(self._fields(node, place))
        # What is written as nothing is nothing, unless it stands in quotes.
        return None if not node.style and node.value in {"", "~", "null", "Null", "NULL"} else node.value

    def _fields(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> Iterator[tuple[str, object]]:
        seen = set[str]()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key.start_mark.line, "expected the name of a field, received a list or a table")
            if key.value in seen:
                raise self._error(key.start_mark.line, f"{_shown(key.value)} stands there twice: keep one")
            seen.add(key.value)
            found = self._of(value, (*place, key.value))
            self._lines[*place, key.value] = key.start_mark.line  # a table begins a line after its name
            yield key.value, found

    def _error(self, line: int | None, said: str) -> CityFileError:
        where = "" if line is None else f", line {line + 1}"
        return CityFileError(f"{self._path}{where}: {said}")


class _MisfitError(ValueError):
    """Fields that do not go together; says which of them is named, within what is looked at."""

    def __init__(self, place: tuple[str | int, ...], said: str) -> None:
        super().__init__(said)
        self.place = place


def _shown(value: object) -> str:
    """Returns what was received, in quotes where it is a text, and no more of it than says what it is."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _day(value: object) -> object:
    """Reads a day as it is written, and no other number as one."""
    day = None
    with suppress(ValueError):
        day = date.fromisoformat(str(value))
    if day is None or day.isoformat() != str(value):
        raise ValueError(f"expected a day as in 2015-03-22, received {_shown(value)}")
    first, last = _YEARS
    if not first <= day.year <= last:
        raise ValueError(f"expected a day of the years {first} to {last}, received {day}")
    return day


_zones = cache(available_timezones)


def _existing_zone(name: str) -> str:
    if name not in _zones() - _NO_PLACES:
        raise ValueError(
            f"expected the name of a time zone as in America/New_York (https://en.wikipedia.org/wiki/"
            f"List_of_tz_database_time_zones), received {_shown(name)}"
        )
    return name


def _no_minutes(code: str) -> str:
    if code.lower() == MINUTES:
        raise ValueError(f"expected the code of a currency, received {code}, which are minutes")
    return code


_Text = Annotated[
    str,
    Field(min_length=1, max_length=200),
    AfterValidator(written_as(r"[^\x00-\x1f\x7f]+", "a text without control characters")),
]
_Longitude = Annotated[float, Field(ge=-180, le=180)]
_Latitude = Annotated[float, Field(ge=-85, le=85)]
_Hour = Annotated[int, Field(ge=0, le=24)]
_Day = Annotated[date, BeforeValidator(_day)]


class _Form(BaseModel):
    """A table of a city file. Not the dataclasses themselves: models carry these by value, and pydantic marks them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)


class _CurrencyForm(_Form):
    name: Annotated[
        str, AfterValidator(written_as("[A-Z]{3}", "three capital letters, as in EUR")), AfterValidator(_no_minutes)
    ]
    hundredth: _Text | None = None


class _BoxForm(_Form):
    west: _Longitude
    east: _Longitude
    south: _Latitude
    north: _Latitude

    @model_validator(mode="after")
    def _is_of_a_city(self) -> "_BoxForm":
        for low, high in (("west", "east"), ("south", "north")):
            smaller, larger = getattr(self, low), getattr(self, high)
            if not smaller < larger:
                raise _MisfitError((low,), f"expected {low} below {high}, received {smaller:g} and {larger:g}")
            if larger - smaller > _MOST_DEGREES:
                raise _MisfitError(
                    (low,),
                    f"expected a city, at most {_MOST_DEGREES:g} degrees wide and high, received {smaller:g} to "
                    f"{larger:g} from {low} to {high}",
                )
        return self

    def has(self, longitude_deg: float, latitude_deg: float) -> bool:
        return self.west <= longitude_deg <= self.east and self.south <= latitude_deg <= self.north

    def __str__(self) -> str:
        return f"longitude {self.west:g} to {self.east:g}, latitude {self.south:g} to {self.north:g}"


class _AirportForm(_Form):
    code: Annotated[
        str,
        AfterValidator(
            written_as("[A-Z][A-Z0-9]{1,7}", "2 to 8 capital letters or digits, the first a letter, as in JFK")
        ),
    ]
    longitude_deg: _Longitude
    latitude_deg: _Latitude
    radius_km: Annotated[float, Field(gt=0, le=20)]


class _RuleForm(_Form):
    name: Annotated[
        str,
        AfterValidator(
            written_as(
                "[a-z][a-z0-9_]{0,30}_[0-9]{4}(_[0-9]{2}){0,2}",
                "small letters, digits and _, with the year (month, day) at the end, as in tolls_2015_03",
            )
        ),
    ]
    since: _Day
    description: _Text


class _StepForm(_Form):
    since: _Day
    first_fare: Annotated[float, Field(gt=0)]
    step: Annotated[float, Field(gt=0)]


class _CityForm(_Form):
    """A city file as it is written."""

    slug: Annotated[
        str,
        Field(max_length=40),
        AfterValidator(
            written_as("[a-z][a-z0-9]*(-[a-z0-9]+)*", "small letters, digits and single hyphens, as in saint-denis")
        ),
    ]
    name: _Text
    time_zone: Annotated[str, AfterValidator(_existing_zone)]
    currency: _CurrencyForm
    highest_fare: Annotated[float, Field(gt=0)]
    box: _BoxForm
    street_angle_deg: Annotated[float, Field(ge=-90, le=90)] = 0.0
    airports: Annotated[list[_AirportForm], Field(max_length=20)] = []
    max_passengers: Annotated[int, Field(ge=1, le=100)]
    night_hours: tuple[_Hour, _Hour]
    rush_hours: tuple[_Hour, _Hour]
    rules: Annotated[list[_RuleForm], Field(max_length=100)] = []
    meter: Annotated[list[_StepForm], Field(max_length=100)] = []

    @model_validator(mode="after")
    def _fits_together(self) -> "_CityForm":
        for place, airport in enumerate(self.airports):
            if not self.box.has(airport.longitude_deg, airport.latitude_deg):
                raise _MisfitError(
                    ("airports", place),
                    f"expected {airport.code} within the box ({self.box}), received longitude "
                    f"{airport.longitude_deg:g}, latitude {airport.latitude_deg:g}",
                )
        if not self.night_hours[0] > self.night_hours[1]:
            raise _MisfitError(
                ("night_hours",),
                "expected the first hour of the night and the first after it, as in [20, 6], or [24, 6] for a night "
                f"from midnight on, received {list(self.night_hours)}",
            )
        if not self.rush_hours[0] < self.rush_hours[1]:
            raise _MisfitError(
                ("rush_hours",),
                "expected the first hour of the evening rush and the first after it, as in [16, 20], received "
                f"{list(self.rush_hours)}",
            )
        _ensure_once("airports", [airport.code for airport in self.airports])
        _ensure_once("rules", [rule.name for rule in self.rules])
        _ensure_once("meter", [str(step.since) for step in self.meter])
        self._ensure_features_of_their_own()
        return self

    def _ensure_features_of_their_own(self) -> None:
        """Ensures that no airport is called as something else: two features of one name would be one."""
        facts = self._facts()
        for place, airport in enumerate(facts.airports):
            names = feature_names(replace(facts, airports=(airport,)))
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise _MisfitError(
                    ("airports", place, "code"),
                    f"expected another one, received {airport.code}: its code makes a feature that is there already, "
                    f"{twice[0]}",
                )

    def as_city(self, path: Path) -> CityFile:
        """Returns what the file says; rules and steps oldest first, in whatever order they stand there."""
        steps = sorted(self.meter, key=lambda step: step.since)
        return CityFile(
            slug=self.slug,
            path=path,
            facts=self._facts(),
            time_zone=self.time_zone,
            currency=Currency(self.currency.name, self.currency.hundredth),
            highest_fare=self.highest_fare,
            meter=tuple(MeterStep(step.since, step.first_fare, step.step) for step in steps),
        )

    def _facts(self) -> City:
        box = self.box
        return City(
            name=self.name,
            longitude_range_deg=(box.west, box.east),
            latitude_range_deg=(box.south, box.north),
            grid_angle_deg=self.street_angle_deg,
            airports=tuple(Airport(**airport.model_dump()) for airport in self.airports),
            rules=tuple(Rule(**rule.model_dump()) for rule in sorted(self.rules, key=lambda rule: rule.since)),
            max_passengers=self.max_passengers,
            night_hours=self.night_hours,
            rush_hours=self.rush_hours,
        )


_FORMS = (_CityForm, _BoxForm, _AirportForm, _RuleForm, _StepForm, _CurrencyForm)

_FIELDS = [name for form in _FORMS for name in form.model_fields]


def _ensure_once(field: str, names: list[str]) -> None:
    for one, next_one in pairwise(sorted(names)):
        if one == next_one:
            raise _MisfitError((field,), f"expected each name and date once, received {one} twice")
