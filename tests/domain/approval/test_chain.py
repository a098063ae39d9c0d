"""The chain: whoever changes the past of the ledger, triggers dropped or not, leaves something that does not fit."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

import pytest

from taxifare.approval.chain import Head, Link, Row, first_misfit, is_told, key_of, seal

NINE = datetime(2015, 2, 1, 9, tzinfo=UTC)
ROWS: Mapping[str, Row] = {key_of({"id": n}, ["id"]): {"id": n, "by": f"Ada {n}", "at": NINE} for n in (1, 2, 3)}


def chained(rows: Mapping[str, Row]) -> list[Link]:
    links: list[Link] = []
    for number, (key, row) in enumerate(rows.items(), 1):
        links.append(Link(number, "refusals", key, seal(links[-1].seal if links else "", "refusals", row)))
    return links


def test_what_was_written_fits() -> None:
    assert first_misfit(chained(ROWS), {"refusals": ROWS}) is None
    assert first_misfit([], {"refusals": {}}) is None


def test_a_changed_row_is_named() -> None:
    changed = {**ROWS, "[2]": {**ROWS["[2]"], "by": "Eve"}}
    told = first_misfit(chained(ROWS), {"refusals": changed})
    assert told is not None
    assert told.startswith("entry 2 of the chain does not fit refusals [2]")


def test_a_deleted_row_is_named() -> None:
    left = {key: row for key, row in ROWS.items() if key != "[2]"}
    assert "entry 2 of the chain is about refusals [2], which is not there" in str(
        first_misfit(chained(ROWS), {"refusals": left})
    )


def test_an_added_row_is_named() -> None:
    added = {**ROWS, "[4]": {"id": 4, "by": "Eve", "at": NINE}}
    assert "refusals [4] is in no entry of the chain" in str(first_misfit(chained(ROWS), {"refusals": added}))


def test_a_link_that_is_taken_out_is_missing() -> None:
    one, _, three = chained(ROWS)
    assert "entry 2 of the chain is missing" in str(first_misfit([one, three], {"refusals": ROWS}))


def test_a_chain_that_is_cut_off_or_computed_anew_has_another_head() -> None:
    links = chained(ROWS)
    head = links[-1].head
    assert is_told(head, links)
    fewer = {key: ROWS[key] for key in ("[1]", "[2]")}
    forged = {**ROWS, "[1]": {**ROWS["[1]"], "by": "Eve"}}
    for rows in (fewer, forged):
        assert first_misfit(chained(rows), {"refusals": rows}) is None
        assert not is_told(head, chained(rows))


def test_a_seal_is_the_same_on_every_database() -> None:
    written: Row = {"id": 1, "override": True, "by": None, "at": NINE}
    read: Row = {"override": True, "at": NINE.astimezone(timezone(timedelta(hours=-5))), "id": 1}
    # Stored seals are made by this rule: where this fails, every ledger there is would seem to be tampered with.
    stored = "92dd7b356e166f8e6945b738a251ddf55fb76cf46fb5c93db954798ee81d0749"
    assert seal("", "outcomes", written) == seal("", "outcomes", read) == stored


@pytest.mark.parametrize(
    "written", ["", "214", "214:", "0:9f3c0a1b", "214:9f3c", "214:9f3c0a1b2c3d4e5f6", "x:9f3c0a1b"]
)
def test_what_is_no_head_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected 214:9f3c0a1b2c3d4e5f, received"):
        Head.parse(written)
