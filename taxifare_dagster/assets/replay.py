"""Replay: what would have happened under other policies; launched with the months and policies in question.

The functions are the assets: their docstrings are what the catalog shows, `build_assets` says how each is stored.
"""

from functools import partial
from typing import get_args

import dagster as dg
from pydantic import Field, TypeAdapter

from taxifare.operations.month_pages import address_of, page_in, put_page
from taxifare.replay.policies import PolicyName, policies_of
from taxifare.replay.replaying import replay
from taxifare.replay.results import Replay
from taxifare.reports import tables
from taxifare.reports.drawing import png
from taxifare.reports.replay_figures import figures
from taxifare.reports.replay_page import headline, render
from taxifare.settings import ChallengerNames, Settings, read_as
from taxifare.sources.base import TripSource
from taxifare.trips.months import parse_month
from taxifare_dagster import metadata
from taxifare_dagster.catalog import MODEL_KINDS, OWNERS, REPLAY_GROUP

_POLICIES = TypeAdapter(list[PolicyName])
_CHALLENGERS = TypeAdapter(ChallengerNames)


class ReplayConfig(dg.Config):
    """What to replay."""

    first: str | None = Field(default=None, description="First month YYYY-MM; empty: FIRST_MONTH")
    last: str | None = Field(
        default=None, description="Last month YYYY-MM; empty: LAST_MONTH, or the last published one"
    )
    policies: list[str] = Field(
        default=["gate", "always", "never"], description=f"Who decides: {', '.join(get_args(PolicyName))}"
    )
    challengers: list[str] = Field(default=["warm"], description="Ways to renew that compete each month")


def replayed_months(
    context: dg.AssetExecutionContext,
    config: ReplayConfig,
    source: dg.ResourceParam[TripSource],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[Replay]:
    """What would have happened under each policy: every model on every month, with production and decision by month.

    Policies share trained models, which are kept under TAXIFARE_HOME: a run that was stopped resumes when it is
    launched again, and on another machine begins anew.
    """
    policies, challengers = read_as(_POLICIES, config.policies), read_as(_CHALLENGERS, config.challengers)
    found = replay(
        source,
        settings.model_copy(update={"challengers": challengers}),
        first=settings.first_month if config.first is None else parse_month(config.first),
        last=(settings.last_month or max(source.months())) if config.last is None else parse_month(config.last),
        policies=policies_of(policies),
        on_progress=context.log.info,
    )
    return dg.Output(
        found,
        metadata={
            "months": len(found.months),
            "models": len(found.models),
            "summary": metadata.table(tables.policies(found)),
        },
    )


def replay_report(replayed_months: Replay, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """The replay as a page for people: reports/replay.html in the lake, one self-contained file."""
    page = page_in(settings.lake, "replay")
    put_page(page, render(replayed_months))
    drawn = {name: metadata.plot(png(figure)) for name, figure in figures(replayed_months).items()}
    return dg.MaterializeResult(
        metadata={
            "headline": headline(replayed_months),
            "report": dg.MetadataValue.url(address_of(page)),
            "summary": metadata.table(tables.policies(replayed_months)),
            **drawn,
        }
    )


def build_assets() -> list[dg.AssetsDefinition]:
    """Returns the assets of this module; none is of one month."""
    asset = partial(dg.asset, group_name=REPLAY_GROUP, owners=OWNERS, io_manager_key="json_io")
    return [asset(kinds=MODEL_KINDS)(replayed_months), asset(kinds={"html"})(replay_report)]
