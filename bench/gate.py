"""What the gate is worth: real months replayed under it and other policies, beside the previous gate.

    .venv/bin/python bench/gate.py                                     # 2009-07 to 2015-06, two seeds: an hour
    .venv/bin/python bench/gate.py --from 2015-07 --to 2016-06         # months that nothing was chosen on

Errors are those of what was in production, on all rides of a month that it had not learned from. Differences are paired
over months, with Student's interval over the mean of the seeds. Replays stay under TAXIFARE_HOME and go on there.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.evidence import Appraisal, Evidence, Verdict
from taxifare.gate.scores import describe_gain, mean_interval, paired_gains, student_interval
from taxifare.gate.slices import slice_masks
from taxifare.gate.verdict import judge
from taxifare.replay.policies import POLICIES, Policy
from taxifare.replay.replaying import replay
from taxifare.replay.results import Replay
from taxifare.settings import GateSettings, Settings
from taxifare.sources import make_source
from taxifare.trips.editions import Trips
from taxifare.trips.months import parse_month

REAL_TRIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "nyc_kaggle_format"

PREVIOUS_SLICE_TOLERANCE_USD, PREVIOUS_BIAS_TOLERANCE_USD = 0.25, 0.2


def judge_as_before(
    *,
    trips: Trips,
    production: Appraisal,
    production_predicted: pd.Series,
    staging: Appraisal,
    staging_predicted: pd.Series,
    settings: GateSettings,
) -> Evidence:
    """Returns the evidence with the verdict of the previous gate.

    The month's last days alone decide, rides are the units of chance, and biases are those of uncorrected predictions.
    """
    evidence = judge(
        trips=trips,
        production=production,
        production_predicted=production_predicted,
        staging=staging,
        staging_predicted=staging_predicted,
        settings=settings,
    )
    if evidence.production is None or evidence.verdict in {Verdict.LEAK, Verdict.UNCHANGED}:
        return evidence
    validation = trips.validation
    gains = paired_gains(
        production_predicted.to_numpy(), staging_predicted.to_numpy(), validation["target"].to_numpy(np.float64)
    )
    gain = mean_interval(gains)
    is_worse = any(
        mask.sum() >= 30 and mean_interval(gains[mask]).high < -PREVIOUS_SLICE_TOLERANCE_USD
        for mask in slice_masks(validation, settings.city_facts).values()
    )
    bias = abs(evidence.staging.scores.bias) - abs(evidence.production.scores.bias)
    objects = is_worse or bias > PREVIOUS_BIAS_TOLERANCE_USD
    verdict = Verdict.HOLD if gain.low <= settings.minimum_gain or objects else Verdict.PROMOTE
    if gain.high < 0:
        verdict = Verdict.REJECT
    return evidence.model_copy(
        update={"gain": gain, "verdict": verdict, "reasons": (describe_gain(gain, evidence.unit),)}
    )


def previous_gate() -> Policy:
    """Returns the gate as it was: each month begins anew from production, and one on HOLD is thrown away."""
    return Policy(
        "the previous gate",
        lambda evidence, _: (evidence.verdict is Verdict.PROMOTE, "; ".join(evidence.reasons)),
        judge=judge_as_before,
        goes_on=False,
        takes_every_lesson=True,
    )


def maes(found: Replay, policy: str) -> npt.NDArray[np.float64]:
    """Returns production's error on all rides of each month."""
    return np.array([decision.all_rides_mae for decision in found.decisions_of(policy)])


def replayed(seed: int, options: argparse.Namespace) -> Replay:
    """Returns the replay of a seed, and prints what each policy came to."""
    settings = Settings(
        _env_file=None,
        trip_source="folder",
        trip_folder=options.trips,
        seed=seed,
        challengers=("warm",),
        **({} if options.home is None else {"taxifare_home": options.home}),
    )
    policies: Mapping[str, Policy] = {"previous gate": previous_gate()} | {
        name: POLICIES[name] for name in options.policies
    }
    found = replay(
        make_source(settings),
        settings,
        first=parse_month(options.first),
        last=parse_month(options.last),
        policies=policies,
        on_progress=lambda done: print(f"  seed {seed}, {done}", flush=True),
    )
    for policy in found.policies:
        one, decisions = found.summary(policy), found.decisions_of(policy)
        verdicts = pd.Series([str(decision.verdict) for decision in decisions]).value_counts().to_dict()
        print(
            f"seed {seed} {policy}: all rides {one.mae_per_trip:.4f}, months {maes(found, policy).mean():.4f}, "
            f"validation {one.mean_mae:.4f}, {one.promotions} promotions, {one.regretted} regretted, "
            f"{one.questions} questions, {verdicts}",
            flush=True,
        )
    return found


def compare(found: Sequence[Replay], one: str, other: str) -> None:
    """Prints by how much one policy errs less than another, paired over months, over the mean of the seeds."""
    gains = np.mean([maes(replayed, other) - maes(replayed, one) for replayed in found], axis=0)
    interval = student_interval(100 * gains)
    print(
        f"{one} errs {interval.mean:+.2f} cents a ride less than {other} "
        f"(95 % interval over months {interval.low:+.2f} to {interval.high:+.2f})"
    )


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", default="2009-07")
    parser.add_argument("--to", dest="last", default="2015-06")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--policies", nargs="+", default=["gate", "standing", "naive"])
    parser.add_argument("--trips", type=Path, default=REAL_TRIPS)
    parser.add_argument("--home", type=Path, default=None, help="where trainings are kept; TAXIFARE_HOME by default")
    options: Any = parser.parse_args()
    found = [replayed(seed, options) for seed in options.seeds]
    for policy in options.policies:
        compare(found, policy, "previous gate")
    if {"standing", "naive"} <= set(options.policies):
        compare(found, "standing", "naive")


if __name__ == "__main__":
    main()
