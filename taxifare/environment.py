"""The settings that every process needs, and those that serve need alone; and how settings are read and told.

A process that serves has no pandas, so nothing here imports it; `taxifare.settings` builds on these groups and has the
others. Nothing but these two modules reads the environment.
"""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self, TypeVar, get_args
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from fsspec import get_filesystem_class
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, core_schema
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from upath import UPath

from taxifare import secrets
from taxifare.buckets import EXTRAS, ensure_client
from taxifare.errors import MiswrittenError
from taxifare.texts import EXPECTED, did_you_mean
from taxifare.trips.cities import City
from taxifare.trips.city_files import CityFile, city_named
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.targets import Target, target_in

ENV_FILE = ".env"

Origin = Literal["environment", ".env"]
"""Where something is set."""


class SettingsError(MiswrittenError):
    """What somebody set is not as expected; says which setting, as `.env` has it, what was expected and received."""


def empty_is_none(value: object) -> object:
    """Returns None where a setting is there and empty."""
    return None if value == "" else value


def _remembered(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None:
        secrets.remember(_text_of(secret))
    return secret


def remembered_address(address: SecretStr | None) -> SecretStr | None:
    """Returns an address whose login and query no error shows from now on."""
    if address is not None:
        secrets.remember_address(_text_of(address))
    return address


def _text_of(secret: SecretStr) -> str:
    text = secret.get_secret_value()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text in UTF-8") from None
    return text


def _holds_no_secret(place: str | None) -> str | None:
    """Ensures that a place that Dagster's pages and MLflow's store show gives nobody access to itself."""
    if place is not None and "://" in place and ("?" in place or ":" in place.partition("://")[2].rpartition("@")[0]):
        raise ValueError(
            "expected a folder or the address of a bucket without a password and without a query, which pages and "
            "stores would show; credentials are given as the bucket's own software takes them"
        )
    return place


def _host_and_port(address: str) -> str:
    """Ensures a host and a port, which go into nginx's configuration as they are."""
    found = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 2**16:
        raise ValueError(f"expected host:port, as in 127.0.0.1:8080 or [::1]:8080, received {address!r}")
    return address


def _broker(address: SecretStr) -> SecretStr:
    """Ensures the address of one NATS server; others of its cluster it names itself."""
    if not re.fullmatch(
        r"(nats|tls)://([^@/\s]+@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?", _text_of(address)
    ):
        raise ValueError("expected the address of a NATS server, as in nats://127.0.0.1:4222")
    parts = urlsplit(_text_of(address))
    if parts.username and parts.password is None:  # a token
        secrets.remember(unquote(parts.username))
    return address


def _subject(name: str) -> str:
    """Ensures a subject to which messages can be sent."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
        raise ValueError(f"expected a subject of letters, digits, - and _ between dots, received {name!r}")
    return name


OptionalText = Annotated[str | None, BeforeValidator(empty_is_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(empty_is_none), AfterValidator(_remembered)]
OptionalAddress = Annotated[SecretStr | None, BeforeValidator(empty_is_none), AfterValidator(remembered_address)]
Place = Annotated[str | None, BeforeValidator(empty_is_none), AfterValidator(_holds_no_secret)]
Broker = Annotated[SecretStr, AfterValidator(remembered_address), AfterValidator(_broker)]
Subject = Annotated[str, AfterValidator(_subject)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
OptionalHostAndPort = Annotated[HostAndPort | None, BeforeValidator(empty_is_none)]
_CITY = core_schema.no_info_plain_validator_function(
    city_named, serialization=core_schema.plain_serializer_function_ser_schema(str)
)

# A schema of its own keeps pydantic out of `City`: a model brings that class along, and once one was loaded, its fields
# are none that pydantic can read ("cannot specify both default and default_factory").
CitySetting = Annotated[CityFile, NoDecode, GetPydanticSchema(lambda _kind, _handler: _CITY)]
"""Read from its file, and written as its slug: where the file lies is nobody's business but the reader's."""


class Group(BaseModel):
    """Settings of one subject. Names of fields and validators are unique among all groups: `Settings` has them all."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)


class HomeSettings(Group):
    """Where state lives."""

    taxifare_home: Path = Field(
        Path("state"), description="Folder of all state: Dagster's home, the lake, MLflow, the ledger"
    )
    storage_uri: Place = Field(
        None, description="Folder or bucket (gs://…, s3://…) of the lake's parquet files; empty: TAXIFARE_HOME/lake"
    )
    scoring_inbox: Place = Field(
        None,
        description="Folder or bucket in which files of rides (.csv, .csv.gz, .parquet) are priced as they appear; "
        "empty: none",
    )
    database_url: OptionalAddress = Field(
        None, description="SQLAlchemy URL of the ledger; empty: SQLite in TAXIFARE_HOME"
    )

    @cached_property
    def home(self) -> Path:
        """The folder of all state, absolute: run workers have working folders of their own.

        Raises:
            SettingsError: There is something else in its place.
        """
        home = self.taxifare_home.expanduser().absolute()
        for place in (home, *home.parents):
            if place.exists() and not place.is_dir():
                raise SettingsError(f"TAXIFARE_HOME: expected a folder, received {home}, but {place} is a file")
        return home

    @property
    def lake(self) -> UPath:
        """Where the lake's files are.

        Raises:
            SettingsError: What it takes to open STORAGE_URI is not installed, or nobody knows its kind.
        """
        if self.storage_uri is None:
            return UPath(self.home / "lake")
        return opened("STORAGE_URI", self.storage_uri)

    @property
    def inbox(self) -> UPath | None:
        """Where files of rides wait to be priced, None where there is no such place.

        Raises:
            SettingsError: What it takes to open SCORING_INBOX is not installed, or nobody knows its kind.
        """
        return None if self.scoring_inbox is None else opened("SCORING_INBOX", self.scoring_inbox)

    @property
    def _ledger_file(self) -> Path:
        return self.home / "ledger.db"

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger to read: a file that is there, or whatever a server says when it is asked."""
        return self.database_url is not None or self._ledger_file.exists()

    @property
    def ledger_is_server(self) -> bool:
        """Whether the ledger is a server, which other machines may use, too."""
        return self.database_url is not None and not self.ledger_url.startswith("sqlite")

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        if self.database_url is None:
            return f"sqlite:///{self._ledger_file}"
        return self.database_url.get_secret_value()


def opened(setting: str, address: str) -> UPath:
    """Returns a folder or bucket; what is in a bucket is asked anew each time, for others write to it, too.

    Args:
        setting: Which names it, for what is told of it.
        address: Where it is.

    Raises:
        SettingsError: What it takes to open it is not installed, or nobody knows its kind, or it names no bucket.
    """
    protocol, separator, _ = address.partition("://")
    if found := re.match(rf"({'|'.join(EXTRAS)}):(?!//[^/])", address):
        raise SettingsError(f"{setting}: expected {found[1]}://bucket/…, received {address}")
    if not separator:
        return UPath(address)
    try:
        ensure_client(protocol)
        get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        extra = f" (pip install -e '.[{EXTRAS[protocol]}]')" if protocol in EXTRAS else ""
        raise SettingsError(
            f"{setting}: expected a folder, or a bucket whose client is installed{extra}, received {protocol}://…: "
            f"{error}"
        ) from None
    ours = {"setting": setting} if protocol in EXTRAS else {}
    return UPath(address, use_listings_cache=False, **ours)


class SubjectSettings(Group):
    """What is predicted, and of which city's trips."""

    target: Literal["fare", "duration"] = Field(
        "fare",
        description="What is predicted: fare (CITY's currency), or duration (minutes) where there are drop-off times",
    )
    city: CitySetting = Field(
        "new-york",
        description=(
            "City whose box, airports and dated rules apply: new-york, chicago or the path of a YAML file "
            "(docs/your-city.md)"
        ),
        validate_default=True,
    )

    @property
    def city_facts(self) -> City:
        """The city's box, airports and rules."""
        return self.city.facts

    @property
    def target_facts(self) -> Target:
        """What is predicted, in its unit."""
        return target_in(self.city, self.target)


def _column_names(value: object) -> object:
    """Reads `pickup_datetime=tpep_pickup,fare_amount=price`: our names of columns, and those that files have."""
    if not isinstance(value, str):
        return value
    pairs = [tuple(map(str.strip, one.split("=", 1))) for one in value.split(",") if one.strip()]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"expected pairs as in pickup_datetime=tpep_pickup,fare_amount=price, received {value!r}")
        if pair[0] not in COLUMN_NAMES:
            meant = (
                f" (did you mean {pair[1]}={pair[0]}?)"
                if pair[1] in COLUMN_NAMES
                else did_you_mean(pair[0], COLUMN_NAMES)
            )
            raise ValueError(
                f"expected a column of the trip table before each = ({', '.join(COLUMN_NAMES)}), received "
                f"{pair[0]!r}{meant}"
            )
    for place, names in enumerate(zip(*pairs, strict=True)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"expected each name once {'before' if place == 0 else 'after'} =, received {twice!r} twice"
            )
    return tuple(pairs)


