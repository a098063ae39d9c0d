"""The settings: what `.env.sample` promises, what is refused, and what stays secret."""

import pickle
import re
import traceback
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd
import pytest
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import SettingsConfigDict

from taxifare.environment import SettingsError
from taxifare.settings import MATTER_FIRST, Settings, of_training, sections, settings_in_force, written
from taxifare.trips import cities
from taxifare.trips.city_files import shipped
from tests.support.places import REPOSITORY

SAMPLE = REPOSITORY / ".env.sample"


class Defaults(Settings):
    """The settings without a `.env` that happens to lie in the working folder."""

    model_config = SettingsConfigDict(env_file=None)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def sample() -> str:
    """The text `.env.sample` must have: in sections, each variable with its description and its default."""
    blocks = []
    for section, names in sections().items():
        blocks.append(f"# {'-' * 4} {section} {'-' * (110 - len(section))}\n")
        for name in names:
            field = Settings.model_fields[name]
            blocks.append(f"# {field.description}\n#{name.upper()}={written(field.default)}\n")
    return "\n".join(blocks)


def test_the_sample_lists_every_setting_once_in_sections_with_its_description_and_default() -> None:
    assert SAMPLE.read_text() == sample()
    assert sorted(chain.from_iterable(sections().values())) == sorted(Settings.model_fields)
    assert len(MATTER_FIRST) == 10


def test_every_setting_says_what_it_is_in_one_line() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name


@pytest.mark.parametrize("is_in_force", [False, True])
def test_a_copy_of_the_sample_changes_nothing_nor_do_its_defaults(tmp_path: Path, is_in_force: bool) -> None:
    copy = tmp_path / ".env"
    copy.write_text(re.sub(r"^#(?=\w+=)", "" if is_in_force else "#", SAMPLE.read_text(), flags=re.MULTILINE))

    class Copied(Settings):
        model_config = SettingsConfigDict(env_file=copy)

    assert len(dotenv_values(copy)) == (len(Settings.model_fields) if is_in_force else 0)
    assert Copied().model_dump() == Defaults().model_dump()


def test_settings_are_read_after_a_model_has_brought_its_city_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {cities.__name__})
    pickle.loads(cloudpickle.dumps(shipped("chicago").facts))

    class Afterwards(Defaults):
        pass

    assert Afterwards(city="new-york").model_dump()["city"] == "new-york"


def test_no_secret_goes_with_a_training_to_another_machine() -> None:
    secret = "3f" * 32
    settings = Defaults(approval_secret=secret, seed=7)
    assert secret.encode() in pickle.dumps(settings)
    assert secret.encode() not in pickle.dumps(of_training(settings))
    assert of_training(settings).seed == 7


def test_a_variable_goes_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST_MONTH", "2012-06")
    monkeypatch.setenv("LAST_MONTH", "")
    settings = Defaults()
    assert settings.first_month == pd.Period("2012-06", "M")
    assert settings.last_month is None


