"""The candidate goes on: month after month, in any order, whatever was restated, missing or broken."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taxifare.gate.slices import sliced_gains
from taxifare.gate.track_record import TrackRecord
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import MlflowStore
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.training import challengers
from taxifare.training.base_trips import BaseTrips
from taxifare.training.candidacy import Candidacy, EarlierMonth, months_before
from taxifare.training.candidates import Candidate
from taxifare.training.challengers import Renewal
from taxifare.training.rehearsal import Past
from taxifare.training.renewal import renew
from taxifare.trips.months import Month, parse_month
from tests.support.published import Published
from tests.support.registry import all_versions
from tests.support.small import base_file, run_tags, small_settings, train, version_of

pytestmark = pytest.mark.usefixtures("networks_without_tables")

JANUARY, FEBRUARY, MARCH = (parse_month(f"2015-0{number}") for number in range(1, 4))

FEW: dict[str, Any] = {"simulator_trips_per_month": 500, "simulator_base_trips": 1_000, "rehearsal_trips": 300}


@dataclass
class World:
    """A base model in production, and months that a candidate may learn.

    Attributes:
        settings: Small ones.
        registry: Where versions are.
        source: Whose months.
        base: The years before.
    """

    settings: Settings
    registry: ModelRegistry
    source: Published
    base: BaseTrips

    @property
    def versions(self) -> int:
        """How many there are."""
        return len(all_versions(self.registry))

    def months(self, month: Month, after: Month | None = None) -> Iterator[EarlierMonth]:
        """The months before one that are later than another."""
        past = Past(self.source, lambda: self.base, lambda _month: None, self.settings)
        return months_before(month, past, after)

    def before(self, month: Month, record: TrackRecord | None = None) -> TrackRecord:
        """The candidate's record before a month, with what is on record already."""
        known = record or TrackRecord(production="1")
        candidacy = Candidacy(known, None, partial(self.months, month))
        return candidacy.brought_up_to_date(
            self.registry, self.settings, run_tags=run_tags("staging_model", "", "run-x")
        )

    def learn(self, month: Month, record: TrackRecord) -> tuple[Candidate, TrackRecord]:
        """The candidate after a month, and its record with the whole of that."""
        (found,) = self.months(month + 1, month - 1)
        assert found.trips is not None
        tags = run_tags("staging_model", str(month), "run-x")
        candidate = renew(
            found.trips,
            found.rehearsed,
            record.candidate,
            self.registry,
            self.settings,
            run_tags=tags,
            record=record,
        )
        validation = found.trips.validation
        production, staging = (
            self.registry.load(version).predict(validation) for version in (record.production, candidate.version)
        )
        gains = sliced_gains(production, staging, validation, self.settings.city_facts)
        return candidate, candidate.record.with_gains(gains)


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, open_registry: Callable[[Settings], ModelRegistry]
) -> tuple[Settings, BaseTrips]:
    """A base model, trained once."""
    settings = small_settings(tmp_path_factory.mktemp("candidacy"), **FEW)
    base = base_file(settings)
    assert version_of(train(base, None, open_registry(settings), settings, "run-base")) == "1"
    return settings, base


@pytest.fixture
def world(
    template: tuple[Settings, BaseTrips], tmp_path: Path, open_registry: Callable[[Settings], ModelRegistry]
) -> World:
    before, base = template
    shutil.copytree(before.home, tmp_path / "home")
    settings = small_settings(tmp_path / "home", **FEW)
    MlflowStore.from_settings(settings).mend()
    return World(settings, open_registry(settings), Published(make_source(settings)), base)


def test_a_candidate_is_the_same_in_whatever_order_its_months_are_run(world: World) -> None:
    """March first: January and February are learned on the way. Run afterwards, neither of them trains anything."""
    record = world.before(MARCH)
    assert [entry.month for entry in record.months] == ["2015-01", "2015-02"]
    rides = [len(month.trips.frame) for month in world.months(MARCH) if month.trips is not None]
    assert [entry.gains.all.rides for entry in record.months] == rides, "each ride is priced once"
    trained = world.versions
    assert trained == 3
    in_order = TrackRecord(production="1")
    for month in (JANUARY, FEBRUARY):
        candidate, in_order = world.learn(month, in_order)
        assert candidate.history is None, "its lesson was found"
    assert in_order == record
    assert world.versions == trained
    world.source.read.clear()
    assert world.before(MARCH, record) == record
    assert world.source.read == [], "what is on record is not read again"


@pytest.mark.slow
def test_a_restated_month_is_learned_in_its_place_and_those_after_it_anew(world: World) -> None:
    before = world.before(MARCH)
    world.source.restated[JANUARY] = ("dearer", lambda trips: trips.assign(fare_amount=trips["fare_amount"] * 1.2))
    after = world.before(MARCH)
    assert [entry.revision for entry in after.months if entry.month == "2015-01"] == ["dearer"]
    assert after.months[1].revision == before.months[1].revision
    assert after.months[1].candidate != before.months[1].candidate


def test_a_month_that_is_not_sound_teaches_nothing_and_is_on_record(world: World) -> None:
    world.source.restated[JANUARY] = ("unsound", lambda trips: trips[:50])
    record = world.before(MARCH)
    assert [(entry.month, entry.gains.all.rides > 0) for entry in record.months] == [
        ("2015-01", False),
        ("2015-02", True),
    ]
    assert [entry.candidate for entry in record.months] == ["1", "2"]


def test_a_lesson_that_makes_the_candidate_no_better_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step a thousand times too large: the lesson is registered, and the candidate stays what it was."""
    monkeypatch.setattr(challengers, "RENEWAL", Renewal(learning_rate=1.0))
    candidate, record = world.learn(JANUARY, TrackRecord(production="1"))
    assert (candidate.version, candidate.lesson_version, candidate.keeps_lesson) == ("1", "2", False)
    assert record.candidate == "1"
    assert record.gains.all.total == 0, "production against itself"
    (lesson,) = [version for version in all_versions(world.registry) if str(version.version) == "2"]
    assert lesson.description.endswith("version 1 was kept, and nobody is asked about this one.")


@pytest.mark.slow
def test_a_candidate_whose_files_were_altered_begins_anew_from_production(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    record = world.before(FEBRUARY)
    assert record.candidate == "2"
    newest = max(world.settings.home.rglob("*.keras"), key=lambda path: path.stat().st_mtime)
    newest.write_bytes(b"something else")
    with pytest.raises(VersionUnusableError):
        world.registry.load("2")
    anew = world.before(FEBRUARY, record)
    assert anew.candidate == "3"
    assert "the candidate begins anew from production" in caplog.text
