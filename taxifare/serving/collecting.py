"""Collecting: what this machine's processes have written down goes into the lake, where all machines' is."""

from taxifare.environment import ServiceSettings
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer
from taxifare.serving.segments import Collected, collect


def collect_logs(settings: ServiceSettings) -> tuple[Collected, Collected]:
    """Ensures that what is finished is in the lake, each segment once; returns what there was: answers, outcomes."""
    home, lake, days = settings.home, settings.lake, settings.prediction_log_days
    answers = collect(prediction_log.folder_in(home), prediction_log.collected_in(lake), days, Answer)
    return answers, collect(outcome_log.folder_in(home), outcome_log.collected_in(lake), days, ToldOutcome)
