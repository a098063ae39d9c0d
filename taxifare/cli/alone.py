"""What commands have in common that start alone, in a fraction of a second: nothing here takes long to import."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from taxifare.cli.typed import typed
from taxifare.environment import SettingsError
from taxifare.errors import ToldError
from taxifare.texts import plain


def command_alone() -> typer.Typer:
    """Returns the application of one command on its own."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@contextmanager
def errors_told() -> Iterator[None]:
    """Ends the command with a sentence for what can be expected to go wrong."""
    try:
        yield
    except SettingsError as error:
        _tell(error)
        raise typer.Exit(2) from error
    except typer.BadParameter as error:
        raise typer.BadParameter(typed(error.message)) from error
    except ToldError as error:
        _tell(error)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"{error.filename or 'a file'}: expected to read or write it, received: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def _tell(error: Exception) -> None:
    typer.echo(f"{type(error).__name__}: {typed(plain(str(error)))}", err=True)
