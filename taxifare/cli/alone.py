"""What commands have in common that start alone, in a fraction of a second: nothing here takes long to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from taxifare.cli.typed import typed
from taxifare.errors import ToldError, exit_code_of
from taxifare.texts import plain


def command_alone() -> typer.Typer:
    """Returns the application of one command on its own."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode="markdown",  # the only one that joins the lines of a paragraph
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@contextmanager
def errors_told(mendable: tuple[type[Exception], ...] = (ToldError,)) -> Iterator[None]:
    """Ends the command with a sentence for what a person can mend, and the exit code of `errors.exit_code_of`.

    Args:
        mendable: The errors that are for people.
    """
    try:
        yield
    except typer.BadParameter as error:
        error.message = typed(error.message)
        raise
    except mendable as error:
        tell(error)
        raise typer.Exit(exit_code_of(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"Cannot read or write {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


class NotThereError(ToldError, LookupError):
    """What was asked for is not there, though it was asked for in the right way; says what to do."""


def ensure_folder_of(name: str, output: Path) -> None:
    """Ensures, before the work, that the file that an option names can be put where it should be afterwards."""
    if not output.parent.is_dir():
        raise NotThereError(f"{name}: expected a file in a folder that is there, received {output}: make the folder")


def misused(name: str, fault: object) -> typer.BadParameter:
    """Returns the error of an option or argument that is not as expected; it names it as click names its own."""
    return typer.BadParameter(str(fault), param_hint=f"'{name}'")


def tell(error: Exception) -> None:
    """Prints an error to standard error, in a line that can be copied."""
    name = typer.style(type(error).__name__, fg=typer.colors.RED)
    typer.echo(f"{name}: {typed(plain(str(error)))}", err=True)
