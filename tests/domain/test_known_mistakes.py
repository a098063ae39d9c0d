"""Mistakes of public projects that renew models: each once happened to somebody, and must not happen here.

One test a mistake, named after it, that fails when the mistake is put back. Mistakes that are the subject of another
file are listed in `ELSEWHERE`, with the test that guards against each.
"""

import ast
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.approval.channels import DeliveryError, Message, PassingDeliveryError
from taxifare.approval.delivery import send_request
from taxifare.approval.records import RequestState
from taxifare.approval.versions import registry_of
from taxifare.gate.evidence import Appraisal, Evidence, Verdict
from taxifare.gate.scores import EvaluationError, score
from taxifare.gate.verdict import judge
from taxifare.model.network import build_network
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources.base import SourceError, checked_month
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import parse_month
from tests.support.approvals import LINKS, MemoryRegistry, Office, contender
from tests.support.approvals import evidence as evidence_on
from tests.support.cities import NEW_YORK
from tests.support.places import REPOSITORY
from tests.support.small import PLAIN_NETWORK, raw_month, small_settings

A_MOMENT = pd.Timedelta(1, "us")

ELSEWHERE = {
    "the reported MAE is the best epoch on the early-stopping set": (
        "test_renewal.py::test_the_mae_is_that_of_the_saved_weights",
        "test_renewal.py::test_the_mae_is_not_the_best_epoch_seen_in_training",
    ),
    "validation rows that were trained on": (
        "test_renewal.py::test_stopping_is_decided_on_training_rides",
        "test_renewal.py::test_production_trained_on_the_month_cannot_judge_it",
    ),
    "a registry outage taken for an empty registry": (
        "test_registry.py::test_a_server_that_does_not_answer_is_an_error",
        "test_renewal.py::test_a_registry_that_does_not_answer_is_no_cold_start",
        "test_projection.py::test_a_registry_that_is_down_is_never_taken_for_an_empty_one",
    ),
    "running a month twice registers two versions": (
        "test_renewal.py::test_the_same_inputs_give_the_same_version_untrained_and_the_same_verdict",
        "test_renewal.py::test_a_month_that_was_killed_half_way_is_finished_by_running_it_again",
    ),
    "optimizer or weights not really restored at warm start": (
        "test_registry.py::test_the_first_step_of_a_warm_start_has_the_parents_loss",
        "test_registry.py::test_training_goes_on_where_it_stopped",
    ),
}


