"""Every setting the software reads, typed and validated; one environment variable each, listed in `.env.sample`.

Settings stand in groups by what they serve. `Settings` is all groups at once, so names are flat for whoever sets them,
and a function says in its signature which group it needs. Rules that tie settings together stand in the group that
has them all. What is no setting does not belong here: constants stand where they are used.

Groups of a process that only serves are in `taxifare.environment`. Why groups are inherited, not nested:
docs/decisions.md, under settings. Nothing else in the project reads the environment. Secrets, and addresses that may
hold one, are `SecretStr`, so that no log, page or traceback shows them; `taxifare.secrets` knows them, so that no
server's answer shows them either.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from upath import UPath

from taxifare import secrets
from taxifare.buckets import EXTRAS, is_local
from taxifare.environment import (
    ENV_FILE,
    Group,
    HomeSettings,
    HostAndPort,
    OptionalAddress,
    OptionalSecret,
    OptionalText,
    OwnFileSettings,
    Place,
    ServiceSettings,
    SettingsError,
    StreamSettings,
    SubjectSettings,
    empty_is_none,
    in_words,
    opened,
    read_settings,
    remembered_address,
)
from taxifare.texts import did_you_mean, written_as
from taxifare.trips.meters import Meter
from taxifare.trips.months import Month, parse_month

_log = logging.getLogger(__name__)


def _month(value: object) -> object:
    return parse_month(value) if isinstance(value, str) else value


def _row_count(value: object) -> object:
    """Reads the course's sizes: `1k`, `100k`, `all` (None), or a plain number."""
    text = str(value).strip().lower()
    if text == "all":
        return None
    return int(text[:-1]) * 1000 if text.endswith("k") and text[:-1].isdigit() else value


def _on_the_web(address: SecretStr | None) -> SecretStr | None:
    if address is not None and not address.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("expected an address that begins with http or https")
    return address


def _of_scheduler(url: str) -> str:
    if not re.fullmatch(r"tcp://([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", url):
        raise ValueError(f"expected the address of a dask scheduler, as in tcp://10.0.0.4:8786, received {url!r}")
    return url


MonthSetting = Annotated[Month, BeforeValidator(_month), PlainSerializer(str)]
OptionalMonth = Annotated[MonthSetting | None, BeforeValidator(empty_is_none)]
OptionalInt = Annotated[int | None, BeforeValidator(empty_is_none)]
OptionalFloat = Annotated[float | None, BeforeValidator(empty_is_none)]
OptionalSchedulerUrl = Annotated[Annotated[str, AfterValidator(_of_scheduler)] | None, BeforeValidator(empty_is_none)]
BigQueryTable = Annotated[
    str, AfterValidator(written_as(r"[\w.:-]+\.\w+\.[\w-]+", "a table as in project.dataset.table"))
]
OptionalPath = Annotated[Path | None, BeforeValidator(empty_is_none)]
PathOrPlace = Annotated[Place, BeforeValidator(lambda place: str(place) if isinstance(place, Path) else place)]
OptionalWebAddress = Annotated[OptionalAddress, AfterValidator(_on_the_web)]
WebAddress = Annotated[SecretStr, AfterValidator(remembered_address), AfterValidator(_on_the_web)]
RowCount = Annotated[int | None, BeforeValidator(_row_count)]


TaxiColor = Literal["yellow", "green"]
"""Taxis of New York: yellow ones serve the whole city, green ones what lies outside Manhattan's centre."""

Scenario = Literal["as-it-was", "fare-rise", "slow-traffic"]
"""What changes in the simulated city, see `taxifare.sources.simulator`."""

ChallengerName = Literal["warm", "whole month", "recent", "since rule"]
"""The ways to renew a model, see `taxifare.training.challengers`."""


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


ChallengerNames = Annotated[tuple[ChallengerName, ...], NoDecode, BeforeValidator(_names), PlainSerializer(",".join)]


class ProblemSettings(SubjectSettings):
    """What is predicted, and of which city's trips, with all that is known of both."""

    @property
    def time_zone(self) -> str:
        """The time zone that the city's clocks are in."""
        return self.city.time_zone

    @property
    def meter(self) -> Meter:
        """The steps that the city's meter counts fares in; none for durations."""
        return self.city.meter if self.target == "fare" else ()


