"""The track record: what the candidate would have saved since production came in, month by month.

Production and candidate price every ride of a month before either learns from it: the candidate prices the training
trips as it was when the month began, and the validation trips once it has learned from the training trips. So each ride
is priced once, by a model that has not seen it (prequential: Dawid 1984; Choe and Ramdas 2023).

Why a month's last days alone do not decide: docs/decisions.md, under gate.
"""

from functools import cached_property, reduce
from operator import add

from taxifare.gate.gains import SlicedGains
from taxifare.values import Frozen


class MonthOnRecord(Frozen):
    """A month of the track record.

    Attributes:
        month: Which one, `YYYY-MM`.
        revision: Of its trips.
        candidate: The version that the candidate was after the month.
        gains: What it saved; without rides for a month that is not sound, from which nothing was learned.
    """

    month: str
    revision: str
    candidate: str
    gains: SlicedGains = SlicedGains()


class TrackRecord(Frozen):
    """How the candidate did against one version of production.

    After a month that leaves it surely worse than production, the candidate starts over from production, and its gains
    from zero.

    Attributes:
        production: The version it is compared with.
        months: Those since production's last, in order.
    """

    production: str
    months: tuple[MonthOnRecord, ...] = ()

    @cached_property
    def since_last_start(self) -> tuple[MonthOnRecord, ...]:
        """The months since the candidate last started from production, in order."""
        first = 0
        for end in range(1, len(self.months)):
            if _is_worse(self.months[first:end]):
                first = end
        return self.months[first:]

    @property
    def gains(self) -> SlicedGains:
        """What the candidate has saved since it last started from production."""
        return _added(self.since_last_start)

    @property
    def candidate(self) -> str:
        """The version that learns the next month: production where the candidate was surely worse, or before any."""
        return self.production if not self.months or _is_worse(self.since_last_start) else self.months[-1].candidate

    def followed_by(self, month: MonthOnRecord) -> "TrackRecord":
        """Returns the record with one more month."""
        return TrackRecord(production=self.production, months=(*self.months, month))

    def with_gains(self, more: SlicedGains) -> "TrackRecord":
        """Returns the record with more rides of its last month."""
        *before, last = self.months
        return TrackRecord(
            production=self.production,
            months=(*before, last.model_copy(update={"gains": last.gains + more})),
        )


def _added(months: tuple[MonthOnRecord, ...]) -> SlicedGains:
    return reduce(add, (month.gains for month in months), SlicedGains())


def _is_worse(months: tuple[MonthOnRecord, ...]) -> bool:
    """Whether the candidate was surely worse than production over these months."""
    return _added(months).all.interval.high < 0