ATTACKS = {
    "events reported over HTTP": (
        "test_lifecycle.py::test_what_anybody_may_send_to_dagster_asks_decides_and_moves_nothing",
        "test_check_results.py::test_a_reported_result_changes_nothing",
        "test_decision_jobs.py::test_a_materialization_reported_by_hand_breaks_nothing_and_is_put_right",
    ),
    "assets wiped": (
        "test_corners.py::test_whatever_is_wiped_or_reported_in_dagster_asks_ends_and_runs_nothing",
        "test_check_results.py::test_a_wiped_asset_is_still_compared",
    ),
    "jobs launched without a token, or with one of something else": (
        "test_corners.py::test_what_was_not_approved_for_the_month_is_not_retrained_on_it",
        "test_lifecycle.py::test_what_anybody_may_send_to_dagster_asks_decides_and_moves_nothing",
        "test_lifecycle.py::test_forged_and_borrowed_tokens_are_refused_on_record",
        "test_decision_jobs.py::test_rolling_back_is_on_record_and_shown",
        "test_decision_jobs.py::test_a_link_that_rejects_does_not_approve",
        "test_standing.py::test_tokens_of_other_questions_and_other_answers_open_nothing",
        "test_tokens.py::test_a_token_of_another_secret_opens_nothing",
    ),
    "a token that was used in vain and is read in Dagster": (
        "test_decision_jobs.py::test_an_answer_in_vain_spends_its_link_and_the_question_comes_with_fresh_ones",
        "test_promotions.py::test_a_link_back_that_was_used_in_vain_is_spent_and_a_fresh_one_is_due",
        "test_standing.py::test_an_answer_is_signed_and_counts_once",
    ),
    "methods, encodings, hosts, types and pages of others before the guard": (
        "test_guard.py::test_of_all_methods_and_addresses_only_the_ui_s_reach_dagster",
        "test_guard.py::test_of_all_origins_hosts_and_types_only_the_page_s_reach_graphql",
        "test_guard.py::test_pages_may_be_linked_to_and_nothing_else",
        "test_guard.py::test_requests_that_two_servers_read_differently_reach_nothing",
        "test_guard.py::test_dagster_behind_the_guard_executes_none_of_them",
        "test_guard.py::test_a_page_on_another_port_of_the_host_executes_nothing",
    ),
    "a model's files replaced between question and answer": (
        "test_contents.py::test_files_that_were_altered_are_not_read",
        "test_contents.py::test_what_is_verified_is_a_copy",
        "test_projection.py::test_the_alias_is_never_moved_to_files_that_are_not_those_that_were_approved",
    ),
    "a model deleted and made again under its numbers": (
        "test_contents.py::test_a_version_made_anew_under_its_number_is_another_one",
        "test_contents.py::test_a_number_on_record_is_not_given_again",
        "test_ways_out.py::test_an_older_mlflow_leads_back_to_the_last_version_that_is_there",
    ),
    "rows of the ledger rewritten, added, cut off or restored": (
        "test_verification.py::test_a_change_by_the_owner_is_seen_though_the_triggers_are_back",
        "test_verification.py::test_a_chain_computed_anew_is_seen_by_what_was_told",
        "test_verification.py::test_the_application_asks_and_decides_but_can_neither_rewrite_nor_disarm",
        "test_ways_out.py::test_an_older_ledger_decides_nothing_until_somebody_says_what_holds",
        "test_standing.py::test_a_ledger_whose_newer_entries_are_lost_promotes_nothing_by_itself",
        "test_standing.py::test_terms_other_than_those_that_were_shown_are_named",
    ),
    "texts that command a terminal or are markup": (
        "test_decisions_cli.py::test_what_people_wrote_is_printed_as_text",
        "test_lifecycle.py::test_what_anybody_may_send_to_dagster_asks_decides_and_moves_nothing",
        "test_decisions.py::test_a_text_that_nobody_would_read_is_refused_and_the_limit_is_told",
    ),
    "secrets in errors, logs and redirects": (
        "test_secrets_stay_secret.py::test_sources_that_fail_tell_no_secret",
        "test_secrets_stay_secret.py::test_channels_that_fail_tell_no_secret",
        "test_secrets_stay_secret.py::test_an_mlflow_server_that_fails_tells_no_login",
        "test_secrets_stay_secret.py::test_a_database_that_fails_tells_no_password",
    ),
    "a ledger so full that it holds everybody up": (
        "test_projection.py::test_a_promotion_that_ends_many_questions_tells_the_latest_first_and_the_rest_by_later_commands",
        "test_promotions.py::test_what_a_decision_costs_does_not_depend_on_what_is_past",
        "test_decisions_cli.py::test_a_longer_list_asks_the_ledger_no_more_often",
        "test_due.py::test_what_is_at_hand_stays_as_short_as_the_list_of_months",
    ),
}
"""Attacks on what decides, each of which succeeded once, and what holds them off."""


@pytest.mark.parametrize("guards", [*ELSEWHERE.values(), *ATTACKS.values()], ids=[*ELSEWHERE, *ATTACKS])
def test_what_is_guarded_elsewhere_is_guarded_there(guards: tuple[str, ...]) -> None:
    """Each guard is there, asserts something, and is run by `make test`."""
    for guard in guards:
        file, test = guard.split("::")
        module = ast.parse(next((REPOSITORY / "tests").rglob(file)).read_text())
        functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        assert test in functions, guard
        assert re.search(r"^\s+(assert |with pytest\.raises\()", ast.unparse(functions[test]), re.MULTILINE), guard
        marks = {
            mark for decorator in functions[test].decorator_list for mark in re.findall(r"\w+", ast.unparse(decorator))
        }
        assert not marks & {"skip", "skipif", "xfail", "slow"}, guard


# The comparison


