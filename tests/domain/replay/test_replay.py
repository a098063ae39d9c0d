"""Replay on small simulated months whose fares rise: policies, shared trainings, kills, and the command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

import taxifare.workers
from taxifare.cli.main import app
from taxifare.gate.evidence import Verdict
from taxifare.replay.errors import ReplayError
from taxifare.replay.policies import PolicyName, policies_of
from taxifare.replay.replaying import replay
from taxifare.replay.results import Replay
from taxifare.reports.replay_page import render
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.trips.months import parse_month
from tests.support.places import REPOSITORY
from tests.support.small import small_settings

pytestmark = pytest.mark.usefixtures("networks_without_tables")

POLICIES: list[PolicyName] = ["gate", "standing", "always", "never", "naive", "threshold"]
FIRST = parse_month("2015-01")


def rising(home: Path, **changes: object) -> Settings:
    """A city whose fares rise in January 2015: the first model is stale from the first month on."""
    quick: dict[str, object] = {
        "max_epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.003,
        "simulator_scenario": "fare-rise",
        "simulator_scenario_from": "2015-01",
        "challengers": ("warm", "whole month"),
        "workers": 1,
    }
    return small_settings(home, **quick | changes)


def replayed(settings: Settings, policies: list[PolicyName] = POLICIES, last: str = "2015-03") -> Replay:
    chosen = policies_of(policies)
    return replay(make_source(settings), settings, first=FIRST, last=parse_month(last), policies=chosen)


def trained(settings: Settings) -> set[str]:
    """The trainings on disk."""
    return {path.name for path in (settings.home / "replay").glob("*/????????????????.npz")}


def without_seconds(found: Replay) -> object:
    """What has to be the same when trainings are done anew: everything but how long they took."""

    def stripped(value: object) -> object:
        if isinstance(value, dict):
            return {name: stripped(inner) for name, inner in value.items() if "seconds" not in name}
        return [stripped(inner) for inner in value] if isinstance(value, list) else value

    return stripped(found.model_dump(mode="json"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return rising(tmp_path_factory.mktemp("replay"))


@pytest.fixture(scope="module")
def found(settings: Settings) -> Replay:
    return replayed(settings)


# Policies


def test_never_keeps_the_first_model_and_trains_nothing(found: Replay) -> None:
    assert {decision.production for decision in found.decisions_of("never")} == {"base"}
    assert found.summary("never").promotions == 0
    assert found.summary("never").training_seconds == 0


def test_always_promotes_whatever_comes(found: Replay) -> None:
    assert [decision.is_promoted for decision in found.decisions_of("always")] == [True, True, True]


def test_the_gate_promotes_on_evidence_only(found: Replay) -> None:
    for decision in found.decisions_of("gate"):
        assert decision.is_promoted == (decision.verdict is Verdict.PROMOTE)
        assert decision.reason
    assert found.decisions_of("gate")[0].is_promoted, "fares have risen: staging is surely better"


def test_naive_and_threshold_look_at_two_numbers(found: Replay) -> None:
    for policy, limit in (("naive", np.inf), ("threshold", 2.5)):
        for decision in found.decisions_of(policy):
            assert decision.staging_mae is not None
            is_lower = decision.staging_mae < decision.production_mae
            assert decision.is_promoted == (is_lower and decision.staging_mae < limit)


def test_what_is_in_production_was_decided_on_earlier_months(found: Replay) -> None:
    for policy in POLICIES:
        decisions = found.decisions_of(policy)
        assert decisions[0].production == "base"
        for earlier, later in pairwise(decisions):
            assert later.production == (earlier.staging if earlier.is_promoted else earlier.production)


def test_policies_differ_where_they_decide_differently(found: Replay) -> None:
    maes = {policy: found.summary(policy).mean_mae for policy in POLICIES}
    assert maes["always"] < maes["never"]
    assert maes["gate"] < maes["never"]


# Numbers


def test_every_model_is_scored_on_every_month(found: Replay) -> None:
    maes = np.array(found.mae)
    assert maes.shape == (len(found.models), 3)
    assert np.isfinite(maes).all()
    names = [model.name for model in found.models]
    assert len(set(names)) == len(names)
    months = [facts.month for facts in found.months]
    for decision in found.decisions:
        month = months.index(decision.month)
        assert decision.production_mae == maes[names.index(decision.production), month]
        if decision.staging is not None:
            assert decision.staging_mae == pytest.approx(maes[names.index(decision.staging), month], rel=1e-6)


def test_regret_is_against_the_best_model_that_existed(found: Replay) -> None:
    names, subjects = [model.name for model in found.models], [model.subject for model in found.models]
    for decision in found.decisions:
        month = [facts.month for facts in found.months].index(decision.month)
        existed = [number for number, subject in enumerate(subjects) if subject == "base" or subject < decision.month]
        best = min(existed, key=lambda number: found.mae[number][month])
        assert decision.best == names[best]
        assert decision.regret == pytest.approx(decision.production_mae - found.mae[best][month])
        assert decision.regret >= 0


def test_dollars_are_errors_times_rides(found: Replay) -> None:
    summary, decisions = found.summary("gate"), found.decisions_of("gate")
    dollars = [one.all_rides_mae * facts.trips for one, facts in zip(decisions, found.months, strict=True)]
    assert summary.total == pytest.approx(sum(dollars))
    assert summary.mae_per_trip == pytest.approx(sum(dollars) / sum(facts.trips for facts in found.months))
    assert summary.mean_mae == pytest.approx(np.mean([one.production_mae for one in decisions]))


def test_all_rides_are_those_of_the_last_days_and_those_before(found: Replay) -> None:
    """The share that is for validation weighs what it is; on the rest production is about as far off."""
    for decision in found.decisions:
        assert decision.all_rides_mae != decision.production_mae
        assert decision.all_rides_mae == pytest.approx(decision.production_mae, rel=0.35)


def test_a_person_is_asked_where_a_person_decides(found: Replay) -> None:
    asked = [decision.verdict is not Verdict.UNCHANGED for decision in found.decisions_of("gate")]
    assert [decision.is_asked for decision in found.decisions_of("gate")] == asked
    assert found.summary("gate").questions == sum(asked)
    assert {found.summary(policy).questions for policy in POLICIES if policy != "gate"} == {0}


def test_rules_of_these_months_are_told(found: Replay) -> None:
    assert [str(rule.since) for rule in found.rules] == ["2015-03-22"]


def test_only_promotions_can_be_regretted(found: Replay) -> None:
    for decision in found.decisions:
        is_judged = decision.is_promoted and decision.month != "2015-03"
        assert (decision.is_regretted is None) == (not is_judged)


# Trainings


def test_policies_share_trainings(settings: Settings, found: Replay) -> None:
    """A month is learned once from each candidate that a policy has; a promoted model is retrained once."""
    training = [decision for decision in found.decisions if decision.staging is not None]
    before = {decision.policy: "base" for decision in training}
    learned, compared = set(), set()
    for decision in training:
        candidate = before[decision.policy]
        learned.add((decision.month, candidate))
        if candidate == decision.production != "base":
            compared.add((decision.month, candidate))
        before[decision.policy] = str(decision.staging)
        if decision.verdict is Verdict.REJECT and not decision.is_promoted:
            before[decision.policy] = decision.production
    retrained = {(one.month, one.staging) for one in training if one.is_promoted and one.month != "2015-03"}
    assert len(training) == 15
    assert len([month for month, _ in learned if month == "2015-01"]) == 1
    assert len(trained(settings)) == len(["base"]) + len(learned) + len(retrained) + len(compared)


def test_a_second_replay_trains_nothing_and_says_the_same(
    settings: Settings, found: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(taxifare.workers, "ProcessPoolExecutor", refuse)
    again = replayed(settings)
    assert again == found
    assert render(again) == render(found)


@pytest.mark.slow
def test_a_replay_that_was_killed_goes_on_and_says_the_same(found: Replay, tmp_path: Path) -> None:
    settings = rising(tmp_path, workers=2)
    environment = os.environ | {
        name.upper(): ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in settings.model_dump(exclude_unset=True).items()
    }
    command = [
        sys.executable,
        "-c",
        "from taxifare.cli.main import app; app()",
        "replay",
        "--from",
        "2015-01",
        "--to",
        "2015-03",
    ]
    command += [part for policy in POLICIES for part in ("--policy", policy)]
    command += ["--challengers", "warm,whole month", "--output", str(tmp_path / "replay.html")]
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 240
        while len(trained(settings)) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = trained(settings)
    assert not (tmp_path / "replay.html").exists()
    for worker in workers:
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, f"process {worker} outlives the replay that started it"
            time.sleep(0.05)

    resumed = replayed(settings)
    assert without_seconds(resumed) == without_seconds(found)
    assert before < trained(settings)


@pytest.mark.slow
def test_months_are_added_to_a_replay(settings: Settings, found: Replay, tmp_path: Path) -> None:
    """What was trained for fewer months and fewer policies is taken over, and the rest is the same."""
    other = rising(tmp_path)
    replayed(other, ["gate"], last="2015-02")
    assert without_seconds(replayed(other)) == without_seconds(found)


def test_one_replay_at_a_time(settings: Settings, found: Replay) -> None:
    (folder,) = (settings.home / "replay").iterdir()
    with FileLock(folder / "lock"), pytest.raises(ReplayError, match="another replay of these settings is at work"):
        replayed(settings)


def test_a_month_without_trips_is_an_error(settings: Settings) -> None:
    with pytest.raises(ReplayError, match="expected trips of every month from 2015-01 to 2999-01"):
        replayed(settings, last="2999-01")


def test_a_month_that_the_checks_would_stop_is_an_error(settings: Settings) -> None:
    told = (
        r"2015-01, .*: the checks would stop this month: expected at least 100,000 trips in 2015-01 "
        r"\(MINIMUM_TRIPS=100000\), received [\d,]+: add those that are missing, or set a lower MINIMUM_TRIPS$"
    )
    with pytest.raises(ReplayError, match=told):
        replayed(settings.model_copy(update={"minimum_trips": 100_000}))


def test_a_month_that_is_not_whole_is_an_error(settings: Settings) -> None:
    """As its own run would wait for it: here, one that has fewer rides than every other."""
    told = r"2015-0\d is not whole, and its own run would wait: it has [\d,]+ rides, expected at least 100 % of"
    with pytest.raises(ReplayError, match=told):
        replayed(settings.model_copy(update={"month_least_share": 0.9999}))


# The command


@pytest.fixture
def in_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(name.upper(), ",".join(value) if isinstance(value, tuple) else str(value))
    return


@pytest.mark.usefixtures("in_environment")
def test_the_command_shows_the_summary_and_writes_the_report(found: Replay, tmp_path: Path) -> None:
    span = ["--from", "2015-01", "--to", "2015-03", "--challengers", "warm,whole month"]
    policies = [part for policy in POLICIES for part in ("--policy", policy)]
    result = CliRunner().invoke(app, ["replay", *span, *policies, "--output", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.output
    assert all(policy in result.output for policy in POLICIES)
    assert (tmp_path / "report.html").read_text() == render(found)


@pytest.mark.usefixtures("in_environment")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--from", "2015-13", "--to", "2015-02"], "2015-13"),
        (["--from", "2015-01", "--to", "2015-02", "--policy", "sometimes"], "sometimes"),
        (["--from", "2015-01", "--to", "2015-02", "--challengers", "cold"], "cold"),
        (["--from", "2015-02", "--to", "2015-01"], "'--to': expected a month not before that of --from"),
    ],
)
def test_a_question_that_makes_no_sense_is_an_error(asked: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["replay", *asked])
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ").replace("│ ", "")