ColumnNames = Annotated[
    tuple[tuple[str, str], ...],
    NoDecode,
    BeforeValidator(_column_names),
    PlainSerializer(lambda pairs: ",".join("=".join(pair) for pair in pairs)),
]


class OwnFileSettings(Group):
    """Files of one's own: of trips, and of rides to be priced."""

    trip_columns: ColumnNames = Field(
        (),
        description="Names of columns in your files of trips and rides, as in fare_amount=price,pickup_datetime=at",
    )


class ServiceSettings(SubjectSettings, HomeSettings, OwnFileSettings):
    """Who is answered, from where, and what is kept of it."""

    service_listen: HostAndPort = Field(
        "127.0.0.1:9696", description="Address and port at which rides are priced (make serve)"
    )
    service_model_path: Place = Field(
        None,
        description="Folder or bucket of one bundle to serve, whatever is in production; empty: follow the approvals",
    )
    service_workers: int = Field(1, description="Processes that price rides, each with the model in its memory", ge=1)
    service_token: OptionalSecret = Field(
        None, description="Bearer token that requests must bring; needed wherever SERVICE_LISTEN is not loopback"
    )
    service_shadow: Literal["on", "off"] = Field(
        "on",
        description="Whether the version that a person is asked about prices rides, too, for the log alone, when "
        "nobody waits: on or off",
    )
    prediction_log_days: int = Field(
        90, description="Days that the logs of prices given and of outcomes told are kept", ge=1
    )

    @property
    def service_bundle(self) -> UPath | None:
        """Where the one bundle to serve is, None where approvals are followed.

        Raises:
            SettingsError: What it takes to open SERVICE_MODEL_PATH is not installed, or nobody knows its kind.
        """
        return None if self.service_model_path is None else opened("SERVICE_MODEL_PATH", self.service_model_path)

    @model_validator(mode="after")
    def _service_is_not_open_to_all(self) -> Self:
        if self.service_token is None and not _is_loopback(self.service_listen):
            raise ValueError(
                f"SERVICE_LISTEN={self.service_listen} is not loopback: expected SERVICE_TOKEN, the bearer token that "
                "requests must bring, or SERVICE_LISTEN=127.0.0.1:9696"
            )
        return self


