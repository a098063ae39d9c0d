"""What is due next: each rule by itself, and a world in which following the agenda comes to an end."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taxifare.approval.comparisons import comparison_of
from taxifare.approval.due import Due, Known, Why, next_month, to_ask, to_retrain, undecided_before
from taxifare.approval.records import Comparison, Delivery, Outcome, Promotion, Request, RequestState
from taxifare.approval.requests import next_round, request_on
from taxifare.gate.evidence import Verdict
from taxifare.settings import ChallengerName
from taxifare.trips.months import Month, parse_month
from tests.support.approvals import GATE, PERSON, Office
from tests.support.approvals import evidence as evidence_on

JANUARY, FEBRUARY, MARCH = (parse_month(f"2015-0{number}") for number in (1, 2, 3))
PUBLISHED = {JANUARY: "r1", FEBRUARY: "r1", MARCH: "r1"}
CHANNELS = ("chat",)
NOW = datetime(2015, 2, 1, 9, tzinfo=UTC)


def compared(
    subject: str, staging: str, production: str | None, *, revision: str = "r1", run: str = "run"
) -> Comparison:
    """The comparison on a subject, scored in an MLflow run."""
    found = evidence_on(subject, staging, production, revision=revision)
    own = found.model_copy(update={"staging": found.staging.model_copy(update={"run_id": run})})
    return comparison_of(own, NOW)


def asked(comparison: Comparison) -> Request:
    """The request that a comparison makes."""
    return request_on(comparison, NOW, timedelta(days=30))


def ended(request: Request, state: RequestState) -> Outcome:
    by = "Ada" if state in {RequestState.APPROVED, RequestState.REJECTED} else None
    return Outcome(request.id, state, by, "because", override=False, at=NOW)


def told(request: Request) -> Delivery:
    return Delivery(request.id, "chat", 0, NOW)


def known(
    comparisons: Collection[Comparison] = (),
    production: str | None = "1",
    requests: Sequence[Request] = (),
    outcomes: Sequence[Outcome] = (),
    deliveries: Sequence[Delivery] = (),
) -> Known:
    """What is on record; how production became that is no matter here."""
    promotion = None if production is None else Promotion(1, production, None, "promotion", None, "Ada", "", None, NOW)
    return Known({each.subject: each for each in comparisons}, promotion, requests, outcomes, deliveries)


BASE = compared("base", "1", None)
STARTED = asked(BASE)
APPROVED = ended(STARTED, RequestState.APPROVED)


def due(
    evidence: Sequence[Comparison],
    production: str | None = "1",
    requests: Sequence[Request] = (STARTED,),
    outcomes: Sequence[Outcome] = (APPROVED,),
    published: dict[Month, str] | None = None,
) -> Due | None:
    """What is due when these comparisons were made and these questions asked and answered."""
    return next_month(
        PUBLISHED if published is None else published, known((BASE, *evidence), production, requests, outcomes)
    )


# Whose turn it is, where a policy decides


class TestTurns:
    """Months strictly one after another: what comes before a month has been decided on, or it is not its turn."""

    revisions: ClassVar = {"base": "r1", "2015-01": "r1", "2015-02": "r1"}
    january: ClassVar = compared("2015-01", "2", "1")

    def held_by(
        self, month: Month, on_record: Known, revisions: Mapping[str, str] | None = None
    ) -> tuple[str, bool] | None:
        """What the month waits for, and whether that has been compared."""
        found = undecided_before(month, revisions or self.revisions, on_record, GATE)
        return None if found is None else (found.subject, found.is_compared)

    @pytest.mark.parametrize("state", [None, RequestState.VOID, RequestState.EXPIRED])
    def test_a_month_before_that_nobody_decided_on_holds_it_back(self, state: RequestState | None) -> None:
        request = asked(self.january)
        outcomes = [APPROVED] if state is None else [APPROVED, ended(request, state)]
        on_record = known([self.january], "1", [STARTED, request], outcomes)
        assert self.held_by(FEBRUARY, on_record) == ("2015-01", True)

    @pytest.mark.parametrize("state", [RequestState.APPROVED, RequestState.REJECTED])
    def test_a_decision_either_way_makes_it_its_turn(self, state: RequestState) -> None:
        request = asked(self.january)
        outcomes = [APPROVED, ended(request, state)]
        assert self.held_by(FEBRUARY, known([self.january], "1", [STARTED, request], outcomes)) is None

    def test_a_decision_on_an_earlier_edition_does_not_count(self) -> None:
        request = asked(self.january)
        outcomes = [APPROVED, ended(request, RequestState.APPROVED)]
        on_record = known([self.january], "1", [STARTED, request], outcomes)
        assert self.held_by(FEBRUARY, on_record, self.revisions | {"2015-01": "r2"}) == ("2015-01", False)

    def test_a_month_that_was_not_compared_with_the_present_production_will_not_be_decided_on(self) -> None:
        for comparisons in ((), [self.january]):
            assert self.held_by(FEBRUARY, known(comparisons, "9", [STARTED], [APPROVED])) == ("2015-01", False)

    def test_the_base_model_comes_before_the_first_month(self) -> None:
        assert self.held_by(JANUARY, known([BASE], None, [STARTED])) == ("base", True)
        assert self.held_by(JANUARY, known((), None)) == ("base", False)
        assert self.held_by(JANUARY, known([BASE], "1", [STARTED], [APPROVED])) is None

    def test_without_base_years_nothing_comes_before_the_first_month(self) -> None:
        assert self.held_by(JANUARY, known((), None), {"2015-01": "r1"}) is None


class TestToRetrain:
    """Whose whole month is to be learned: that of the approval in force, if anybody's."""

    january: ClassVar = asked(compared("2015-01", "2", "1"))

    def retrained(
        self,
        request_id: str | None,
        kind: Literal["promotion", "rollback"] = "promotion",
        challengers: Sequence[ChallengerName] = ("warm", "whole month"),
    ) -> str | None:
        promotion = Promotion(2, "2", "1", kind, request_id, "Ada", "because", None, NOW)
        found = to_retrain(replace(known(requests=[STARTED, self.january]), promotion=promotion), challengers)
        return None if found is None else found.id

    def test_a_month_s_approval_in_force_is(self) -> None:
        assert self.retrained(self.january.id) == self.january.id

    def test_the_base_model_has_no_month(self) -> None:
        assert self.retrained(STARTED.id) is None

    def test_what_a_rollback_returns_to_is_not_retrained_again(self) -> None:
        assert self.retrained(None, "rollback") is None

    def test_nothing_is_before_the_first_promotion_or_unless_it_competes(self) -> None:
        assert to_retrain(known(production=None, requests=[self.january]), ("whole month",)) is None
        assert self.retrained(self.january.id, challengers=("warm", "recent")) is None


