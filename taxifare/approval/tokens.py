"""Tokens: what a decision carries as proof that whoever made it read the message."""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from pathlib import Path

from taxifare.approval.errors import ApprovalError, TokenError
from taxifare.approval.records import Request
from taxifare.secrets import private_folder
from taxifare.settings import AskingSettings

MINIMUM_SECRET_LENGTH = 16


def approval_secret(settings: AskingSettings) -> bytes:
    """The key of the approval tokens: the setting, else a random one that is made once and kept in TAXIFARE_HOME.

    Raises:
        ApprovalError: APPROVAL_SECRET is too short to be a secret.
    """
    if settings.approval_secret is not None:
        secret = settings.approval_secret.get_secret_value()
        if len(secret) < MINIMUM_SECRET_LENGTH:
            raise ApprovalError(f"APPROVAL_SECRET needs at least {MINIMUM_SECRET_LENGTH} characters")
        return secret.encode()
    path = settings.home / "approval-secret"
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
    return path.read_bytes()


class Tokens:
    """Tokens of requests: each is of one request on one state of the world.

    Args:
        secret: The key, see `approval_secret`.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, request: Request) -> str:
        """Returns what a decision on the request has to carry: proof of having read the message that shows it."""
        shown = [request.id, request.staging_version, request.production_version, request.evidence_digest]
        return hmac.new(self._secret, json.dumps(shown).encode(), hashlib.sha256).hexdigest()[:32]

    def ensure(self, request: Request, token: str) -> None:
        """Ensures that the token is the request's; takes as long for a wrong one as for the right one.

        Raises:
            TokenError: It is not.
        """
        if not hmac.compare_digest(self.of(request).encode(), token.encode()):
            raise TokenError(f"the token is not that of {request.id}; copy it from the message that asks")
