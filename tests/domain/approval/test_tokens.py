"""Tokens: the key they are made with, and what they open."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taxifare.approval.approvals import Approvals
from taxifare.approval.chain import Head
from taxifare.approval.comparisons import record
from taxifare.approval.errors import ApprovalError, LedgerBehindError, RollbackError, TokenError
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.ledger import LedgerError
from taxifare.approval.records import Promotion, Request
from taxifare.approval.tokens import MINIMUM_SECRET_LENGTH, approval_secret, kept_secret, to_go_back
from taxifare.approval.versions import ledger_of
from taxifare.settings import Settings
from tests.support.approvals import MemoryRegistry, Office, by_recorded_files, evidence, in_processes

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


def test_a_key_that_is_cut_off_or_cannot_be_read_is_told_with_the_way_out(tmp_path: Path) -> None:
    settings, path = Settings(taxifare_home=tmp_path), tmp_path / "approval-secret"
    path.write_bytes(b"x" * MINIMUM_SECRET_LENGTH)
    assert approval_secret(settings) == b"x" * MINIMUM_SECRET_LENGTH
    path.write_bytes(b"x" * (MINIMUM_SECRET_LENGTH - 1))
    with pytest.raises(ApprovalError, match=r"holds 15 bytes, expected .* at least 16: delete the file.*ask-again REQ"):
        approval_secret(settings)
    path.unlink()
    path.mkdir()
    with pytest.raises(ApprovalError, match="cannot be read: Is a directory"):
        approval_secret(settings)


def test_a_key_that_is_missing_is_made_when_it_is_needed_and_one_that_is_there_is_read_at_once(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path)
    key = kept_secret(settings)
    assert list(tmp_path.iterdir()) == [], "whoever only reads makes no state"
    made = key()
    assert (tmp_path / "approval-secret").read_bytes() == made == key()
    kept = kept_secret(settings)
    (tmp_path / "approval-secret").write_bytes(b"another key, put there since")
    assert kept() == key() == made, "a process has one key"
    assert kept_secret(Settings(taxifare_home=tmp_path, approval_secret="sixteen letters!"))() == b"sixteen letters!"


class Published:
    """Where those who price rides look, in memory."""

    def __init__(self) -> None:
        self.last: Promotion | None = None
        self.asked: Request | None = None

    def is_published(self, promotion: Promotion) -> bool:
        return self.last is not None and self.last.sequence >= promotion.sequence

    def prepare(self, version: str) -> None:
        """Nothing takes long here."""

    def publish(self, promotion: Promotion) -> None:
        self.last = promotion

    def is_in_shadow(self, asked: Request | None, beside: Promotion) -> bool:
        return self.asked == asked and self.is_published(beside)

    def put_in_shadow(self, asked: Request | None, beside: Promotion) -> None:
        assert self.is_published(beside)
        self.asked = asked


def asked_of(approvals: Approvals) -> Request:
    """The question about the first model."""
    found = by_recorded_files(evidence("base", "1", None), approvals.ledger)
    return approvals.request(record(approvals.ledger, found, approvals.now()))


def test_approvals_from_settings_are_those_of_every_process_with_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path, request_valid_days=3)
    assert Approvals.from_settings(settings, MemoryRegistry()).production() is None
    assert (tmp_path / "ledger.db").exists()
    published = Published()
    first = Approvals.from_settings(settings, MemoryRegistry(), published)
    request = asked_of(first)
    assert request.valid_until - request.requested_at == timedelta(days=3)
    token = Approvals.from_settings(settings, MemoryRegistry()).answer_tokens(request)["approve"]
    first.decide(request.id, "approve", "Ada", "it is the first", token)
    assert published.last == first.record.history()[-1]


def test_approvals_from_settings_refuse_a_ledger_that_lacks_what_this_machine_told(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path)
    told = ToldHeads(tmp_path, ledger_of(settings).place)
    told.remember(ToldHead(Head(9, "0" * 16), "request 2015-01 to log", datetime(2015, 2, 1, tzinfo=UTC)))
    with pytest.raises(LedgerBehindError):
        Approvals.from_settings(settings, MemoryRegistry()).production()


def test_approvals_from_settings_refuse_a_ledger_about_another_target(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path)
    asked_of(Approvals.from_settings(settings, MemoryRegistry()))
    minutes = settings.model_copy(update={"target": "duration"})
    with pytest.raises(LedgerError, match="USD"):
        Approvals.from_settings(minutes, MemoryRegistry()).production()