# Which month to run


def test_the_oldest_month_that_was_never_compared_is_due() -> None:
    assert due([]) == Due(JANUARY, Why.NEW, "2015-01:r1")
    assert due([compared("2015-02", "3", "1")]) == Due(JANUARY, Why.NEW, "2015-01:r1"), "a later one was run by hand"
    assert due([compared("2015-01", "2", "1")]) == Due(FEBRUARY, Why.NEW, "2015-02:r1")


def test_months_are_taken_by_date_not_by_the_order_of_publication() -> None:
    published = {MARCH: "r1", JANUARY: "r1"}
    found = due([], published=published)
    assert found is not None
    assert found.month == JANUARY


def test_nothing_is_due_when_all_is_compared() -> None:
    everything = [compared(str(month), str(number), "1") for number, month in enumerate(PUBLISHED, start=2)]
    assert due(everything) is None
    assert due([], published={}) is None


def test_where_there_are_no_base_years_the_first_month_is_the_start() -> None:
    assert next_month(PUBLISHED, known(production=None)) == Due(JANUARY, Why.NEW, "2015-01:r1")


@pytest.mark.parametrize("requests", [[], [STARTED]], ids=["compared, not asked yet", "asked"])
def test_while_the_base_model_waits_for_its_answer_no_other_start_is_prepared(requests: list[Request]) -> None:
    """Between the comparison and the question nothing is in the ledger but the comparison: that is enough."""
    assert due([BASE], production=None, requests=requests, outcomes=[]) is None
    for state in (RequestState.REJECTED, RequestState.EXPIRED):
        start = due([BASE], production=None, requests=[STARTED], outcomes=[ended(STARTED, state)])
        assert start == Due(JANUARY, Why.NEW, "2015-01:r1"), "the first month is the start then"


