"""Tokens: what an act carries as proof that whoever acts has read the message that offers it.

A token permits one act (approve and reject have their own) on one thing in one state of the world, for one attempt: the
token of a failed attempt is spent, and the next message has fresh ones.
"""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from taxifare.approval.errors import ApprovalError, TokenError
from taxifare.approval.ledger import Entries
from taxifare.approval.records import Alarm, Decision, Promotion, Question, Request, SpentToken, StandingRequest
from taxifare.secrets import private_folder
from taxifare.settings import AskingSettings

MINIMUM_SECRET_LENGTH = 16

KEPT_IN = "approval-secret"

Act = Decision | Literal["go back", "ask again"]


@dataclass(frozen=True)
class Permission:
    """What a token permits.

    Attributes:
        act: What may be done.
        about: To what: `request …`, `standing …`, `alarm …`, `promotion …`. Tokens about the same thing are spent
            together.
        state: What has to hold for the act to make sense.
    """

    act: Act
    about: str
    state: tuple[str | int | None, ...]


def to_answer(request: Question, decision: Decision) -> Permission:
    """Returns the permission to approve or to reject what the question shows."""
    if isinstance(request, Alarm):
        return Permission(decision, about_alarm(request.id), (request.evidence_digest, request.sequence))
    if isinstance(request, StandingRequest):
        return Permission(
            decision, about_standing(request.id), (request.evidence_digest, request.first_month, request.last_month)
        )
    shown = (request.staging_version, request.production_version, request.evidence_digest)
    return Permission(decision, about_request(request.id), shown)


def to_ask_again(request: Request) -> Permission:
    """Returns the permission to repeat a question that nobody answered in time."""
    return Permission("ask again", about_expiry(request.id), (request.evidence_digest, request.production_version))


def to_go_back(promotion: Promotion, to: str | None) -> Permission:
    """Returns the permission to make an earlier version production in place of the one in force."""
    return Permission("go back", about_promotion(promotion.sequence), (promotion.version, to))


def about_request(request_id: str) -> str:
    """Returns what tokens and messages call a question."""
    return f"request {request_id}"


def about_expiry(request_id: str) -> str:
    """Returns what tokens and messages call the end of a question that nobody answered."""
    return f"expiry {request_id}"


def about_standing(standing_id: str) -> str:
    """Returns what tokens and messages call the question about a standing approval."""
    return f"standing {standing_id}"


def about_standing_end(standing_id: str) -> str:
    """Returns what messages call the end of a standing approval."""
    return f"standing-end {standing_id}"


def about_alarm(alarm_id: str) -> str:
    """Returns what tokens and messages call the question whether to retrain before the month is over."""
    return f"alarm {alarm_id}"


def about_promotion(sequence: int) -> str:
    """Returns what tokens and messages call a change of production."""
    return f"promotion {sequence}"


def approval_secret(settings: AskingSettings) -> bytes:
    """Returns the key of the approval tokens: the setting, or else a random one, made once and kept in TAXIFARE_HOME.

    Raises:
        ApprovalError: The key is too short to be a secret, or its file cannot be read.
    """
    if settings.approval_secret is not None:
        secret = settings.approval_secret.get_secret_value()
        if len(secret) < MINIMUM_SECRET_LENGTH:
            raise ApprovalError(f"APPROVAL_SECRET needs at least {MINIMUM_SECRET_LENGTH} characters")
        return secret.encode()
    path = settings.home / KEPT_IN
    if not path.exists():
        private_folder(path.parent)
        # Written aside, then linked: a second process must never read a file that is still being written. mkstemp
        # opens with O_EXCL and mode 0600, and a link fails where a name exists, so the first process wins.
        descriptor, draft = tempfile.mkstemp(prefix=".approval-secret-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    try:
        kept = path.read_bytes()
    except OSError as error:
        raise ApprovalError(f"the key of the approval tokens, {path}, cannot be read: {error.strerror}") from error
    # An empty key would let anybody make tokens: the file was truncated, or a disk was full.
    if len(kept) < MINIMUM_SECRET_LENGTH:
        raise ApprovalError(
            f"{path} holds {len(kept)} bytes, expected the key of the approval tokens of at least "
            f"{MINIMUM_SECRET_LENGTH}: delete the file, a new key is made; then, for each open request: taxifare "
            "ask-again REQUEST"
        )
    return kept


def kept_secret(settings: AskingSettings) -> Callable[[], bytes]:
    """Returns a function that gives the key of the approval tokens: one that is set or kept is read now.

    A missing one is made with the first token, so that whoever only reads creates no state.

    Raises:
        ApprovalError: As `approval_secret`.
    """
    if settings.approval_secret is not None or (settings.home / KEPT_IN).exists():
        secret = approval_secret(settings)
        return lambda: secret
    return cache(lambda: approval_secret(settings))


class Tokens:
    """Tokens of permissions, as they are now: each depends on how many before it were spent.

    Args:
        secret: Gives the key, see `kept_secret`.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret

    @property
    def fingerprint(self) -> str:
        """What distinguishes this key from others, and reveals nothing about it."""
        return hmac.new(self._secret(), b"fingerprint of the key", hashlib.sha256).hexdigest()[:12]

    def of(self, permission: Permission, entries: Entries) -> str:
        """Returns the token that the act has to carry: proof of having read the last message that offers it."""
        spent = len(entries.spent_tokens(permission.about))
        shown = [permission.act, permission.about, *permission.state, spent]
        return hmac.new(self._secret(), json.dumps(shown).encode(), hashlib.sha256).hexdigest()[:32]

    def answers(self, request: Question, entries: Entries) -> dict[Decision, str]:
        """Returns the tokens of approving and of rejecting."""
        return {decision: self.of(to_answer(request, decision), entries) for decision in get_args(Decision)}

    def ensure(self, permission: Permission, entries: Entries, token: str) -> None:
        """Ensures that the token is the permission's; a wrong one takes as long to check as the right one.

        Raises:
            TokenError: It is not.
        """
        if not hmac.compare_digest(self.of(permission, entries).encode(), token.encode(errors="replace")):
            raise TokenError(
                f"the token does not permit to {permission.act} ({permission.about}): it belongs to another link, was "
                "used before, or was made with another key; use the link in the latest message about it"
            )


def spend(permission: Permission, why: str, entries: Entries, at: datetime) -> None:
    """Ensures that the permission's token, and those about the same thing, are spent: an attempt failed."""
    sent = [notice.message for notice in entries.notices(permission.about)]
    kind, _, request_id = permission.about.partition(" ")
    if kind == "request":
        sent = [delivery.reminder for delivery in entries.deliveries(request_id)]
    entries.add_spent_token(SpentToken(permission.about, 1 + max(sent, default=-1), why, at))
