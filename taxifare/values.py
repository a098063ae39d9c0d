"""Values that are kept as JSON – in the ledger, the lake, MLflow – and read again by later and earlier releases."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that never changes once it is made.

    A record of a later release may have more fields: those known here are read, the others are left alone. A record
    that lacks a field is refused, for nothing is ever made up in its place.

    >>> class Fare(Frozen):
    ...     usd: float
    >>> Fare.model_validate_json('{"usd": 7.5, "tip": 1}')
    Fare(usd=7.5)
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
