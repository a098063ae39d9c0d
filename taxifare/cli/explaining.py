"""What is known of a ride: `explain`."""

from collections.abc import Iterator
from shlex import quote
from typing import Annotated

import typer

from taxifare.approval.approvals import Approvals
from taxifare.approval.versions import registry_of
from taxifare.cli.alone import NotThereError
from taxifare.cli.shared import (
    Surroundings,
    approvals_in_force,
    errors_told,
    say,
    say_next,
    show,
    show_facts,
)
from taxifare.operations.explaining import Explanation, explain
from taxifare.reports.tables import Heading, Table
from taxifare.serving.bundle import Bundle
from taxifare.serving.in_force import bundles_in
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import Settings, settings_in_force
from taxifare.texts import counted, difference
from taxifare.trips.preparation import with_features


@errors_told()
def explain_ride(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Key of a ride, as the page of production_eval_mae lists them.")],
) -> None:
    """Explain one ride: what was paid, what production and staging predict, why, and rides like it."""
    settings = settings_in_force()
    approvals = approvals_in_force()
    surroundings: Surroundings = context.obj
    found = surroundings.month_with(key, settings.lake)
    if found is None:
        raise NotThereError(
            f"expected the key of a clean ride of a prepared month, received {key!r}: no month in {settings.lake} has "
            "it. The page of production_eval_mae lists the keys of its worst rides; taxifare months lists the months"
        )
    month, trips = found
    trips = with_features(trips, settings.city_facts)
    told = explain(key, str(month), trips, _versions(str(month), approvals, settings), settings)
    unit = settings.target_facts.unit
    say(f"{key}, {told.part} ride of {told.month}")
    show_facts(_facts(told, settings.target_facts.truth, unit))
    headings = (
        Heading("ride like it", is_unbroken=True),
        Heading("pickup", is_unbroken=True),
        *(Heading(name, "float", 2) for name in ("apart, km", "km", f"{settings.target_facts.truth}, {unit}")),
    )
    rows = (
        (like.key, f"{like.pickup:%Y-%m-%d %H:%M}", like.apart_km, like.haversine_km, like.actual)
        for like in told.similar
    )
    show(Table(headings, tuple(rows)))
    say_next(f"taxifare explain {quote(told.similar[0].key)}" if told.similar else "taxifare months")


def _facts(told: Explanation, truth: str, unit: str) -> Iterator[tuple[str, str]]:
    """Yields what is known of the ride, a line each."""
    (west, south), (east, north) = told.places
    passengers = "passengers unknown" if told.passengers is None else counted(told.passengers, "passengers")
    yield "pickup", f"{told.pickup:%A %Y-%m-%d %H:%M}, {passengers}"
    yield "from, to", f"{west:.5f},{south:.5f} to {east:.5f},{north:.5f}: {told.haversine_km:.2f} km"
    yield truth, f"{told.actual:8.2f} {unit}"
    for one in told.predicted:
        off = f"{difference(told.actual, one.value):+.2f}"
        yield f"{one.role} (version {one.version})", f"{one.value:8.2f} {unit} ({off}), upper {one.upper:.2f}"
    yield "at the month's rate", f"{told.at_rate:8.2f} {unit} ({difference(told.actual, told.at_rate):+.2f})"
    yield "kinds of rides", ", ".join(told.slices) or "none of those that are judged apart"
    yield "rules in force", ", ".join(told.rules) or "none"


def _versions(month: str, approvals: Approvals, settings: Settings) -> Iterator[tuple[str, Bundle]]:
    """Yields the versions that were compared on the month; where none were, the one in production now."""
    publisher = LakePublisher(settings, registry_of(settings))
    comparison = approvals.record.comparisons().get(month)
    if comparison is None:
        versions = {"production now": approvals.production()}
    else:
        evidence = comparison.evidence
        versions = {"production": evidence.production_version, "staging": evidence.staging.version}
    for role, version in versions.items():
        if version is not None:
            yield role, Bundle.read(bundles_in(settings.lake) / publisher.bundle_of(version))
