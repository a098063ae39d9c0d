"""What all errors have in common that people are told: in the log, in Dagster, on the terminal."""

from taxifare.secrets import redacted
from taxifare.texts import plain


class ToldError(Exception):
    """An error whose message is for people, and may contain words of servers, files and libraries.

    It shows no secret, and is one line without anything that commands a terminal.
    What it was raised from is shown as well, by Dagster for one. So an error that a library raised about a connection
    is no cause: its words go into the message, and `from None` leaves the rest behind.
    """

    def __init__(self, message: object) -> None:
        super().__init__(_presentable(message) if isinstance(message, str) else message)


class MiswrittenError(ToldError, ValueError):
    """What somebody wrote, in a command or a setting, is not as expected: nothing was tried."""


def exit_code_of(error: Exception) -> int:
    """Returns 2 for what is wrong as it is written; 1 for what was refused or failed.

    What is written may be right and the world against it: a port that somebody else listens on is no wrong setting.
    """
    return 2 if isinstance(error, MiswrittenError) else 1


def _presentable(message: str) -> str:
    return redacted(plain(message).replace("\n", " "))
