"""The record: what was asked, answered and in production, read from the ledger; nothing here changes anything."""

from datetime import UTC, date, datetime, time, timedelta

from taxifare.approval import alarms, requests, standing
from taxifare.approval.chain import Head
from taxifare.approval.errors import NeverComparedError
from taxifare.approval.ledger import Ledger
from taxifare.approval.records import Comparison, Outcome, Promotion, Question, Request, RequestState, readable
from taxifare.approval.texts import one_line
from taxifare.approval.tokens import about_request, to_answer
from taxifare.trips.editions import is_so_far


class Record:
    """What the ledger says, one query at a time; for a consistent view over several use `Ledger.reading`.

    Args:
        ledger: Where it is kept.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def comparisons(self) -> dict[str, Comparison]:
        """Returns the last comparison of each subject."""
        with self._ledger.reading() as entries:
            return entries.comparisons()

    def head(self) -> Head | None:
        """Returns the head of the ledger's chain, None before the first entry."""
        with self._ledger.reading() as entries:
            return entries.head()

    def find(self, request_id: str) -> Request:
        """Returns the request; raises UnknownRequestError if there is none of that name."""
        with self._ledger.reading() as entries:
            return requests.found(entries, one_line(request_id))

    def requests(self) -> tuple[Request, ...]:
        """Returns every request ever made, oldest first."""
        with self._ledger.reading() as entries:
            return tuple(entries.requests())

    def open_requests(self) -> tuple[Request, ...]:
        """Returns the open requests, oldest first."""
        with self._ledger.reading() as entries:
            return tuple(entries.open_requests())

    def outcomes(self) -> dict[str, Outcome]:
        """Returns how each request that is no longer open ended."""
        with self._ledger.reading() as entries:
            return {outcome.request_id: outcome for outcome in entries.outcomes()}

    def outcome(self, request_id: str) -> Outcome | None:
        """Returns how the request ended, None while it is open."""
        with self._ledger.reading() as entries:
            return entries.outcome(request_id)

    def was_approved(self, subject: str, version: str) -> bool:
        """Returns whether somebody has approved the version on the evidence of the subject."""
        with self._ledger.reading() as entries:
            asked = {r.id for r in entries.requests() if (r.subject, r.staging_version) == (subject, version)}
            return any(o.request_id in asked and o.state is RequestState.APPROVED for o in entries.outcomes())

    def state(self, request: Request) -> RequestState:
        """Returns where the request stands."""
        outcome = self.outcome(request.id)
        return outcome.state if outcome else RequestState.REQUESTED

    def decided_on_other_editions(self, request: Request) -> tuple[Outcome, ...]:
        """Returns the decisions on the same subject that rest on trips which the source has since corrected."""
        with self._ledger.reading() as entries:
            same = [r for r in entries.requests() if r.subject == request.subject and not is_so_far(r.revision)]
            other = {r.id for r in same if r.revision != request.revision}
            return tuple(o for o in entries.outcomes() if o.request_id in other and o.by is not None)

    def due_reminders(self, after: timedelta, now: datetime) -> tuple[Question, ...]:
        """Returns the open questions whose last message, the question or a reminder, is at least that old.

        Those whose evidence cannot be read are left to the release that wrote it.
        """
        with self._ledger.reading() as entries:
            last = {about_request(sent.request_id): sent.delivered_at for sent in entries.deliveries()}
            last |= {notice.about: notice.delivered_at for notice in entries.notices()}
            others = (standing.read(entries).open, alarms.read(entries).open)
            waiting: list[Question] = [*entries.open_requests(), *(asked for asked in others if asked is not None)]
            return tuple(
                asked
                for asked in waiting
                if (at := last.get(to_answer(asked, "approve").about)) is not None
                and at + after <= now <= asked.valid_until
                and readable(asked) is not None
            )

    def history(self) -> tuple[Promotion, ...]:
        """Returns every promotion and rollback, in order; the last one is in force."""
        with self._ledger.reading() as entries:
            return tuple(entries.promotions())

    def production_on(self, when: date) -> Promotion | None:
        """Returns the entry in force at a moment, or at the end of a day (UTC); None before the first.

        Where a clock went backwards, the order of the entries counts, not their times.
        """
        moment = when if isinstance(when, datetime) else datetime.combine(when, time.max, tzinfo=UTC)
        return max(
            (entry for entry in self.history() if entry.promoted_at <= moment),
            key=lambda entry: entry.sequence,
            default=None,
        )

    def production_at(self, subject: str) -> Promotion | None:
        """Returns the entry in force when a subject was last compared; None without an entry.

        Raises:
            NeverComparedError: It was never compared.
        """
        with self._ledger.reading() as entries:
            comparisons, promoted = entries.comparisons(), entries.promotions()
        compared = comparisons.get(subject)
        if compared is None:
            known = ", ".join(sorted(one.subject for one in comparisons.values() if one.is_of_month)) or "none yet"
            raise NeverComparedError(
                f"{subject} was never compared, so no version is on record for it. Compared: {known}. "
                "taxifare months shows what has become of each month"
            )
        # Months are run in any order: the comparison names what the month was compared with.
        before = [entry for entry in promoted if entry.promoted_at <= compared.compared_at]
        return next((entry for entry in reversed(before) if entry.version == compared.production_version), None)