def test_months_older_than_what_production_has_learned_are_not_new() -> None:
    """FIRST_MONTH was moved back: they are history, and a model is no better for having learned them last."""
    march = compared("2015-03", "2", "1")
    requests, outcomes = [STARTED, asked(march)], [APPROVED, ended(asked(march), RequestState.APPROVED)]
    assert due([march], "2", requests, outcomes) is None
    february = compared("2015-02", "2", "1")
    requests, outcomes = [STARTED, asked(february)], [APPROVED, ended(asked(february), RequestState.APPROVED)]
    assert due([february], "2", requests, outcomes) == Due(parse_month("2015-03"), Why.NEW, "2015-03:r1")


def test_a_restated_month_is_due_again() -> None:
    everything = [compared(str(month), "2", "1", run=f"run of {month}") for month in PUBLISHED]
    restated = PUBLISHED | {FEBRUARY: "r2"}
    assert due(everything, published=restated) == Due(FEBRUARY, Why.RESTATED, "2015-02:r2:after run of 2015-02")


def test_a_restated_month_is_due_even_if_it_was_decided_on_and_is_history() -> None:
    january = compared("2015-01", "2", "1")
    request = asked(january)
    published = {JANUARY: "r2"}
    found = due(
        [january],
        "2",
        [STARTED, request],
        [APPROVED, ended(request, RequestState.APPROVED)],
        published,
    )
    assert found is not None
    assert found.why is Why.RESTATED


def test_a_month_restated_and_restored_is_another_reason_to_run() -> None:
    """Its first key is spent: Dagster would never run it, and every later month would wait."""
    first = due([])
    restored = due([compared("2015-01", "3", "1", revision="r2", run="run 2")])
    assert first is not None
    assert restored is not None
    assert restored.why is Why.RESTATED
    assert restored.run_key != first.run_key


def test_a_month_compared_with_yesterdays_production_is_due_again() -> None:
    """February was run while January's question was open; then January was approved."""
    january, february = compared("2015-01", "2", "1"), compared("2015-02", "3", "1", run="run 7")
    answered = asked(january)
    found = due(
        [january, february],
        "2",
        [STARTED, answered, asked(february)],
        [APPROVED, ended(answered, RequestState.APPROVED), ended(asked(february), RequestState.VOID)],
        {JANUARY: "r1", FEBRUARY: "r1"},
    )
    assert found == Due(FEBRUARY, Why.PRODUCTION_CHANGED, "2015-02:r1:v2:after run 7")


@pytest.mark.parametrize("answer", [RequestState.APPROVED, RequestState.REJECTED])
def test_a_month_that_was_answered_is_not_asked_about_anew(answer: RequestState) -> None:
    february = compared("2015-02", "3", "1")
    request = asked(february)
    outcomes = [APPROVED, ended(request, answer)]
    published = {FEBRUARY: "r1"}
    assert due([february], "9", [STARTED, request], outcomes, published) is None


@pytest.mark.parametrize("end", [RequestState.VOID, RequestState.EXPIRED])
def test_a_question_that_ended_without_an_answer_was_not_answered(end: RequestState) -> None:
    february = compared("2015-02", "3", "1")
    request = asked(february)
    found = due([february], "9", [STARTED, request], [APPROVED, ended(request, end)], {FEBRUARY: "r1"})
    assert found is not None
    assert found.why is Why.PRODUCTION_CHANGED