@pytest.mark.parametrize(
    ("written", "rows"), [("1k", 1_000), ("100k", 100_000), ("all", None), ("ALL", None), ("250000", 250_000)]
)
def test_dataset_sizes_are_written_as_in_the_course(written: str, rows: int | None) -> None:
    assert Defaults(dataset_size=written).dataset_size == rows


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TRIP_SOURCE", "bigtable", "'simulator', 'folder'"),
        ("FIRST_MONTH", "2015-13", "YYYY-MM, received '2015-13'"),
        ("FIRST_MONTH", "January", "YYYY-MM, received 'January'"),
        ("DATASET_SIZE", "huge", "huge"),
        ("VALIDATION_SHARE", "1.5", "less than 1"),
        ("SIMULATOR_SCENARIO", "meteor", "'as-it-was', 'fare-rise' or 'slow-traffic'"),
        ("SIMULATOR_TRIPS_PER_MONTH", "0", "greater than or equal to 1"),
        ("CHALLENGERS", "warm, lukewarm", "'warm', 'whole month', 'recent' or 'since rule'"),
        ("TARGET", "tip", "'fare' or 'duration'"),
        ("REHEARSAL_TRIPS", "-1", "greater than or equal to 0"),
        ("STREAM_URL", "kafka://127.0.0.1:9092", "expected the address of a NATS server"),
        ("STREAM_RIDES", "taxifare.*", "expected a subject of letters"),
        ("STREAM_RIDES", "taxifare.quotes.fare", "STREAM_REFUSED and STREAM_OUTCOMES: expected four subjects"),
    ],
)
def test_an_unknown_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as refusal:
        Defaults()
    assert variable.lower() in str(refusal.value)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"first_month": "2015-06", "last_month": "2015-01"}, "LAST_MONTH=2015-01 is before FIRST_MONTH=2015-06: "),
        ({"trip_source": "folder"}, "TRIP_SOURCE=folder needs TRIP_FOLDER"),
        ({"chat_base_url": "https://chat"}, "CHAT_BASE_URL and CHAT_CHANNEL go together"),
        ({"trip_source": "chicago"}, "TRIP_SOURCE=chicago needs CITY=chicago, received new-york"),
        ({"trip_source": "tlc", "city": "chicago"}, "TRIP_SOURCE=tlc has trips of CITY=new-york, received chicago"),
        ({"mlflow_tracking_username": "ada"}, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD go together"),
        ({"target": "duration", "trip_source": "lewagon"}, "TRIP_SOURCE=lewagon have none; simulator, tlc and chicago"),
        ({"target": "duration", "trip_source": "bigquery"}, "TRIP_SOURCE=bigquery have none; simulator, tlc and"),
    ],
)
def test_settings_that_need_each_other_are_refused_apart(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Defaults(**settings)


def test_each_target_has_its_own_registered_model_unless_one_is_named() -> None:
    names = [Defaults(target=target).registered_model for target in ("fare", "duration")]
    assert names == ["taxifare", "taxifare-duration"]
    assert Defaults(target="duration", model_name="minutes").registered_model == "minutes"


@pytest.mark.parametrize("source", [{"trip_source": "bigquery", "bigquery_table": "ours.trips.all"}, {}])
def test_durations_are_learned_from_tables_of_ones_own_and_the_simulator(source: dict[str, Any]) -> None:
    assert Defaults(target="duration", **source).target_facts.unit == "min"


def test_challengers_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHALLENGERS", "warm, since rule")
    assert Defaults().challengers == ("warm", "since rule")


def test_no_text_of_the_settings_shows_a_secret() -> None:
    settings = Defaults(approval_secret="open sesame")
    assert "sesame" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_state_has_one_place_even_for_workers_in_other_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Defaults()
    assert settings.home == tmp_path / "state"
    assert str(settings.lake) == str(tmp_path / "state" / "lake")
    assert settings.ledger_url == f"sqlite:///{tmp_path}/state/ledger.db"


def test_no_group_hides_a_setting_or_a_rule_of_another() -> None:
    class Other(BaseModel):
        model_config = ConfigDict(frozen=True)
        none_of_ours: None = None

    groups = [group for group in Settings.__mro__ if group.__module__ == Settings.__module__]
    own = [({*vars(group), *group.__annotations__} - set(vars(Other))) for group in groups]
    assert len(groups) > 10
    assert not [name for name, count in Counter(chain.from_iterable(own)).items() if count > 1]


# What is said of a faulty setting


@pytest.mark.parametrize(
    ("setting", "written", "said"),
    [
        ("BATCH_SIZE", "many", "BATCH_SIZE: expected a whole number, received 'many'"),
        ("BATCH_SIZE", "0", "BATCH_SIZE: expected 1 or more, received '0'"),
        ("DATASET_SIZE", "lots", "DATASET_SIZE: expected a whole number, received 'lots'"),
        ("LEARNING_RATE", "fast", "LEARNING_RATE: expected a number, received 'fast'"),
        ("LEARNING_RATE", "-1", "LEARNING_RATE: expected more than 0.0, received '-1'"),
        ("VALIDATION_SHARE", "1", "VALIDATION_SHARE: expected less than 1.0, received '1'"),
        ("STALENESS_TOLERANCE", "2", "STALENESS_TOLERANCE: expected 1.0 or less, received '2'"),
        ("TLC_COLOR", "red", "TLC_COLOR: expected 'yellow' or 'green', received 'red'"),
        ("CHALLENGERS", "warm,cold", "'recent' or 'since rule', received 'cold'"),
        ("CHICAGO_URL", "ftp://x", "CHICAGO_URL: expected an address that begins with http or https"),
        ("MLFLOW_EXPERIMENT", "", "MLFLOW_EXPERIMENT: expected a text, received ''"),
        ("FIRST_MONTH", "2015-1", "FIRST_MONTH: expected a month written YYYY-MM, received '2015-1'"),
        (
            "LAST_MONTH",
            "2014-12",
            "LAST_MONTH=2014-12 is before FIRST_MONTH=2015-01, the default: set FIRST_MONTH, too",
        ),
        (
            "FIRST_MONTH",
            "2024-02",
            "LAST_MONTH=2015-06, the default, is before FIRST_MONTH=2024-02: set LAST_MONTH, too, or LAST_MONTH= for",
        ),
    ],
)
def test_a_faulty_setting_is_said_as_it_is_written_and_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, written: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"{setting}={written}\n")
    with pytest.raises(SettingsError) as told:
        settings_in_force()
    assert said in str(told.value)
    shown = "".join(traceback.format_exception(told.value))
    assert not any(word in shown for word in ("pydantic", "http://", "https://", "input_value", "should"))


