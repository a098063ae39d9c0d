"""Everything about requests, decisions and production that a person has to know, as errors."""

from taxifare.approval.records import Outcome
from taxifare.errors import ToldError
from taxifare.texts import one_line


class ApprovalError(ToldError, RuntimeError):
    """Something about requests, decisions or the production version that a person has to know."""


class NoStateError(ApprovalError):
    """There is no ledger to read, and reading makes none."""


class NeverComparedError(ApprovalError):
    """Nothing was compared on that month, so nobody knows what would have been."""


class NotAdoptedError(ApprovalError):
    """The registry has a production version that the ledger does not know."""


class LedgerBehindError(ApprovalError):
    """The ledger lacks what people were told of: it was restored from an older backup, or cut off."""


class RegistryBehindError(ApprovalError):
    """The ledger has the entry, but the production alias could not be set; the next command that can sets it."""


class RollbackError(ApprovalError):
    """A rollback to a version that was never production, or is production already."""


class DecisionRefusedError(ApprovalError):
    """A decision that was not accepted; the attempt is on record."""


class UnknownRequestError(DecisionRefusedError):
    """There is no such request."""


class TokenError(DecisionRefusedError):
    """The token is not the one the message showed."""


class UnsignedError(DecisionRefusedError):
    """It is not said who decides, or why."""


class AgainstVerdictError(DecisionRefusedError):
    """Approving what the evidence does not support takes an explicit override."""


class AlteredError(DecisionRefusedError):
    """What the model registry has is not what the message showed."""


class SettledError(DecisionRefusedError):
    """The request is no longer open: decided, expired, or void.

    Attributes:
        outcome: How it ended.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome

    def __str__(self) -> str:
        ended = self.outcome
        by = f" by {ended.by}" if ended.by else ""
        return one_line(f"{ended.request_id} is {ended.state}{by} since {ended.at:%Y-%m-%d %H:%M} UTC: {ended.reason}")