def test_an_answer_on_the_first_edition_is_none_on_the_second() -> None:
    first, second = compared("2015-02", "3", "1"), compared("2015-02", "4", "1", revision="r2")
    request = asked(first)
    outcomes = [APPROVED, ended(request, RequestState.REJECTED)]
    found = due([second], "9", [STARTED, request], outcomes, {FEBRUARY: "r2"})
    assert found is not None
    assert found.why is Why.PRODUCTION_CHANGED


def test_what_production_has_learned_from_is_history() -> None:
    """January and February went unanswered, March was promoted: production has seen them and cannot judge them."""
    months = [compared(str(month), str(number), "1") for number, month in enumerate(PUBLISHED, start=2)]
    march = asked(months[-1])
    outcomes = [APPROVED, ended(march, RequestState.APPROVED)]
    assert due(months, "4", [STARTED, march], outcomes) is None


def test_the_month_that_production_learned_is_history_in_every_edition() -> None:
    """Version 2 learned January, which was restated and compared under version 3; then came a rollback to 2."""
    answered = asked(compared("2015-01", "2", "1"))
    restated = compared("2015-01", "4", "3", revision="r2")
    outcomes = [APPROVED, ended(answered, RequestState.APPROVED)]
    assert due([restated], "2", [STARTED, answered], outcomes, {JANUARY: "r2"}) is None


def test_after_a_rollback_the_months_that_production_does_not_know_are_due() -> None:
    """Back to the base model: February's open question was about replacing version 2."""
    january, february = compared("2015-01", "2", "1"), compared("2015-02", "3", "2", run="run 8")
    answered = asked(january)
    requests, outcomes = [STARTED, answered], [APPROVED, ended(answered, RequestState.APPROVED)]
    published = {JANUARY: "r1", FEBRUARY: "r1"}
    found = due([january, february], "1", requests, outcomes, published)
    assert found == Due(FEBRUARY, Why.PRODUCTION_CHANGED, "2015-02:r1:v1:after run 8")


def test_a_production_that_comes_back_is_another_reason_to_run() -> None:
    """Version 1, then 2, then 1 by rollback, then 2 again: each time the open month is compared anew."""
    keys = []
    for run, (was, now) in enumerate([("1", "2"), ("2", "1"), ("1", "2")]):
        found = due([compared("2015-02", "3", was, run=f"run {run}")], now, published={FEBRUARY: "r1"})
        assert found is not None
        keys.append(found.run_key)
    assert len(set(keys)) == 3


def test_a_run_that_did_not_end_in_a_comparison_is_not_requested_twice() -> None:
    """The same key: Dagster runs it once, and the sensor says that it failed."""
    assert due([]) == due([])
    restated = [compared("2015-01", "2", "1", revision="r0")]
    assert due(restated) == due(restated)


# Whom to ask about what


def untold(
    evidence: Sequence[Comparison],
    production: str | None = "1",
    requests: Sequence[Request] = (),
    outcomes: Sequence[Outcome] = (),
    deliveries: Sequence[Delivery] = (),
) -> list[str]:
    """The subjects to ask about."""
    on_record = known(evidence, production, requests, outcomes, deliveries)
    return [each.subject for each in to_ask(on_record, CHANNELS, PERSON)]


def test_what_reached_one_channel_of_two_is_still_to_be_told() -> None:
    evidence = compared("2015-01", "2", "1")
    request = asked(evidence)
    on_record = known([evidence], requests=[request], deliveries=[told(request)])
    assert to_ask(on_record, ("chat", "webhook"), PERSON) == [evidence]
    assert to_ask(on_record, ("chat",), PERSON) == []


def test_what_nobody_was_told_of_is_asked_oldest_first() -> None:
    assert untold([compared(subject, "2", "1") for subject in ("2015-03", "2015-01", "2015-02")]) == [
        "2015-01",
        "2015-02",
        "2015-03",
    ]


