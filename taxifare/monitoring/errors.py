"""What monitoring cannot do, told to people."""

from taxifare.errors import ToldError


class MonitoringError(ToldError, RuntimeError):
    """A month of quotes or outcomes that cannot be read or joined; says which file, what was expected, the way out."""