def _is_loopback(host_and_port: str) -> bool:
    """Returns whether only this machine reaches an address; a name other than `localhost` may be anything.

    >>> [_is_loopback(address) for address in ("127.0.0.1:9696", "[::1]:9696", "localhost:1", "0.0.0.0:9696", "pc:1")]
    [True, True, True, False, False]
    """
    host = host_and_port.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class StreamSettings(ServiceSettings):
    """Rides that come in a stream of NATS JetStream, and where their quotes go."""

    stream_url: Broker = Field(
        SecretStr("nats://127.0.0.1:4222"),
        description="NATS server with JetStream (taxifare consume): nats:// or tls://, with user:password@ or a token@",
    )
    stream_rides: Subject = Field("taxifare.rides", description="Subject on which rides come in")
    stream_quotes: Subject = Field(
        "taxifare.quotes", description="Subject on which quotes go out, with .fare or .duration behind it"
    )
    stream_refused: Subject = Field(
        "taxifare.refused", description="Subject of what cannot be priced and why, with .fare or .duration behind it"
    )
    stream_outcomes: Subject = Field(
        "taxifare.outcomes", description="Subject on which it comes in what rides came to: ride_id, truth, unit"
    )
    stream_ack_wait_s: float = Field(
        30, description="Seconds after which a ride whose consumer says nothing is delivered again", ge=0.1
    )
    stream_keep_days: float = Field(
        7,
        description="Days that streams made here keep messages, and that the first quote of a ride is remembered",
        ge=0.01,
    )
    stream_metrics_listen: OptionalHostAndPort = Field(
        None, description="Address and port at which Prometheus finds what a consumer counts; empty: none"
    )

    @model_validator(mode="after")
    def _subjects_are_apart(self) -> Self:
        outgoing = (f"{self.stream_quotes}.{self.target}", f"{self.stream_refused}.{self.target}")
        if len({self.stream_rides, self.stream_outcomes, *outgoing}) < 4:
            raise ValueError(
                "STREAM_RIDES, STREAM_QUOTES, STREAM_REFUSED and STREAM_OUTCOMES: expected four subjects, received "
                f"{self.stream_rides}, {self.stream_quotes}, {self.stream_refused} and {self.stream_outcomes}"
            )
        return self


class StreamSettingsInForce(StreamSettings, BaseSettings):
    """The settings of a process that prices a stream, as they are in force."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_ignore_empty=False, extra="ignore")


class ServiceSettingsInForce(ServiceSettings, BaseSettings):
    """The settings of a process that serves, as they are in force."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_ignore_empty=False, extra="ignore")


_Settings = TypeVar("_Settings", bound=BaseSettings)


def read_settings(kind: type[_Settings]) -> _Settings:
    """Returns settings as they are in force: environment variables first, then a `.env`, then the defaults.

    Raises:
        SettingsError: One or several are not as expected, or `.env` cannot be read.
    """
    try:
        if Path(ENV_FILE).is_dir():
            raise SettingsError(f"{ENV_FILE}: expected a text file of settings, received a folder")
        _ensure_lines(kind)
        return kind()
    except ValidationError as error:
        raise SettingsError(in_words(error, kind, origins(os.environ, dotenv_values(ENV_FILE)))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE}: expected a text file of settings, received {error}") from None