class MlflowSettings(ProblemSettings, HomeSettings):
    """Where models and runs are kept."""

    mlflow_tracking_uri: OptionalAddress = Field(None, description="MLflow server; empty: SQLite in TAXIFARE_HOME")
    mlflow_tracking_username: OptionalText = Field(
        None, description="Login at the MLflow server, where it asks for one"
    )
    mlflow_tracking_password: OptionalSecret = Field(None, description="Password at the MLflow server")
    mlflow_artifact_location: Place = Field(
        None,
        description="Folder or bucket of the files of a new experiment; empty: the MLflow server's, or TAXIFARE_HOME",
    )
    mlflow_experiment: str = Field("taxifare", description="MLflow experiment of every run", min_length=1)
    model_name: OptionalText = Field(
        None,
        description=(
            "Name of the registered model; empty: taxifare, or taxifare-duration for TARGET=duration, with -SLUG of a "
            "city of one's own"
        ),
    )

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry store; a server's without the login, which is `mlflow_login`."""
        if self.mlflow_tracking_uri is None:
            return f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"
        uri = self.mlflow_tracking_uri.get_secret_value()
        return secrets.shown(uri) if secrets.login_in(uri) else uri

    @property
    def mlflow_login(self) -> tuple[str, str] | None:
        """User and password at the MLflow server, None where there is none."""
        if self.mlflow_tracking_username is not None and self.mlflow_tracking_password is not None:
            return self.mlflow_tracking_username, self.mlflow_tracking_password.get_secret_value()
        uri = self.mlflow_tracking_uri
        return None if uri is None else secrets.login_in(uri.get_secret_value())

    @property
    def registered_model(self) -> str:
        """Name of the registered model: each target has its own."""
        return self.model_name or self.target_facts.model_name

    @property
    def artifacts(self) -> UPath | None:
        """Where the files of a new experiment go, None where MLflow chooses.

        Raises:
            SettingsError: What it takes to open MLFLOW_ARTIFACT_LOCATION is not installed, or nobody knows its kind.
        """
        if self.mlflow_artifact_location is None:
            return None
        place = opened("MLFLOW_ARTIFACT_LOCATION", self.mlflow_artifact_location)
        if EXTRAS.get(place.protocol) == "aws" and find_spec("boto3") is None:  # MLflow has a client of its own
            raise SettingsError(
                "MLFLOW_ARTIFACT_LOCATION: expected a folder, or a bucket whose client is installed (pip install "
                "-e '.[aws]'), received s3://…: there is no boto3"
            )
        return place

    @model_validator(mode="after")
    def _mlflow_login_is_whole(self) -> Self:
        if (self.mlflow_tracking_username is None) != (self.mlflow_tracking_password is None):
            raise ValueError("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD go together: set both or neither")
        if self.mlflow_login is not None:
            secrets.remember_login(*self.mlflow_login)
        return self


