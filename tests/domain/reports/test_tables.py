"""Tables: the rows are the values, and what a person reads has the digits of its heading."""

from datetime import UTC, datetime

from taxifare.approval.records import Promotion
from taxifare.reports.tables import history, policies
from tests.support.replays import by_hand


def test_policies_are_rows_of_what_they_came_to() -> None:
    table = policies(by_hand())
    assert [heading.name for heading in table.headings] == [
        *("policy", "mean MAE, USD", "MAE on all rides, USD", "off in all, USD", "questions", "promotions"),
        *("regretted", "above the best, USD"),
        "training, s",
    ]
    assert list(table.texts()) == [
        ("gate", "2.700", "2.6500", "10,600", "3", "1", "0", "0.000", "3,704"),
        ("always", "2.767", "2.7000", "10,800", "0", "3", "1", "0.067", "3,704"),
        ("never", "3.200", "3.2000", "12,800", "0", "0", "0", "0.500", "0"),
    ]


def test_history_names_what_was_replaced_and_the_request() -> None:
    moment = datetime(2015, 2, 1, 9, 30, tzinfo=UTC)
    first = Promotion(1, "1", None, "promotion", "base-v1", "Ada", "a start", "d1", moment)
    back = Promotion(3, "1", "2", "rollback", None, "Ben", "complaints", None, moment)
    assert history([first, back]).rows == (
        ("2015-02-01 09:30", "1", "nothing", "promotion", "Ada", "a start", "base-v1"),
        ("2015-02-01 09:30", "1", "2", "rollback", "Ben", "complaints", "–"),
    )
