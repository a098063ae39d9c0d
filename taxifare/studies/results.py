"""What a search for better settings comes to, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from taxifare.errors import ToldError
from taxifare.gate.scores import Interval
from taxifare.trips.targets import Unit
from taxifare.values import Frozen

SettingValues: TypeAlias = Mapping[str, int | float]
"""Settings that are searched, by name."""

TrialEnd: TypeAlias = Literal["complete", "pruned", "failed"]
"""How a trial ended; `pruned` is given up early, `failed` gave no usable network."""


class TuningError(ToldError, RuntimeError):
    """A search that cannot begin or found nothing; says why."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: Counts from 0, the present settings; a trial that is run again keeps its number.
        end: How it ended.
        settings: What it tried.
        mae: Its error on the held-out trips that choose; None unless complete.
        took_s: What it took.
        fault: Why it failed, None where it did not.
        run_id: Its MLflow run.
    """

    number: int
    end: TrialEnd
    settings: SettingValues
    mae: float | None
    took_s: float
    fault: str | None
    run_id: str


class TuningResult(Frozen):
    """What a search found: the winner and the evidence for it.

    Attributes:
        study: Name of the Optuna study.
        subject: Month, or `base`.
        revision: Of the subject's trips.
        unit: What errors and gain are in.
        run_id: The MLflow run of the search; its trials are nested in it.
        found_at: When.
        trials: Number of trials by their end.
        present: The settings that were in force.
        winner: The settings that won.
        present_mae: Error of the present settings on the held-out trips that choose, None where they do not train.
        winner_mae: The winner's.
        gain: How much closer the winner is per trip on the held-out trips that chose nothing; None where the present
            settings won or do not train.
    """

    study: str
    subject: str
    revision: str
    unit: Unit
    run_id: str
    found_at: datetime
    trials: dict[str, int]
    present: dict[str, int | float]
    winner: dict[str, int | float]
    present_mae: float | None
    winner_mae: float
    gain: Interval | None

    @property
    def env_lines(self) -> tuple[str, ...]:
        """The winner's settings as lines of `.env`."""
        return tuple(f"{name.upper()}={value!r}" for name, value in self.winner.items())


@dataclass(frozen=True)
class Search:
    """What came of a search: the result, every trial, and each setting's share in the differences between them."""

    result: TuningResult
    trials: Sequence[Trial]
    importances: Mapping[str, float]