def scored(version: str, usd: pd.Series, trips: pd.DataFrame) -> Appraisal:
    """What scoring a version on these trips comes to."""
    paid = trips.set_index("key")["target"]
    scores = score(usd.reindex(paid.index).to_numpy(np.float64), paid.to_numpy())
    return Appraisal(version=version, contender=contender(version, scores))


def predicted(trips: pd.DataFrame, off: float, seed: int = 1) -> pd.Series:
    """Predictions that are off by so much, in both directions."""
    errors = np.random.default_rng(seed).normal(0, off, len(trips))
    return pd.Series(trips["target"].to_numpy() + errors, index=trips["key"])


def judged(
    trips: pd.DataFrame, production: Appraisal, production_predicted: pd.Series | None, predictions: pd.Series
) -> Evidence:
    return judge(
        trips=Trips(Edition("2015-01", "r1"), trips),
        production=production,
        production_predicted=production_predicted,
        staging=scored(
            "2", predictions, trips[trips["is_validation"]].set_index("key").loc[predictions.index].reset_index()
        ),
        staging_predicted=predictions,
        settings=small_settings(Path("nowhere")),
    )


def test_champion_and_challenger_scored_on_different_rows(january: pd.DataFrame) -> None:
    """The challenger was scored on a random fifth, the champion on the whole file: two MAEs, each right, compared."""
    validation = january[january["is_validation"]]
    easy = validation[validation["haversine_km"] < 3]
    champion, challenger = predicted(validation, 2.0), predicted(easy, 1.0)
    with pytest.raises(EvaluationError, match="staging was scored on other trips"):
        judged(january, scored("1", champion, validation), champion, challenger)


def test_rows_paired_by_position(january: pd.DataFrame) -> None:
    """Two files of predictions in different order were subtracted line by line: equal models came out far apart."""
    validation = january[january["is_validation"]]
    champion, challenger = predicted(validation, 2.0), predicted(validation, 2.0).sample(frac=1, random_state=2)
    evidence = judged(january, scored("1", champion, validation), champion, challenger)
    assert evidence.gain is not None
    assert evidence.gain.mean == pytest.approx(0)
    assert evidence.verdict is Verdict.HOLD


def test_comparing_with_a_number_stored_from_other_data(january: pd.DataFrame) -> None:
    """Production's MAE was read from its run of last month: a harder month made every challenger look worse."""
    validation = january[january["is_validation"]]
    champion, challenger = predicted(validation, 2.0), predicted(validation, 1.9, seed=2)
    last_month = validation.assign(target=validation["target"] * 1.2)
    stored = scored("1", champion, last_month)
    with pytest.raises(EvaluationError, match="production was scored on other trips"):
        judged(january, stored, champion, challenger)


def test_made_up_metrics_for_a_missing_champion(january: pd.DataFrame) -> None:
    """A missing champion was given an MAE of infinity, or of 9999: every first model was a triumph."""
    validation = january[january["is_validation"]]
    evidence = judged(january, Appraisal(version=None), None, predicted(validation, 1.0))
    shown = evidence.model_dump(mode="json")
    assert [shown[name] for name in ("production", "production_version", "gain", "slices")] == [None, None, None, []]
    assert evidence.verdict is Verdict.COLD_START
    unscorable = judged(january, Appraisal(version="1", fault="torn"), None, predicted(validation, 1.0))
    assert (unscorable.verdict, unscorable.production, unscorable.gain) == (Verdict.UNSCORABLE, None, None)


def test_a_comparison_the_wrong_way_round(january: pd.DataFrame) -> None:
    """`new_mae > old_mae` promoted: for a year each model was replaced by a worse one."""
    validation = january[january["is_validation"]]
    good, bad = predicted(validation, 1.0), predicted(validation, 3.0)
    better = judged(january, scored("1", bad, validation), bad, good)
    worse = judged(january, scored("1", good, validation), good, bad)
    assert (better.verdict, worse.verdict) == (Verdict.PROMOTE, Verdict.REJECT)
    assert better.production is not None
    assert better.staging.scores.mae < better.production.scores.mae


# The promotion