def test_the_base_model_is_asked_about_first() -> None:
    assert untold([compared("2015-01", "2", None), BASE], production=None) == ["base", "2015-01"]


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.UNCHANGED])
def test_every_verdict_reaches_a_person(verdict: Verdict) -> None:
    assert untold([comparison_of(evidence_on("2015-01", "2", "1", verdict=verdict), NOW)]) == ["2015-01"]


def test_nobody_is_asked_to_replace_a_model_by_its_twin_and_a_policy_does_not_wait_for_it() -> None:
    unchanged = comparison_of(evidence_on("2015-01", "2", "1", verdict=Verdict.UNCHANGED), NOW)
    assert untold([unchanged]) == []
    revisions = {"2015-01": "r1", "2015-02": "r1"}
    assert undecided_before(FEBRUARY, revisions, known([unchanged]), GATE) is None
    assert undecided_before(FEBRUARY, revisions, known([compared("2015-01", "2", "1")]), GATE) is not None


def test_a_policy_waits_for_no_month_that_will_never_be_run_again() -> None:
    """February stayed open, March became production and is restated: it waited for February for ever."""
    february, march = compared("2015-02", "2", "1"), compared("2015-03", "4", "1")
    approved = asked(march)
    promotion = Promotion(2, "4", "1", "promotion", approved.id, "policy gate", "", None, NOW)
    on_record = Known(
        {one.subject: one for one in (february, march)},
        promotion,
        [asked(february), approved],
        [ended(asked(february), RequestState.VOID), ended(approved, RequestState.APPROVED)],
        (),
    )
    revisions = {"2015-02": "r1", "2015-03": "r2"}
    assert undecided_before(parse_month("2015-03"), revisions, on_record, GATE) is None
    restated = undecided_before(parse_month("2015-03"), revisions | {"2015-02": "r2"}, on_record, GATE)
    assert restated is not None, "that one will be run again"
    earlier = replace(on_record, comparisons={"2015-03": march})
    assert undecided_before(parse_month("2015-03"), revisions, earlier, GATE) is None, "older than what was learned"


def test_a_message_that_arrived_is_not_sent_again() -> None:
    january = compared("2015-01", "2", "1")
    assert untold([january], requests=[asked(january)], deliveries=[told(asked(january))]) == []


def test_a_request_whose_message_did_not_arrive_is_still_to_be_told() -> None:
    january = compared("2015-01", "2", "1")
    assert untold([january], requests=[asked(january)]) == ["2015-01"]


def test_a_question_that_was_void_and_makes_sense_again_is_asked_again() -> None:
    """A promotion made it void, and that was rolled back."""
    january = compared("2015-01", "2", "1")
    void = [ended(asked(january), RequestState.VOID)]
    assert untold([january], production="9", requests=[asked(january)], outcomes=void) == []
    assert untold([january], requests=[asked(january)], outcomes=void) == ["2015-01"]
    again = next_round(asked(january), NOW, timedelta(days=30))
    assert untold([january], requests=[asked(january), again], outcomes=void, deliveries=[told(again)]) == []


@pytest.mark.parametrize("state", [RequestState.APPROVED, RequestState.REJECTED, RequestState.EXPIRED])
def test_a_request_that_ended_is_not_told(state: RequestState) -> None:
    january = compared("2015-01", "2", "1")
    assert untold([january], requests=[asked(january)], outcomes=[ended(asked(january), state)]) == []


def test_new_evidence_on_the_same_month_is_a_new_question() -> None:
    old, new = compared("2015-01", "2", "1"), compared("2015-01", "3", "1", revision="r2")
    assert untold([new], requests=[asked(old)], deliveries=[told(asked(old))]) == ["2015-01"]


def test_the_same_evidence_gathered_twice_is_asked_about_once() -> None:
    """The month was run again by hand: another MLflow run, the same numbers."""
    once, again = compared("2015-01", "2", "1", run="run 1"), compared("2015-01", "2", "1", run="run 2")
    assert untold([again], requests=[asked(once)], deliveries=[told(asked(once))]) == []


