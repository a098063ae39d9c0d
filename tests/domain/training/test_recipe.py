"""The recipe of a training: nothing that its result depends on can change, or be added, without changing it."""

import importlib
import sys
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from taxifare.digests import modules_behind
from taxifare.model.network import ARCHITECTURES, Architecture
from taxifare.settings import Settings, TrainingSettings
from taxifare.training.challengers import RENEWAL, Renewal
from taxifare.training.earlier_fingerprints import fingerprint_at_431839f
from taxifare.training.recipe import fingerprint, recipe
from taxifare.trips.cities import City
from taxifare.trips.city_files import CityFile, shipped
from taxifare.trips.meters import MeterStep
from taxifare.trips.targets import FARE, TARGETS
from tests.support.cities import CORRECTED, NEW_YORK, new_york_with

PLAIN = TrainingSettings()

OTHERS = {"city": shipped("chicago"), "target": "duration", "challengers": ("warm",)}
"""Other values of settings that are no numbers."""


def in_city(city: CityFile) -> TrainingSettings:
    return PLAIN.model_copy(update={"city": city})


def another(value: Any) -> Any:
    """A value like it, but another one."""
    if isinstance(value, str):
        return f"{value} "
    if isinstance(value, tuple):
        return value[:-1]
    if value is None:
        return 3
    return 2 * value if isinstance(value, int) else value / 2


@pytest.mark.parametrize("name", TrainingSettings.model_fields)
def test_every_setting_of_the_group_is_in_it(name: str) -> None:
    value = OTHERS[name] if name in OTHERS else another(getattr(PLAIN, name))
    assert fingerprint(PLAIN.model_copy(update={name: value})) != fingerprint(PLAIN)


def test_settings_of_other_groups_are_not() -> None:
    """The whole of the settings is given where a training is asked for; who is asked about it changes nothing."""
    whole = Settings(_env_file=None, chat_author="Ada", minimum_gain=0.5, trip_source="tlc")
    assert fingerprint(whole) == fingerprint(PLAIN)


@pytest.mark.parametrize("name", [field.name for field in fields(City)])
def test_every_fact_of_the_city_is_in_it(name: str) -> None:
    changed = new_york_with(replace(NEW_YORK, **{name: another(getattr(NEW_YORK, name))}))
    assert fingerprint(in_city(changed)) != fingerprint(PLAIN)


@pytest.mark.parametrize("city", CORRECTED.values(), ids=CORRECTED)
def test_a_corrected_date_angle_or_radius_is_another_training(city: City) -> None:
    assert fingerprint(in_city(new_york_with(city))) != fingerprint(PLAIN)


def test_the_meter_s_step_and_the_place_of_the_file_are_not() -> None:
    """Quotes are rounded after the training; a tariff that is entered must not make other versions of all months."""
    assert "taxifare.trips.meters" in modules_behind("taxifare.training")
    city = shipped("new-york")
    assert fingerprint(in_city(replace(city, meter=(MeterStep(date(2009, 1, 1), 3.0, 0.7),)))) == fingerprint(PLAIN)
    assert fingerprint(in_city(replace(city, path=Path("elsewhere.yaml")))) == fingerprint(PLAIN)


def test_the_limit_of_the_target_is_in_it_and_its_words_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(PLAIN)
    monkeypatch.setitem(TARGETS, "fare", replace(FARE, question="How dear are they?"))
    assert fingerprint(PLAIN) == before
    assert fingerprint(in_city(replace(shipped("new-york"), highest_fare=300.0))) != before