def registered(registry: ModelRegistry, january: pd.DataFrame, *names: str) -> list[str]:
    """Versions of a network nobody has trained."""
    features = january[list(feature_names(NEW_YORK))].to_numpy(np.float32)
    fares = january["target"].to_numpy(np.float32)
    network = build_network(features, fares, NEW_YORK, learning_rate=0.001, seed=1, architecture=PLAIN_NETWORK)
    versions = []
    for name in names:
        with registry.runs.open("a test", {"name": name}) as run_id:
            versions.append(registry.register(network, NEW_YORK, (), run_id=run_id, fingerprint=name, tags={}))
    return versions


def test_a_promotion_that_goes_the_wrong_way_round(
    settings: Settings, registry: ModelRegistry, january: pd.DataFrame
) -> None:
    """The script moved the old version to production and archived the new one; nobody looked for weeks."""
    registered(registry, january, "first", "second")
    office = Office.open(f"sqlite:///{settings.home / 'ledger.db'}", registry)
    office.with_first_model()
    assert registry.production_version() == "1"
    office.approve(office.ask("2015-01", "2", "1"))
    assert registry.production_version() == "2"
    promotion = office.approvals.record.history()[-1]
    assert (promotion.version, promotion.replaced_version) == ("2", "1")


def test_two_versions_in_production_at_once(registry: ModelRegistry, january: pd.DataFrame) -> None:
    """Stages allowed it: `get_latest_versions` returned whichever was newer, the service loaded the other."""
    versions = registered(registry, january, "first", "second", "third")
    for version in (*versions, versions[0]):
        registry.set_production(version)
    client = registry.store.client
    found = [client.get_model_version(registry.model_name, version) for version in versions]
    assert [str(each.version) for each in found if "production" in each.aliases] == [versions[0]]
    assert {each.current_stage for each in found} == {"None"}, "stages are not used beside aliases"


def test_caches_that_never_expire(settings: Settings, registry: ModelRegistry, january: pd.DataFrame) -> None:
    """A worker that ran for a month scored the production model of the day it was started."""
    first, second = registered(registry, january, "first", "second")
    worker, desk = (registry_of(settings) for _ in range(2))
    desk.set_production(first)
    assert worker.production_version() == first
    desk.set_production(second)
    assert worker.production_version() == second
    assert worker.find("third") is None
    (third,) = registered(desk, january, "third")
    found = worker.find("third")
    assert found is not None
    assert found.version == third


def test_a_ledger_that_is_read_once(tmp_path: Path) -> None:
    """The same, for decisions: another process's answer counts at once."""
    url, registry = f"sqlite:///{tmp_path / 'ledger.db'}", MemoryRegistry()
    worker, desk = Office.open(url, registry), Office.open(url, registry)
    assert worker.approvals.production() is None
    desk.with_first_model()
    assert worker.approvals.production() == "1"
    desk.approve(desk.ask("2015-01", "2", "1"))
    assert worker.approvals.production() == "2"


def test_an_approval_that_is_recorded_only_when_it_is_yes(tmp_path: Path) -> None:
    """Months later nobody could say whether a model had been refused, or never looked at."""
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    request = office.ask("2015-01", "2", "1")
    office.reject(request, by="Ada")
    outcome = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}", office.registry).approvals.record.outcome(request.id)
    assert outcome is not None
    assert (outcome.state, outcome.by) == (RequestState.REJECTED, "Ada")
    assert outcome.reason


class Unreachable:
    """A chat that is down."""

    channel = "chat"

    def deliver(self, message: Message) -> None:
        raise PassingDeliveryError(f"no connection for {message.key}")


def test_a_notification_failure_that_fails_the_run_after_promotion(tmp_path: Path) -> None:
    """The model was live, the run was red, the retry promoted once more. Here asking comes first and deciding later."""
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    request = office.ask("2015-01", "2", "1")
    chat, settings = Unreachable(), small_settings(tmp_path)
    with pytest.raises(DeliveryError):
        send_request(office.approvals, chat, request.id, LINKS, settings, sleep=lambda _seconds: None)
    assert office.registry.alias == "1", "asking changes nothing"
    assert office.approvals.record.open_requests() == (request,)
    office.approve(request)
    assert office.registry.alias == "2", "and the answer needs no message"
    assert not send_request(office.approvals, chat, request.id, LINKS, settings), (
        "nothing is left to send, so nothing fails"
    )
    assert len(office.approvals.record.history()) == 2


