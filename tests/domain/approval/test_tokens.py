"""Tokens: the key they are made with, and what they open."""

import os
import stat
from pathlib import Path

import pytest

from taxifare.approval.approvals import Approvals
from taxifare.approval.errors import (
    ApprovalError,
    RollbackError,
    TokenError,
)
from taxifare.approval.tokens import approval_secret, to_go_back
from taxifare.settings import Settings
from tests.support.approvals import MemoryRegistry, Office, in_processes

pytestmark = pytest.mark.databases("sqlite")


def test_a_token_opens_one_request_only(office: Office) -> None:
    january, february = office.ask("2015-01", "2", "1"), office.ask("2015-02", "3", "1")
    with pytest.raises(TokenError):
        office.approvals.decide(
            january.id, "approve", "Eve", "mixed up", office.approvals.answer_tokens(february)["approve"]
        )


def test_a_token_of_another_secret_opens_nothing(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    elsewhere = Approvals(office.approvals.ledger, office.registry, lambda: b"another secret")
    with pytest.raises(TokenError):
        office.approvals.decide(request.id, "approve", "Eve", "guessed", elsewhere.answer_tokens(request)["approve"])


def test_a_token_that_is_no_text_is_a_wrong_token(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    for token in ("\ud800", "ü", ""):
        with pytest.raises(TokenError, match="does not permit"):
            office.approvals.decide(request.id, "approve", "Eve", "guessed", token)


def test_a_rollback_that_is_repeated_is_told_to_the_right_token_only(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    with office.approvals.ledger.reading() as entries:
        token = office.approvals.tokens.of(to_go_back(entries.promotions()[-1], "1"), entries)
    back = office.approvals.rollback(by="Ada", reason="complaints", token=token)
    assert office.approvals.rollback(by="Ada", reason="complaints", token=token) == back
    with pytest.raises(TokenError):
        office.approvals.rollback(by="Ada", reason="complaints", token="guessed")
    assert office.versions() == ["1", "2", "1"]


def test_a_refused_rollback_and_a_refused_asking_again_are_on_record_as_a_refused_decision_is(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    with pytest.raises(TokenError) as wrong:
        office.approvals.ask_again(request.id, "guessed")
    with pytest.raises(RollbackError) as nowhere:
        office.approvals.rollback("9", by="Eve", reason="why not")
    assert [(refused.request_id, refused.decision, refused.by, refused.why) for refused in office.refusals()] == [
        (request.id, "ask again", "", str(wrong.value)),
        ("promotion 1", "go back", "Eve", str(nowhere.value)),
    ]


def test_the_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path / "state", approval_secret=None)
    made = in_processes([lambda: approval_secret(settings)] * 4)
    assert made == [approval_secret(settings)] * 4
    assert len(made[0]) >= 32
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_comes_second_uses_the_secret_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_too_late(draft: str, path: Path) -> None:
        path.write_bytes(b"the other process was faster")
        link(draft, path)

    monkeypatch.setattr(os, "link", link_too_late)
    assert approval_secret(Settings(taxifare_home=tmp_path)) == b"the other process was faster"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_secret_that_is_set_is_used_if_it_is_one(tmp_path: Path) -> None:
    assert approval_secret(Settings(taxifare_home=tmp_path, approval_secret="sixteen letters!")) == b"sixteen letters!"
    with pytest.raises(ApprovalError, match="at least 16 characters") as caught:
        approval_secret(Settings(taxifare_home=tmp_path, approval_secret="hunter2"))
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_approvals_from_settings_use_their_ledger(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path)
    assert Approvals.from_settings(settings, MemoryRegistry()).production() is None
    assert (tmp_path / "ledger.db").exists()