@pytest.mark.parametrize("name", [field.name for field in fields(Architecture)])
@pytest.mark.parametrize("least", ARCHITECTURES)
def test_every_number_of_every_shape_is_in_it(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes the network and runs a month again must not be given the version of before."""
    before, shape = fingerprint(PLAIN), ARCHITECTURES[least]
    changed = {**ARCHITECTURES, least: replace(shape, **{name: another(getattr(shape, name))})}
    monkeypatch.setattr("taxifare.training.from_random_weights.ARCHITECTURES", changed)
    assert fingerprint(PLAIN) != before


@pytest.mark.parametrize("name", [field.name for field in fields(Renewal)])
def test_every_number_of_a_renewal_is_in_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(PLAIN)
    changed = replace(RENEWAL, **{name: another(getattr(RENEWAL, name))})
    monkeypatch.setattr("taxifare.training.challengers.RENEWAL", changed)
    assert fingerprint(PLAIN) != before


@pytest.mark.parametrize(
    "constant",
    [
        "model.correction.CORRECTION_COST",
        "model.fitting.UPPER_QUANTILE",
        "model.network._SHORTEST_KM",
        "training.base_trips.GROUP_TRIPS",
        "training.base_trips.SAMPLE_TRIPS",
        "training.gathering.VALIDATION_SHARE",
        "training.challengers.FEWEST_TRIPS",
        "training.challengers.HELD_SHARE",
        "training.challengers.RECENT_MONTHS",
        "training.from_random_weights.EARLY_STOPPING_SHARE",
        "training.from_random_weights.EARLY_STOPPING_TRIPS",
        "training.reservoir.HALF_LIFE_YEARS",
        "trips.features.MISSING_PASSENGERS",
    ],
)
def test_a_changed_constant_is_another_training(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = f"taxifare.{constant}".rpartition(".")
    before, value = fingerprint(PLAIN), getattr(importlib.import_module(module), name)
    monkeypatch.setattr(sys.modules[module], name, value / 2)
    assert fingerprint(PLAIN) != before


@pytest.mark.parametrize("module", ["training.challengers", "training.reservoir", "model.fitting", "trips.cleaning"])
def test_a_new_constant_belongs_to_it_without_being_named_anywhere(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(PLAIN)
    monkeypatch.setattr(f"taxifare.{module}.LATEST_SHARE", 0.25, raising=False)
    assert fingerprint(PLAIN) != before


def test_how_long_mlflow_is_waited_for_changes_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "taxifare.model.store" in modules_behind("taxifare.training")
    before = fingerprint(PLAIN)
    monkeypatch.setattr("taxifare.model.store.TIMEOUT_S", 5.0, raising=False)
    assert fingerprint(PLAIN) == before


def test_a_name_stands_for_one_number() -> None:
    """Two of one name would be told apart only as a pair."""
    names = [line.partition("=")[0] for line in recipe(PLAIN)["numbers"]]
    assert len(names) == len(set(names))


def test_inputs_are_in_a_fingerprint_in_whatever_order() -> None:
    assert fingerprint(PLAIN, trips=1, parent=None) == fingerprint(PLAIN, parent=None, trips=1)
    assert len({fingerprint(PLAIN), fingerprint(PLAIN, trips=1), fingerprint(PLAIN, trips=2)}) == 3


# The release before

INPUTS: dict[str, object] = {
    "subject": "2015-01",
    "revision": "r",
    "trips": 100,
    "validation_trips": 20,
    "rehearsed_trips": 0,
    "rehearsed": [],
    "parents": ("1", None),
}

HALF_AS_WIDE = {"dense_width_factor": 0.5, "seed": 7, "challengers": ("warm", "recent"), "rehearsal_trips": 10}

CHICAGO_MINUTES = {"city": "chicago", "target": "duration", "dataset_size": None}


@pytest.mark.parametrize(
    ("changes", "made_by_it"),
    [
        ({}, "c8bd3375614d00a57943206300471f342c72348b34ea26d96f2aef44605aaae6"),
        (HALF_AS_WIDE, "0ea4f9bc187986cd9766c9bc757768b40a0bfa6f47518d9deb1c642ae485abed"),
        (CHICAGO_MINUTES, "6eb5a8aef70a8c3159a547801a8c218551ec9c03d04725c51ef9357480a9b0d9"),
    ],
    ids=["defaults", "half as wide", "minutes in Chicago"],
)
def test_the_release_before_called_it_so(changes: dict[str, Any], made_by_it: str) -> None:
    """Written down by the code of 431839f. Where one of its numbers changes after a release, this has had its time."""
    assert fingerprint_at_431839f(TrainingSettings(**changes), INPUTS) == made_by_it


@pytest.mark.parametrize("override", ["learning_rate", "batch_size", "max_epochs"])
def test_what_that_release_could_not_be_told_it_has_not_trained(override: str) -> None:
    assert fingerprint_at_431839f(TrainingSettings(**{override: 3}), INPUTS) is None


@pytest.mark.parametrize(
    "constant", ["taxifare.training.challengers.HELD_SHARE", "taxifare.training.reservoir.HALF_LIFE_YEARS"]
)
def test_what_is_trained_otherwise_since_is_not_that_releases(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant, 0.123)
    assert fingerprint_at_431839f(PLAIN, INPUTS) is None


def test_a_corrected_rule_is_not_that_releases() -> None:
    assert fingerprint_at_431839f(in_city(new_york_with(CORRECTED["rule date"])), INPUTS) is None