def test_evidence_against_another_production_is_not_asked_about() -> None:
    january = compared("2015-01", "2", "1")
    assert untold([january], production="9") == []
    assert untold([january], production=None) == []
    assert untold([january], production="1") == ["2015-01"]


# Following it


@dataclass
class World:
    """A city whose agenda is followed: what is due is run, what is to be asked is asked, and somebody answers."""

    published: dict[Month, str]
    production: str | None = None
    compared: dict[str, Comparison] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    versions: dict[tuple[str, str, str | None], str] = field(default_factory=dict)
    run_keys: list[str] = field(default_factory=list)

    @property
    def known(self) -> Known:
        return known(self.compared.values(), self.production, self.requests, self.outcomes, self.deliveries)

    def compare(self, subject: str, revision: str) -> None:
        """Runs a month: the same trips and parent give the same version, in another MLflow run."""
        parent = None if subject == "base" else self.production
        version = self.versions.setdefault((subject, revision, parent), str(len(self.versions) + 1))
        run = f"run {len(self.run_keys)}"
        self.compared[subject] = compared(subject, version, self.production, revision=revision, run=run)

    def run_what_is_due(self) -> bool:
        found = next_month(self.published, self.known)
        if found is None:
            return False
        assert found.run_key not in self.run_keys
        self.run_keys.append(found.run_key)
        self.compare(str(found.month), self.published[found.month])
        return True

    def ask(self) -> None:
        for evidence in to_ask(self.known, CHANNELS, PERSON):
            last = self.known.round_on(evidence)
            is_over = last is not None and last.id in self.known.ends
            request = last or asked(evidence)
            if last is not None and is_over:
                assert self.known.ends[last.id].state is RequestState.VOID, "what was answered is not asked again"
                request = next_round(last, NOW, timedelta(days=30))
            for older in self.open_requests():
                if older.subject == request.subject and older.id != request.id:
                    self.outcomes.append(ended(older, RequestState.VOID))
            if all(known.id != request.id for known in self.requests):
                self.requests.append(request)
            self.deliveries.append(told(request))

    def open_requests(self) -> list[Request]:
        closed = {outcome.request_id for outcome in self.outcomes}
        return [request for request in self.requests if request.id not in closed]

    def answer(self, state: RequestState) -> None:
        """Answers the oldest open question."""
        questions = self.open_requests()
        if questions:
            self.outcomes.append(ended(questions[0], state))
            if state is RequestState.APPROVED:
                self.promote(questions[0].staging_version)

    def promote(self, version: str) -> None:
        self.production = version
        self.promoted.append(version)
        self.outcomes += [
            ended(request, RequestState.VOID)
            for request in self.open_requests()
            if request.production_version != version or request.staging_version == version
        ]

    def roll_back(self) -> None:
        earlier = [version for version in self.promoted if version != self.production]
        if earlier:
            self.promote(earlier[-1])

    def settle_down(self, patience: int) -> None:
        """Runs and asks, without answers, until there is nothing left to do."""
        for _ in range(patience):
            busy = self.run_what_is_due()
            self.ask()
            if not busy:
                return
        raise AssertionError(f"after {patience} runs there is still something due: {self.run_keys[-5:]}")


EVENTS = st.sampled_from(["run", "run", "approve", "approve", "reject", "expire", "roll back", "restate", "restore"])