def test_all_faulty_settings_are_said_and_nothing_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"SEED": "x", "PATIENCE": "y", "APPROVAL_SECRET": "sesame"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"PATIENCE: .*'y' \(in .*\); SEED: .*'x' \(in the environment\)$"):
        settings_in_force()
    for name, value in {"SEED": "1", "PATIENCE": "1", "CHAT_CHANNEL": "fares"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as told:
        settings_in_force()
    assert str(told.value) == "CHAT_BASE_URL and CHAT_CHANNEL go together: set both or neither"


def test_a_faulty_setting_is_said_with_where_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("minimum_gain=xyz\nSEED=abc\n")
    monkeypatch.setenv("MINIMUM_GAIN", "uvw")
    with pytest.raises(SettingsError) as told:
        settings_in_force()
    assert sorted(str(told.value).split("; ")) == [
        "MINIMUM_GAIN: expected a number, received 'uvw' (in the environment)",
        "SEED: expected a whole number, received 'abc' (in .env)",
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("MINIMUM_GAIN: 0.02", [".env, line 1: expected NAME=value, received 'MINIMUM_GAIN: 0.02'"]),
        ("SEED=1\n\n\n  MINIMUM_GAIN 0.02\r\n", [".env, line 4: expected NAME=value, received 'MINIMUM_GAIN 0.02'"]),
        ("export SEED: 1", [".env, line 1: expected NAME=value, received 'export SEED: 1'"]),
        (
            "APPROVAL_SECRET: open-sesame\nSEED=1\nTRIP_SORCE: sesame\nopen sesame",
            [
                ".env, line 1: expected NAME=value, received a line that begins with APPROVAL_SECRET",
                "other such lines: 3, 4",
            ],
        ),
        ("TRIP_SORCE: sesame", [".env, line 1: expected NAME=value, received a line that begins with TRIP_SORCE"]),
        (
            "SEED=1\nopen sesame",
            [".env, line 2: expected NAME=value, received a line that is not shown, as it may be confidential"],
        ),
        (
            "STORAGE_URI: s3://ada:sesame@lake",
            [".env, line 1: expected NAME=value, received a line that begins with STORAGE_URI"],
        ),
        (
            "TRIP_FOLDER='trips\nAPPROVAL_SECRET='sesame'\n",
            [
                ".env, line 1: expected NAME=value, every quote closed and nothing behind it, received "
                '"TRIP_FOLDER=\'trips"'
            ],
        ),
    ],
)
def test_a_line_that_is_no_setting_is_refused_and_no_secret_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, written: str, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(written)
    with pytest.raises(SettingsError) as told:
        settings_in_force()
    found = str(told.value).split("; ")
    assert found == said
    assert "sesame" not in str(told.value)
    assert caplog.messages == [], "the parser's own log says less"
