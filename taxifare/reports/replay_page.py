"""The report of a replay: one HTML page that needs nothing beside itself."""

from taxifare.gate.scores import skill
from taxifare.replay.policies import POLICIES
from taxifare.replay.results import Replay
from taxifare.reports.drawing import svg
from taxifare.reports.replay_figures import figures
from taxifare.reports.tables import policies


def headline(replay: Replay) -> str:
    """Returns the replay in one sentence: the first policy against never and always promoting, in the target's unit."""
    what, unit = replay.target, replay.target_facts.unit
    first, *others = (replay.summary(policy) for policy in replay.policies)
    against = [other for other in others if other.policy in {"never", "always"}] or others[:2]
    compared = " and ".join(
        f"{abs(other.total - first.total):,.0f} {unit} {'less' if other.total >= first.total else 'more'} "
        f"than under “{other.policy}”"
        for other in against
    )
    return (
        f"Under the policy “{first.policy}”, from {replay.months[0].month} to {replay.months[-1].month}, a {what} was "
        f"off by {first.mae_per_trip:.2f} {unit} a ride, with {_times(first.promotions, 'promotion')}. "
        f"On {_trips(replay):,} rides that is {compared or f'{first.total:,.0f} {unit}'}."
    )


def render(replay: Replay) -> str:
    """Returns the report as an HTML page; the same replay gives the same page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("taxifare.reports"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("replay.html").render(
        replay=replay,
        target=replay.target_facts,
        headline=headline(replay),
        trips=_trips(replay),
        meanings={policy: POLICIES[policy].meaning for policy in replay.policies},
        policies=policies(replay),
        best=min(replay.policies, key=lambda policy: replay.summary(policy).mean_mae),
        # The figures are drawn here, from numbers and names that matplotlib escapes.
        figures={name: Markup(svg(figure)) for name, figure in figures(replay).items()},  # noqa: S704
        skills={
            facts.month: skill(decision.production_mae, facts.difficulty_mae)
            for facts, decision in zip(replay.months, replay.decisions_of(replay.policies[0]), strict=True)
        },
    )


def _trips(replay: Replay) -> int:
    """Returns how many clean trips there were in all."""
    return sum(facts.trips for facts in replay.months)


def _times(count: int, what: str) -> str:
    """Returns a count with its noun.

    >>> _times(1, "promotion"), _times(0, "promotion")
    ('1 promotion', 'no promotions')
    """
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
