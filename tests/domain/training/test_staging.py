"""From which version training starts, whatever state production is in; training itself is told, not done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from taxifare.gate.evidence import Appraisal
from taxifare.gate.track_record import TrackRecord
from taxifare.model.fitting import TrainingError
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.training import staging, whole_month
from taxifare.training.candidacy import Candidacy
from taxifare.training.candidates import Candidate
from taxifare.training.staging import Staged, stage
from taxifare.training.whole_month import WholeMonth
from taxifare.trips.editions import Edition, Trips
from tests.support.small import small_settings

JANUARY, FEBRUARY = (Trips(Edition(f"2015-0{month}", "r1"), pd.DataFrame({"key": ["a"]})) for month in (1, 2))


@dataclass
class Bench:
    """A registry whose versions may be broken, and a trainer that only says what it is asked for.

    Attributes:
        base: The base model's version.
        broken: Versions that cannot be loaded.
        whole: The whole-month version of each version that has one.
        done: What was trained from what, in order.
        staged: What became the newest challenger, in order.
        diverges: Whether training gives no usable network.
    """

    settings: Any
    base: str | None = "1"
    broken: set[str] = field(default_factory=set)
    whole: dict[str, str] = field(default_factory=dict)
    done: list[tuple[str, str | None]] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    diverges: bool = False

    def newest_of(self, subject: str) -> str | None:
        assert subject == "base"
        return self.base

    def newest_whole_month_of(self, version: str) -> str | None:
        return self.whole.get(version)

    def load(self, version: str) -> "Bench":
        if version in self.broken:
            raise VersionUnusableError(f"version {version} cannot be loaded")
        return self

    load_once = load

    def verify(self, version: str) -> None:
        self.load(version)

    def set_staging(self, version: str) -> None:
        self.staged.append(version)

    def predict(self, trips: pd.DataFrame) -> None:
        assert len(trips) == 1

    def renew(self, trips: Trips, _rehearsed: object, parent: str | None, *_: object, **__: object) -> Candidate:
        return self._train(f"renewed with {trips.edition.subject}", parent)

    def retrain(self, trips: Trips, _rehearsed: object, version: str, *_: object, **__: object) -> str:
        self._train(f"learned all of {trips.edition.subject}", version)
        self.whole[version] = "whole"
        return "whole"

    def _train(self, what: str, parent: str | None) -> Candidate:
        if parent is not None:
            self.load(parent)
        if self.diverges:
            raise TrainingError("the loss is not finite")
        self.done.append((what, parent))
        return Candidate(Appraisal(version="9", fault="nobody has scored it"), "9", parent, None)

    def stage(self, production: str | None, read: Callable[[], Any] | None = None) -> Staged:
        whole = None if read is None else WholeMonth(str(production), read, {})
        registry = cast("ModelRegistry", self)
        candidacy = None
        if production is not None:
            candidacy = Candidacy(TrackRecord(production=production), None, lambda _after: iter(()))
        return stage(FEBRUARY, None, candidacy, whole, registry, self.settings, run_tags={})


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(small_settings(tmp_path))
    monkeypatch.setattr(staging, "renew", made.renew)
    monkeypatch.setattr(whole_month, "retrain_whole_month", made.retrain)
    return made


def january() -> tuple[Trips, None]:
    return JANUARY, None


def never() -> tuple[Trips, None]:
    raise AssertionError("there is nothing to retrain")


@pytest.mark.parametrize(
    ("production", "base", "parent"), [("2", "1", "2"), (None, "1", "1"), (None, None, None), ("2", None, "2")]
)
def test_training_starts_from_production_or_else_from_the_base_model(
    bench: Bench, production: str | None, base: str | None, parent: str | None
) -> None:
    bench.base = base
    staged = bench.stage(production)
    assert bench.done == [("renewed with 2015-02", parent)]
    assert (staged.candidate.parent_version, staged.production_fault) == (parent, None)
    assert bench.staged == ["9"], "what the alias of the newest challenger points at"


@pytest.mark.parametrize(("production", "parent"), [("2", "1"), ("1", None)])
def test_beside_a_broken_production_something_is_trained_to_decide_on(
    bench: Bench, production: str, parent: str | None
) -> None:
    """From the base model; from random weights where that is the broken one."""
    bench.broken = {production}
    staged = bench.stage(production)
    assert bench.done == [("renewed with 2015-02", parent)]
    assert staged.production_fault == f"version {production} cannot be loaded"


@pytest.mark.parametrize("production", ["2", None])
def test_training_that_fails_for_another_reason_fails(bench: Bench, production: str | None) -> None:
    bench.diverges = True
    with pytest.raises(TrainingError, match="not finite"):
        bench.stage(production)


def test_a_broken_base_model_is_no_reason_to_start_from_nothing(bench: Bench) -> None:
    bench.broken = {"1"}
    with pytest.raises(VersionUnusableError, match="version 1 cannot be loaded"):
        bench.stage(None)


def test_production_learns_its_whole_month_first_and_once(bench: Bench) -> None:
    bench.stage("2", january)
    bench.stage("2", never)
    renewed = ("renewed with 2015-02", "2")
    assert bench.done == [("learned all of 2015-01", "2"), renewed, renewed]


def test_a_broken_production_is_found_where_its_whole_month_is_to_be_learned(bench: Bench) -> None:
    bench.broken = {"2"}
    staged = bench.stage("2", january)
    assert bench.done == [("renewed with 2015-02", "1")]
    assert staged.production_fault == "version 2 cannot be loaded"