@hypothesis_settings(max_examples=200)
@given(st.integers(1, 6), st.lists(st.tuples(EVENTS, st.integers(0, 5)), max_size=40))
def test_following_the_agenda_comes_to_an_end(months: int, events: list[tuple[str, int]]) -> None:
    """Whatever people decide, take back or correct at the source: each run has a key of its own, then it is quiet."""
    published = {parse_month("2015-01") + number: "r1" for number in range(months)}
    world = World(published)
    world.compare("base", "r1")
    world.ask()
    for event, number in events:
        month = parse_month("2015-01") + number % months
        if event == "run":
            world.run_what_is_due()
        elif event in {"approve", "reject", "expire"}:
            answers = {
                "approve": RequestState.APPROVED,
                "reject": RequestState.REJECTED,
                "expire": RequestState.EXPIRED,
            }
            world.answer(answers[event])
        elif event == "roll back":
            world.roll_back()
        else:
            world.published[month] = {"restate": f"r{number + 2}", "restore": "r1"}[event]
        world.ask()
    before = len(world.run_keys)
    world.settle_down(patience=months + 1)
    assert len(world.run_keys) - before <= months, "without answers each month is run once at most"
    run = [month for month in world.published if str(month) in world.compared]
    assert all(world.compared[str(month)].revision == world.published[month] for month in run)
    assert run == list(world.published) or world.production is None, "only a start that waits holds months back"
    assert to_ask(world.known, CHANNELS, PERSON) == []
    settled = {request.subject for request in world.requests if request.id in world.known.ends}
    assert all(
        str(month) in settled | {request.subject for request in world.open_requests()}
        for month in run
        if world.compared[str(month)].production_version == world.production
    ), "whatever can be asked was asked"


def test_while_a_start_waits_for_its_decision_no_further_month_is_run() -> None:
    """Six cold starts would be six questions of which at most one can be answered with yes."""
    world = World(dict(PUBLISHED))
    world.compare("base", "r1")
    assert not world.run_what_is_due(), "the base model is compared, and about to be asked about"
    world.ask()
    assert not world.run_what_is_due()
    world.answer(RequestState.EXPIRED)
    assert world.run_what_is_due(), "nobody wanted to start with the base model"
    assert not world.run_what_is_due(), "the first month is compared, and about to be asked about"
    world.ask()
    assert not world.run_what_is_due()
    world.published[JANUARY] = "r2"
    assert world.run_what_is_due(), "a restated month is run all the same"
    world.ask()
    for request in world.open_requests():
        world.outcomes.append(ended(request, RequestState.REJECTED))
    assert world.run_what_is_due(), "nobody wants to start with January: on with February"


@hypothesis_settings(max_examples=100)
@given(st.lists(st.sampled_from([RequestState.APPROVED, RequestState.REJECTED, RequestState.EXPIRED]), max_size=30))
def test_answering_everything_as_it_comes_leaves_no_question_open(answers: list[RequestState]) -> None:
    world = World(dict(PUBLISHED))
    world.compare("base", "r1")
    world.ask()
    for state in (*answers, *[RequestState.REJECTED] * 30):
        world.run_what_is_due()
        world.ask()
        world.answer(state)
    assert not world.open_requests()
    assert next_month(world.published, world.known) is None
    assert to_ask(world.known, CHANNELS, PERSON) == []


def test_the_story_of_half_a_year() -> None:
    """Each month in its turn, run once, asked about once, answered before the next."""
    world = World({parse_month("2015-01") + number: "r1" for number in range(6)})
    world.compare("base", "r1")
    world.ask()
    world.answer(RequestState.APPROVED)
    for state in (
        RequestState.APPROVED,
        RequestState.REJECTED,
        RequestState.REJECTED,
        RequestState.APPROVED,
        RequestState.REJECTED,
        RequestState.APPROVED,
    ):
        assert world.run_what_is_due()
        world.ask()
        world.answer(state)
    assert not world.run_what_is_due()
    assert world.run_keys == [f"2015-0{number}:r1" for number in range(1, 7)]
    assert len(world.requests) == 7


def test_what_is_at_hand_stays_as_short_as_the_list_of_months(office: Office) -> None:
    for version in range(2, 8):
        office.reject(office.ask("2015-01", f"{version}", "1", mae=2.1 + version / 100))
        office.ask("2015-02", f"{version + 10}", "1", mae=2.1 + version / 100)
    with office.approvals.ledger.reading() as entries:
        requests, outcomes, _ = entries.at_hand()
        last = {request.subject: request.id for request in entries.requests()}
        assert len(entries.requests()) == 13
    assert {request.subject: request.id for request in requests} == last
    assert len(requests) == 3
    assert {outcome.request_id for outcome in outcomes} == {last["base"], last["2015-01"]}