# The months


def with_a_ride_at(trips: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    return pd.concat([trips, trips.head(1).assign(key="the ride", pickup_datetime=moment)], ignore_index=True)


def test_inclusive_month_bounds_put_midnight_in_two_months(settings: Settings) -> None:
    """`BETWEEN first AND first_of_next`: rides at midnight were trained on in January and validated on in February."""
    february = pd.Timestamp("2015-02-01")
    rows = {name: raw_month(settings, name).frame.drop(columns="is_validation") for name in ("2015-01", "2015-02")}
    with pytest.raises(SourceError, match="2015-02-01 00:00:00"):
        checked_month(with_a_ride_at(rows["2015-01"], february), parse_month("2015-01"), "a test", None)
    kept = checked_month(with_a_ride_at(rows["2015-02"], february), parse_month("2015-02"), "a test", None)
    assert kept["pickup_datetime"].min() == february


def test_month_bounds_that_lose_the_last_day(settings: Settings) -> None:
    """`<= '2015-01-31'` is midnight of the 31st: a day of rides was missing in every month."""
    last = pd.Timestamp("2015-02-01") - A_MOMENT
    january = raw_month(settings, "2015-01").frame.drop(columns="is_validation")
    kept = checked_month(with_a_ride_at(january, last), parse_month("2015-01"), "a test", None)
    assert kept["pickup_datetime"].max() == last
    assert (january["pickup_datetime"].dt.day == 31).sum() > 10


def test_months_that_share_rides(settings: Settings) -> None:
    """Months of the simulator follow each other without a gap and without a ride in common."""
    source = Simulator(
        seed=1,
        trips_per_month=3_000,
        base_trips=100,
        first_month=parse_month("2015-01"),
        last_month=parse_month("2015-03"),
        scenario="as-it-was",
        scenario_from=parse_month("2015-03"),
    )
    months = [source.read_month(month).trips for month in source.months()]
    for earlier, later in pairwise(months):
        assert earlier["pickup_datetime"].max() < later["pickup_datetime"].min()


# The tests themselves

SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a service account": re.compile(r'"private_key_id"\s*:'),
    "an AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[0-9A-Za-z]{36}\b"),
    "a Slack address": re.compile(r"hooks\.slack\.com/services/T"),
    "a password in an address": re.compile(
        # Hosts of RFC 2606 lead nowhere: what stands before them opens nothing.
        r"\b[a-z+]+://[^\s/:@'\"{}]+:[^\s/:@'\"{}]+@(?![a-z0-9.-]*example\.)[a-z0-9.-]+\.[a-z]{2,}"
    ),
}


def secrets_in(text: str) -> list[str]:
    return [name for name, pattern in SECRETS.items() if pattern.search(text)]


@pytest.mark.parametrize(
    "leaked",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "AIza" + "x" * 35,
        "AKIA" + "A" * 16,
        "ghp_" + "a" * 36,
        "postgresql://taxi" + ":hunter2@db.wagoncab.com/ledger",
        '"private_key_id"' + ': "1"',
    ],
)
def test_a_credential_would_be_found(leaked: str) -> None:
    assert secrets_in(f"x = {leaked!s}\n")


def test_credentials_in_tests() -> None:
    """A service account lay in `tests/fixtures`, was pushed, and was mining coins by the evening."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    texts = {path: path.read_text(errors="replace") for path in files if path.is_file()}
    assert len(texts) > 50
    found = {path.relative_to(REPOSITORY).as_posix(): secrets_in(text) for path, text in texts.items()}
    assert {path: names for path, names in found.items() if names} == {}
    assert not [path.name for path in files if path.name == ".env" or path.suffix in {".pem", ".key", ".p12"}]


def test_evidence_that_shows_one_thing_and_promotes_another(tmp_path: Path) -> None:
    """`promote(latest)`: between the message and the click another version had been registered."""
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    shown = office.ask("2015-01", "2", "1")
    office.ask("2015-02", "3", "1")
    office.approve(shown)
    assert office.registry.alias == "2", "the version that was shown, not the newest"
    assert shown.evidence.staging.version == evidence_on("2015-01", "2", "1").staging.version == "2"