class MonthSettings(Group):
    """Which months are worked on."""

    first_month: MonthSetting = Field(parse_month("2015-01"), description="First monthly partition, YYYY-MM")
    last_month: OptionalMonth = Field(
        parse_month("2015-06"), description="Last monthly partition, YYYY-MM; empty: every month up to now"
    )
    minimum_trips: int = Field(100, description="Months with fewer trips are refused", ge=1)
    month_ends_within_hours: float = Field(
        24, description="A month waits until its last ride begins so near its end, hours; of few rides, earlier", gt=0
    )
    month_least_share: float = Field(
        0.25,
        description="A month waits while it has a smaller share of its neighbours' rides; 0: however few it has",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _months_are_in_order(self) -> Self:
        if self.last_month is None or self.last_month >= self.first_month:
            return self
        if "last_month" not in self.model_fields_set:
            last, first, mend = ", the default,", "", "set LAST_MONTH, too, or LAST_MONTH= for every month up to now"
        elif "first_month" not in self.model_fields_set:
            last, first, mend = "", ", the default", "set FIRST_MONTH, too"
        else:
            last, first, mend = "", "", "set a later LAST_MONTH, or an earlier FIRST_MONTH"
        raise ValueError(f"LAST_MONTH={self.last_month}{last} is before FIRST_MONTH={self.first_month}{first}: {mend}")


class BaseYearsSettings(Group):
    """How much of the years before the first month: sources read no more, and training depends on it."""

    dataset_size: RowCount = Field(
        200_000, description="Base trips to train on: 1k, 10k, 100k, 500k, all or a number", ge=1
    )


class SourceSettings(BaseYearsSettings, MonthSettings, ProblemSettings, HomeSettings):
    """Where trips come from, and what every source may need; what only one needs is in a group that builds on this."""

    trip_source: Literal["simulator", "folder", "lewagon", "tlc", "bigquery", "chicago"] = Field(
        "simulator", description="Where trips come from: simulator, folder, lewagon, tlc, bigquery or chicago"
    )

    @property
    def downloads(self) -> Path:
        """Folder of downloaded files."""
        return self.home / "downloads"

    @model_validator(mode="after")
    def _source_is_of_the_city(self) -> Self:
        if self.trip_source == "chicago" and self.city.slug != "chicago":
            raise ValueError(f"TRIP_SOURCE=chicago needs CITY=chicago, received {self.city.told}")
        if self.trip_source in {"simulator", "lewagon", "tlc"} and self.city.slug != "new-york":
            raise ValueError(
                f"TRIP_SOURCE={self.trip_source} has trips of CITY=new-york, received {self.city.told}; trips of one's "
                "own come from TRIP_SOURCE=folder or bigquery"
            )
        return self

    def _ensure_no_duration(self) -> None:
        """Ensures that nobody asks the course's trips how long they took."""
        if self.target == "duration":
            raise ValueError(
                f"TARGET=duration needs drop-off times, and the course's trips of TRIP_SOURCE={self.trip_source} have "
                "none; simulator, tlc and chicago do, folder and bigquery where there is a column dropoff_datetime"
            )


class FolderSettings(SourceSettings, OwnFileSettings):
    """A folder of trip files."""

    trip_folder: PathOrPlace = Field(
        None, description="Folder or bucket (gs://…, s3://…) of trip files, for TRIP_SOURCE=folder"
    )
    trip_folder_months: str = Field(
        "taxi_{month:%Y_%m}.*",
        description="Name of a month's file in TRIP_FOLDER, a pattern with %Y and %m of the month",
    )
    trip_folder_base: str = Field("taxi_base_*", description="Name of the base years' file in TRIP_FOLDER, a pattern")
    trip_folder_quiet_s: float = Field(
        10, description="A file in TRIP_FOLDER waits until it has been unchanged for so many seconds", ge=0
    )

    @property
    def trips(self) -> UPath | None:
        """Where the trip files are, None where nobody says.

        Raises:
            SettingsError: What it takes to open TRIP_FOLDER is not installed, or nobody knows its kind.
        """
        if self.trip_folder is None:
            return None
        place = opened("TRIP_FOLDER", self.trip_folder)
        return UPath(Path(place.path).expanduser().absolute()) if is_local(place) else place

    @model_validator(mode="after")
    def _folder_is_named(self) -> Self:
        if self.trip_source == "folder" and self.trip_folder is None:
            raise ValueError("TRIP_SOURCE=folder needs TRIP_FOLDER, the folder of the trip files")
        if self.trip_source == "bigquery" and self.trip_columns:
            raise ValueError(
                "TRIP_COLUMNS is for files of your own, received TRIP_SOURCE=bigquery; in BigQuery, a view names "
                "columns"
            )
        return self


class BigQuerySettings(SourceSettings):
    """Tables of BigQuery."""

    bigquery_table: BigQueryTable = Field(
        "wagon-public-datasets.taxifare.raw_all",
        description="Table of trips, project.dataset.table, for TRIP_SOURCE=bigquery",
    )
    scored_trips_table: Annotated[BigQueryTable | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="BigQuery table for scored months besides the lake, project.dataset.table; empty: none",
    )
    bigquery_project: OptionalText = Field(
        None, description="Google Cloud project that pays for the queries; empty: that of the credentials"
    )
    bigquery_location: str = Field("EU", description="Where the tables are", min_length=1)
    bigquery_maximum_bytes: int = Field(
        10_000_000_000, description="Most bytes that a query may read; one that would read more is not run", ge=1
    )

    @model_validator(mode="after")
    def _bigquery_table_has_the_target(self) -> Self:
        if self.trip_source == "bigquery" and self.bigquery_table.startswith("wagon-public-datasets."):
            self._ensure_no_duration()
        return self


class LeWagonSettings(SourceSettings):
    """The files of the Le Wagon course."""

    lewagon_url: WebAddress = Field(
        SecretStr("https://storage.googleapis.com/datascience-mlops/taxi-fare-ny"),
        description="Address of the Le Wagon course's files, for TRIP_SOURCE=lewagon",
    )

    @model_validator(mode="after")
    def _lewagon_has_the_target(self) -> Self:
        if self.trip_source == "lewagon":
            self._ensure_no_duration()
        return self


class TlcSettings(SourceSettings):
    """The files of New York's Taxi and Limousine Commission."""

    tlc_url: WebAddress = Field(
        SecretStr("https://d37ci6vzurychx.cloudfront.net"),
        description="Address of New York's Taxi and Limousine Commission's files, for TRIP_SOURCE=tlc",
    )
    tlc_color: TaxiColor = Field("yellow", description="Taxis of TRIP_SOURCE=tlc: yellow or green")
    tlc_trips_per_month: RowCount = Field(
        100_000, description="Trips drawn from a TLC month that has more: 1k, 100k, all or a number", ge=1
    )
    tlc_base_months: int = Field(12, description="TLC months before FIRST_MONTH that are the base years", ge=1)


class ChicagoSettings(SourceSettings):
    """The City of Chicago's data portal."""

    chicago_url: WebAddress = Field(
        SecretStr("https://data.cityofchicago.org/resource"),
        description="Address of the Chicago data portal's data sets, for TRIP_SOURCE=chicago",
    )
    chicago_app_token: OptionalSecret = Field(
        None, description="App token of the data portal; without one it throttles sooner"
    )
    chicago_trips_per_month: RowCount = Field(
        100_000, description="Trips drawn from a Chicago month that has more: 1k, 100k, all or a number", ge=1
    )


class SimulatorSettings(SourceSettings):
    """The simulated city."""

    simulator_seed: int = Field(42, description="Seed of the simulated trips", ge=0)
    simulator_trips_per_month: int = Field(
        20_000, description="Simulated trips of an average month; seasons differ", ge=1
    )
    simulator_base_trips: int = Field(
        250_000, description="Simulated trips of the base years, 2009 up to FIRST_MONTH", ge=1
    )
    simulator_scenario: Scenario = Field(
        "as-it-was", description="What changes in the simulated city: as-it-was, fare-rise or slow-traffic"
    )
    simulator_scenario_from: MonthSetting = Field(
        parse_month("2015-03"), description="First month of the scenario, YYYY-MM"
    )


class TrainingSettings(BaseYearsSettings, ProblemSettings):
    """What the result of a training depends on, and nothing else: with one of these changed it is another training."""

    validation_share: float = Field(
        0.2, description="Share of a month's trips, the latest, kept for validation", gt=0, lt=1
    )
    learning_rate: OptionalFloat = Field(
        None, description="Learning rate of fits from random weights; empty: that of the network's shape", gt=0
    )
    batch_size: OptionalInt = Field(
        None, description="Trips per training step of such fits; empty: that of the network's shape", ge=1
    )
    patience: int = Field(2, description="Epochs without improvement before training stops", ge=1)
    max_epochs: OptionalInt = Field(
        None,
        description="Most epochs of such fits, over which the learning rate falls to 0; empty: that of the shape",
        ge=1,
    )
    dense_width_factor: float = Field(
        1.0, description="Width of the dense layers of a new network, as a multiple of its shape's", gt=0
    )
    seed: int = Field(1, description="Seed of initial weights and shuffling", ge=0)
    rehearsal_trips: int = Field(
        60_000, description="Trips of earlier months and years that a renewal rehearses, at most", ge=0
    )
    challengers: ChallengerNames = Field(
        ("warm", "whole month", "recent", "since rule"),
        description="Ways to renew the model that may compete each month, by commas; warm always does",
    )


def of_training(settings: TrainingSettings) -> TrainingSettings:
    """Returns the settings of trainings and no other: with those, secrets would leave this machine."""
    return TrainingSettings.model_construct(**{name: getattr(settings, name) for name in TrainingSettings.model_fields})


class GateSettings(ProblemSettings):
    """What the verdict holds good enough, in the unit of the target."""

    minimum_gain: float = Field(
        0.01,
        description=(
            "Least gain per trip worth a promotion, in CITY's currency, or minutes for TARGET=duration; "
            "half of it on a track record"
        ),
        ge=0,
    )
    slice_tolerance: float = Field(
        0.1,
        description="Most a slice may get worse per trip, in CITY's currency, or minutes for TARGET=duration",
        ge=0,
    )
    bias_tolerance: float = Field(
        0.2,
        description="Most the absolute bias may grow per trip, in CITY's currency, or minutes for TARGET=duration",
        ge=0,
    )
    staleness_tolerance: float = Field(
        0.05,
        description="Most the skill of production may surely lie below that of the month's candidate on the same trips",
        ge=0,
        le=1,
    )


class AskingSettings(HomeSettings):
    """Who is asked for a decision, and how."""

    approval_policy: Literal["person", "gate", "standing"] = Field(
        "person",
        description=(
            "Who decides: person, gate (a PROMOTE is approved by itself, the rest rejected, month by month), or "
            "standing (a person agrees once that for STANDING_MONTHS whatever is surely better is approved by itself)"
        ),
    )
    standing_months: int = Field(12, description="Months that a standing approval covers", ge=1, le=60)
    request_valid_days: int = Field(30, description="Days a request for a decision stays open", ge=1)
    approval_secret: OptionalSecret = Field(
        None, description="Key of the approval tokens; empty: made once and kept in TAXIFARE_HOME"
    )
    chat_base_url: OptionalWebAddress = Field(
        None, description="Wagon chat API, https://…; empty: the message goes to the log"
    )
    chat_channel: OptionalText = Field(None, description="Channel of the chat")
    chat_author: str = Field("taxifare", description="Author shown in the chat", min_length=1)
    slack_webhook_url: OptionalSecret = Field(None, description="Incoming webhook of Slack, Mattermost or Rocket.Chat")
    notify_urls: OptionalSecret = Field(None, description="Addresses of other services in apprise's form, by spaces")
    reminder_days: int = Field(7, description="Days without an answer after which a request is sent again", ge=1)
    dagster_url: str = Field("http://127.0.0.1:3000", description="Address of Dagster's UI, for links in messages")

    @model_validator(mode="after")
    def _chat_is_whole(self) -> Self:
        if (self.chat_base_url is None) != (self.chat_channel is None):
            raise ValueError("CHAT_BASE_URL and CHAT_CHANNEL go together: set both or neither")
        return self


class GuardSettings(AskingSettings):
    """The guard before the webserver of a shared installation."""

    guard_listen: HostAndPort = Field(
        "127.0.0.1:8080", description="Address and port of the guard before Dagster's webserver (make guard)"
    )
    guard_upstream: HostAndPort = Field(
        "127.0.0.1:3000", description="Address and port of Dagster's webserver behind the guard"
    )
    guard_user: OptionalText = Field(None, description="Who may pass the guard")
    guard_password: OptionalSecret = Field(None, description="With which password")
    guard_certificate: OptionalPath = Field(
        None, description="File of the certificate chain (PEM) with which the guard encrypts; empty: it does not"
    )
    guard_key: OptionalPath = Field(None, description="File of the certificate's private key (PEM)")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.guard_certificate is None) != (self.guard_key is None):
            raise ValueError("GUARD_CERTIFICATE and GUARD_KEY go together: set both or neither")
        return self

    @model_validator(mode="after")
    def _guard_is_not_its_own_upstream(self) -> Self:
        if self.guard_listen == self.guard_upstream:
            raise ValueError(
                f"GUARD_LISTEN and GUARD_UPSTREAM are both {self.guard_listen}: expected the guard's own address, and "
                "the address of Dagster's webserver"
            )
        return self