def _ensure_lines(kind: type[BaseModel]) -> None:
    """Ensures that whatever stands in `.env` is read: its parser leaves out lines that it does not understand.

    Raises:
        SettingsError: A line is none of a setting.
        OSError: `.env` cannot be read.
        UnicodeDecodeError: It is no text.
    """
    if not Path(ENV_FILE).exists():
        return
    unread = dict[int, str]()
    for read in parse_stream(StringIO(Path(ENV_FILE).read_text("utf-8"))):
        if read.error:
            text = read.original.string.lstrip()  # blank lines count to what follows them
            before = read.original.string.removesuffix(text).count("\n")
            unread[read.original.line + before] = text.splitlines()[0].rstrip()
    if unread:
        (first, line), *others = unread.items()
        more = f"; other such lines: {', '.join(str(number) for number, _ in others)}" if others else ""
        raise SettingsError(f"{ENV_FILE}, line {first}: {_no_setting(line, kind)}{more}")


def _no_setting(line: str, kind: type[BaseModel]) -> str:
    """Returns what is wrong with a line of `.env`; of what may be a secret, no more than the name.

    >>> _no_setting("PREDICTION_LOG_DAYS: 90", ServiceSettings)
    "expected NAME=value, received 'PREDICTION_LOG_DAYS: 90'"
    >>> _no_setting("SERVICE_TOKEN: sesame", ServiceSettings), _no_setting("open sesame", ServiceSettings)
    ('expected NAME=value, received a line that begins with SERVICE_TOKEN',
     'expected NAME=value, received a line that is not shown, as it may be confidential')
    """
    expected = "expected NAME=value" + (", every quote closed and nothing behind it" if "=" in line else "")
    name = re.match(r"(?:export\s+)?(\w+)", line)
    if name is not None and name[1].lower() in kind.model_fields and not is_secret(kind, name[1]) and "://" not in line:
        return f"{expected}, received {line!r}"
    # Lines of a key have letters of both kinds, or no underscore.
    if name is not None and (
        name[1].lower() in kind.model_fields or re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", name[1])
    ):
        return f"{expected}, received a line that begins with {name[1]}"
    return f"{expected}, received a line that is not shown, as it may be confidential"


def origins(environment: Mapping[str, str], file: Mapping[str, str | None]) -> dict[str, Origin]:
    """Returns where settings are set, by their names in small letters; a variable goes before `.env`.

    >>> origins({"SEED": "2"}, {"seed": "3", "PATIENCE": "4"})
    {'seed': 'environment', 'patience': '.env'}

    Args:
        environment: The environment variables.
        file: What `.env` says.
    """
    in_file: dict[str, Origin] = {name.lower(): ".env" for name in file}
    return in_file | {name.lower(): "environment" for name in environment}


def in_words(error: ValidationError, kind: type[BaseModel], set_in: Mapping[str, Origin] = MappingProxyType({})) -> str:
    """Returns what is wrong with which settings, each as `.env` has it; never a value that is in order.

    Args:
        error: Found by pydantic.
        kind: Has the settings.
        set_in: Where they are set, see `origins`.
    """
    return "; ".join(_fault(details, kind, set_in) for details in error.errors(include_url=False))


def _fault(details: ErrorDetails, kind: type[BaseModel], set_in: Mapping[str, Origin]) -> str:
    """Returns what is wrong with one setting, or with several that go together; what is secret is not repeated."""
    context = details.get("ctx", {})
    if details["type"] == "value_error":
        said = str(context["error"])
    else:
        expected = EXPECTED.get(details["type"], details["msg"]).format(**context)
        said = (
            f"expected {expected}"
            if isinstance(details["input"], dict) or (details["loc"] and is_secret(kind, str(details["loc"][0])))
            else f"expected {expected}, received {details['input']!r}"
        )
    # Where a value is a list, its place in there follows; rules about several settings and options have no name.
    names = [str(part).upper() for part in details["loc"][:1] if isinstance(part, str)]
    origin = set_in.get(names[0].lower()) if names else None
    if origin is not None:
        place = ENV_FILE if origin == ".env" else "the environment"
        # A sentence of our own may end in a way out, of which the place would seem to be a part.
        said += f" ({names[0]} is set in {place})" if details["type"] == "value_error" else f" (in {place})"
    return ": ".join([*names, said])


def is_secret(kind: type[BaseModel], name: str) -> bool:
    """Returns whether a setting, or what an address of it may hold, is shown to nobody."""
    field = kind.model_fields.get(name.lower())
    annotation = None if field is None else field.annotation
    return SecretStr in {annotation, *get_args(annotation)}
