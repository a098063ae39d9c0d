"""What commands have in common that start alone, in a fraction of a second: nothing here takes long to import."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from taxifare.cli.typed import typed
from taxifare.errors import MiswrittenError, ToldError
from taxifare.texts import plain


def command_alone() -> typer.Typer:
    """Returns the application of one command on its own."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@contextmanager
def errors_told(mendable: tuple[type[Exception], ...] = (ToldError,)) -> Iterator[None]:
    """Ends the command with a sentence for what a person can mend, and the exit code of `exit_code_of`.

    Args:
        mendable: The errors that are for people.
    """
    try:
        yield
    except typer.BadParameter as error:
        raise typer.BadParameter(typed(error.message)) from error
    except mendable as error:
        tell(error)
        raise typer.Exit(exit_code_of(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"{error.filename}: expected to read or write it, received: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def exit_code_of(error: Exception) -> int:
    """Returns 2 for what is wrong as it is written; 1 for what was refused or failed."""
    return 2 if isinstance(error, MiswrittenError) else 1


def tell(error: Exception) -> None:
    """Prints an error to standard error, in a line that can be copied."""
    name = typer.style(type(error).__name__, fg=typer.colors.RED)
    typer.echo(f"{name}: {typed(plain(str(error)))}", err=True)
