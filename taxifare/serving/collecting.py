"""Collecting: what this machine's processes have logged goes into the lake, with that of all other machines."""

from taxifare.environment import ServiceSettings
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer
from taxifare.serving.segments import Collected, collect


def collect_logs(settings: ServiceSettings) -> tuple[Collected, Collected]:
    """Ensures that finished segments are in the lake, each once; returns what was collected: answers, outcomes."""
    home, lake, days = settings.home, settings.lake, settings.prediction_log_days
    answers = collect(prediction_log.folder_in(home), prediction_log.collected_in(lake), days, Answer)
    return answers, collect(outcome_log.folder_in(home), outcome_log.collected_in(lake), days, ToldOutcome)
