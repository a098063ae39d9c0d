"""What can be wrong with a replay."""


class ReplayError(ValueError):
    """A replay that cannot be: months without trips, or another one at work; says what was expected."""
