"""Prices of rides: `predict`. It starts in a fraction of a second, so it imports nothing but what prices rides."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated

import typer

from taxifare.cli.alone import command_alone, ensure_folder_of, errors_told, misused
from taxifare.environment import ServiceSettings, ServiceSettingsInForce, read_settings
from taxifare.errors import MiswrittenError
from taxifare.serving import in_force
from taxifare.serving.bundle import Bundle
from taxifare.serving.rides import EXAMPLE_TIME, Fault, RideError, checked, packed
from taxifare.texts import counted
from taxifare.whole_files import whole_file

SOME_REFUSED = 3
"""Exit code where some rides of a file could not be priced; the others were."""

_STANDARD = "-"

app = command_alone()


@app.command()
def predict(
    file: Annotated[
        str | None,
        typer.Argument(
            help="Rides: CSV (also .csv.gz), parquet, or - for CSV from standard input.", show_default=False
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help=f'When the ride begins, on the city\'s clock: "{EXAMPLE_TIME}".')
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="LON,LAT", help="Where it begins, in degrees: -73.98,40.75.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="LON,LAT", help="Where it ends, in degrees.")] = None,
    passengers: Annotated[int, typer.Option(help="How many passengers.")] = 1,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File to write a file's prices to; - for standard output.")
    ] = _STANDARD,
) -> None:
    """Ask the model in production for the price of one ride, or of all rides of a file.

    Quote "on the meter" (in a file quoted_fare_usd, or _eur, …): the prediction as the meter would show it. Seven rides
    in ten cost no more than "upper"; "corrected" is for sums of many rides, for it has no bias.

    A file's columns are called, and its times are read, as in files of trips: see TRIP_COLUMNS and docs/trips.md.

    Exit code 3 if some rides of a file could not be priced: standard error says which, and the column fault why.
    """
    with errors_told():
        if file is not None and (at, start, end) == (None, None, None):
            _price_file(file, output)
        elif file is None and at is not None and start is not None and end is not None:
            _price_ride(at, start, end, passengers)
        else:
            given = {"a file": file, "--at": at, "--from": start, "--to": end}
            received = ", ".join(name for name, value in given.items() if value is not None) or "nothing"
            raise typer.BadParameter(
                f"expected a file of rides, or --at, --from and --to of one ride, received {received}. For example: "
                f'taxifare predict --at "{EXAMPLE_TIME}" --from -73.98,40.75 --to -73.78,40.64'
            )


def bundle_in_force() -> tuple[Bundle, int | None]:
    """Returns the model that prices rides, and the number of its promotion where it is the one in production.

    Raises:
        SettingsError: A setting is not as expected.
        ToldError: Nothing is in production, it is not fit to serve, or what is cannot be told.
    """
    return _bundle_of(read_settings(ServiceSettingsInForce))


def _bundle_of(settings: ServiceSettings) -> tuple[Bundle, int | None]:
    if (place := settings.service_bundle) is not None:
        return Bundle.read(place, city=settings.city, target=settings.target), None
    promotion, bundle = in_force.model_in(settings.lake, settings.city, settings.target)
    return bundle, promotion.sequence


def price(at: str, start: str, end: str, passengers: int) -> tuple[list[str], tuple[str, ...]]:
    """Returns what a ride costs, as it is shown, and the dated rules in force then that the version has not learned.

    Raises:
        SettingsError: A setting is not as expected.
        ToldError: Nothing is in production, or the ride cannot be priced.
    """
    pickup, dropoff = _place("--from", start), _place("--to", end)
    bundle, sequence = bundle_in_force()
    manifest = bundle.manifest
    told = {
        "pickup_datetime": at,
        "pickup_longitude": pickup[0],
        "pickup_latitude": pickup[1],
        "dropoff_longitude": dropoff[0],
        "dropoff_latitude": dropoff[1],
        "passenger_count": passengers,
    }
    try:
        ride = checked(told, manifest.limits)
    except RideError as error:
        raise OptionError(_of_options(error, manifest.city_facts.name)) from None
    quotes = bundle.quote(packed([ride]))
    found = {manifest.target: quotes.fare[0], "upper": quotes.upper[0], "corrected": quotes.corrected[0]}
    if manifest.meter:
        found["on the meter"] = quotes.quoted[0]
    promotion = "" if sequence is None else f", promotion {sequence}"
    lines = [f"{name:13}{value:8.2f} {manifest.unit}" for name, value in found.items()]
    to_quote = list(found).index("on the meter" if manifest.meter else manifest.target)
    lines[to_quote] += "  (to quote)"
    return [*lines, f"{'version':13}{manifest.version:>8}{promotion}"], bundle.unlearned(ride.pickup_datetime)


class OptionError(MiswrittenError):
    """What was typed is no ride that can be priced; says which option, what was expected and what was received."""


_OPTIONS = {
    "pickup_datetime": "--at",
    "pickup_longitude": "--from: longitude",
    "pickup_latitude": "--from: latitude",
    "dropoff_longitude": "--to: longitude",
    "dropoff_latitude": "--to: latitude",
    "passenger_count": "--passengers",
}
"""What was typed, by the fields of a ride."""


def _of_options(error: RideError, city: str) -> str:
    """Returns what is wrong with a ride, by the options that describe it."""
    said = [
        str(Fault(_OPTIONS[one.field], one.expected.removesuffix(", or null"), one.received)) for one in error.faults
    ]
    remarks = [
        one.replace("pickup:", "--from:").replace("dropoff:", "--to:").replace("the city", f"{city}, the city")
        for one in error.remarks
    ]
    return "; ".join([*said, *remarks])


def _price_ride(at: str, start: str, end: str, passengers: int) -> None:
    lines, unlearned = price(at, start, end, passengers)
    for line in lines:
        typer.echo(line)
    for rule in unlearned:
        typer.echo(f"{rule} is in force then, and the version has learned no ride under it", err=True)


def _place(option: str, written: str) -> tuple[float, float]:
    """Returns longitude and latitude as they were written on the command line; anything else ends the command."""
    longitude, separator, latitude = written.partition(",")
    try:
        if separator:
            return float(longitude), float(latitude)
    except ValueError:
        pass
    raise misused(option, f"expected LON,LAT in degrees, the longitude first, as in -73.98,40.75, received {written!r}")


def _price_file(file: str, output: str) -> None:
    from taxifare.serving.files import KINDS, Form, RideFileError, columns_of, kind_of, packing, score, unpacking

    name = "standard input" if file == _STANDARD else file
    try:
        kind = "csv" if file == _STANDARD else kind_of(file)
    except RideFileError as error:
        raise misused("file", error) from None
    endings = [ending for ending, of in KINDS.items() if of == kind]
    if output == _STANDARD and kind == "parquet" and sys.stdout.isatty():
        raise misused("--output", "expected a file: parquet is nothing for a terminal")
    if _STANDARD not in {output, file} and Path(output).absolute() == Path(file).absolute():
        raise misused("--output", f"expected another file than the rides', received {output}")
    if output != _STANDARD and not output.lower().endswith(tuple(endings)):
        raise misused("--output", f"expected a file that ends in {' or '.join(endings)}, received {output}")
    if output != _STANDARD:
        ensure_folder_of("--output", Path(output))
    settings = read_settings(ServiceSettingsInForce)
    bundle, _ = _bundle_of(settings)
    with _opened(file) as stored, _written(output) as kept:
        try:
            with unpacking(stored, file) as rides, packing(kept, output) as answers:
                scored = score(rides, answers, kind, bundle, Form.of(settings), on_rows=_tell_rows)
        except RideFileError as error:
            raise RideFileError(f"{name}: {error}") from None
    for row, what in scored.examples:
        where = f"line {row + 1}" if kind == "csv" else f"row {row}"
        typer.echo(f"{name}, {where}: {what}", err=True)
    if (remark := scored.offsets.remark(bundle.manifest.city_facts.name)) is not None:
        typer.echo(f"{name}: {remark}", err=True)
    upper, corrected, quoted = columns_of(bundle.manifest.unit)[1:4]
    typer.echo(
        f"To quote: {quoted}. Seven rides in ten cost no more than {upper}; {corrected} is for sums of many rides.",
        err=True,
    )
    if scored.refused:
        more = scored.refused - len(scored.examples)
        also = f", {more:,} of them not shown" if more else ""
        typer.echo(
            f"{scored.refused:,} of {counted(scored.rides, 'rides')} {'has' if scored.refused == 1 else 'have'} no "
            f"price{also}; the column fault says why",
            err=True,
        )
        raise typer.Exit(SOME_REFUSED)


def _tell_rows(done: int) -> None:
    """Shows how far a long file is, where somebody looks."""
    if sys.stderr.isatty():
        typer.echo(f"{done:,} rides\r", nl=False, err=True)


def _opened(file: str) -> AbstractContextManager[IO[bytes]]:
    if file == _STANDARD:
        return nullcontext(sys.stdin.buffer)
    return Path(file).open("rb")


@contextmanager
def _written(output: str) -> Iterator[IO[bytes]]:
    """Yields where prices go: a file that is there whole, or not at all."""
    if output == _STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(output)) as unfinished, unfinished.open("wb") as answers:
        yield answers