class ExecutionSettings(Group):
    """How Dagster runs steps, and who shares the work of one."""

    executor: Literal["in_process", "multiprocess"] = Field(
        "in_process",
        description="How steps run: in_process (fast on small machines) or multiprocess (parallel branches)",
    )
    workers: int = Field(2, description="Processes of this machine that share independent work, a gigabyte each", ge=1)
    cluster_url: OptionalSchedulerUrl = Field(
        None, description="Scheduler of a dask cluster that does such work instead, tcp://host:port; empty: none"
    )


class Settings(
    StreamSettings,
    ServiceSettings,
    ExecutionSettings,
    GuardSettings,
    AskingSettings,
    GateSettings,
    TrainingSettings,
    SimulatorSettings,
    ChicagoSettings,
    TlcSettings,
    LeWagonSettings,
    BigQuerySettings,
    FolderSettings,
    SourceSettings,
    MlflowSettings,
    BaseSettings,
):
    """The settings in force: environment variables first, then a `.env` in the working folder, then the defaults.

    The groups stand from last to first, because pydantic lists the fields of the last base first; `.env.sample` has
    that order, but for the ten that matter first.

    Raises:
        pydantic.ValidationError: A value is not of its type or out of range; `settings_in_force` says so in words.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_ignore_empty=False, extra="ignore")


MATTER_FIRST = (
    "taxifare_home", "trip_source", "trip_folder", "city", "first_month", "last_month", "mlflow_tracking_uri",
    "minimum_gain", "approval_policy", "slack_webhook_url",
)  # fmt: skip
"""What somebody sets who makes the project their own."""


def sections() -> dict[str, tuple[str, ...]]:
    """Returns the names of all settings under what they serve, each once: those that matter first, then by group."""
    groups = [group for group in reversed(Settings.__mro__) if issubclass(group, Group) and group is not Settings]
    rest = {name: None for name in Settings.model_fields if name not in MATTER_FIRST}
    by_group = {group: tuple(name for name in rest if name in group.__annotations__) for group in groups}
    found = {(group.__doc__ or "").partition(".")[0]: names for group, names in by_group.items() if names}
    return {"Start here: the ten that matter first": MATTER_FIRST, **found}


def written(value: object) -> str:
    """Returns the value of a setting as it is written in `.env`.

    >>> written(None), written(("warm", "recent"))
    ('', 'warm,recent')
    """
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)


def settings_in_force() -> Settings:
    """Returns the settings in force; warns, once, of names in `.env` that are none.

    Raises:
        SettingsError: One or several are not as expected, or `.env` cannot be read.
    """
    settings = read_settings(Settings)
    for warning in unknown_names(dotenv_values(ENV_FILE)):
        _warn_once(warning)
    return settings


_OF_OTHERS = (
    "AWS_", "AZURE_", "CUDA_", "CURL_", "DAGSTER_", "GCLOUD_", "GOOGLE_", "GRPC_", "HTTP", "KERAS_", "MLFLOW_",
    "NO_PROXY", "OMP_", "PG", "PYTHON", "REQUESTS_", "SSL_", "TF_", "XLA_",
)  # fmt: skip
"""How names in `.env` begin that Dagster, MLflow and other programs read."""


def unknown_names(written: Iterable[str]) -> Iterator[str]:
    """Yields, for each name that is no setting and no other program's, what is wrong with it.

    >>> list(unknown_names(["TRIP_SOURCE", "TRIP_SOURC", "DAGSTER_HOME"]))
    ['.env: TRIP_SOURC is no setting of taxifare and has no effect (did you mean TRIP_SOURCE?)']
    """
    known = [name.upper() for name in Settings.model_fields]
    for name in written:
        if name.upper() in known or name.upper().startswith(_OF_OTHERS):
            continue
        yield f"{ENV_FILE}: {name} is no setting of taxifare and has no effect{did_you_mean(name, known)}"


@cache
def _warn_once(warning: str) -> None:
    _log.warning("%s", warning)


_Kind = TypeVar("_Kind")


def read_as(kind: TypeAdapter[_Kind], written: object) -> _Kind:
    """Returns what somebody wrote, read as a setting of that kind is read.

    >>> read_as(TypeAdapter(ChallengerNames), "warm, recent")
    ('warm', 'recent')
    >>> read_as(TypeAdapter(RowCount), "many")
    Traceback (most recent call last):
    taxifare.environment.SettingsError: expected a whole number, received 'many'

    Raises:
        SettingsError: It cannot be read so.
    """
    try:
        return kind.validate_python(written)
    except ValidationError as error:
        raise SettingsError(in_words(error, Settings)) from None
