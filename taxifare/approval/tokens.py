"""Tokens: what a decision carries as proof that whoever made it read the message."""

import os
import secrets
import tempfile
from pathlib import Path

from taxifare.approval.errors import ApprovalError
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
        path.parent.mkdir(parents=True, exist_ok=True)
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
