"""What monitoring cannot do, in words for people."""

from taxifare.errors import ToldError


class MonitoringError(ToldError, RuntimeError):
    """A month's quotes or outcomes cannot be read or joined; says which file, what was expected, the way out."""
