"""The service as an AWS Lambda function behind an HTTP API of API Gateway: the same application, driven by events.

A function lives only while it handles an event, and its disk goes with it. So before each event it looks up what is in
force, without a thread that might be stopped half-way, and its answers are in the lake before they are sent. The
gateway decides who may ask (deploy/terraform/aws); SERVICE_TOKEN is required as well, where it is set.
"""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from mangum import Mangum

from taxifare.environment import ServiceSettings, ServiceSettingsInForce, read_settings
from taxifare.serving import outcome_log, prediction_log, problems
from taxifare.serving.app import Service
from taxifare.serving.following import Follower
from taxifare.serving.metrics import Metrics
from taxifare.serving.outcome_log import OutcomeLog, ToldOutcome
from taxifare.serving.prediction_log import Answer, PredictionLog
from taxifare.serving.segments import move

Event = Mapping[str, Any]
"""A request as API Gateway hands it over, payload format 2.0, or the response to it."""

_TEXTS = ["text/", "application/json", problems.MEDIA_TYPE.decode()]
"""Content that need not be encoded in base64."""

_log = logging.getLogger(__name__)


def handler(event: Event, context: Any) -> Event:
    """Returns the answer to a request; Lambda calls this."""
    return _function()(event, context)


@cache
def _function() -> Callable[[Event, Any], Event]:
    return function_of(read_settings(ServiceSettingsInForce))


def function_of(settings: ServiceSettings) -> Callable[[Event, Any], Event]:
    """Returns a function that answers requests with these settings.

    Raises:
        BundleError: The bundle of SERVICE_MODEL_PATH is not fit to serve.
        SettingsError: It cannot be opened.
    """
    metrics = Metrics()
    follower = Follower(settings, metrics)
    follows = follower.begin()
    answers = PredictionLog(prediction_log.folder_in(settings.home), settings.prediction_log_days)
    outcomes = OutcomeLog(outcome_log.folder_in(settings.home), settings.prediction_log_days)
    token = None if settings.service_token is None else settings.service_token.get_secret_value()
    service = Service(follower, answers, outcomes, settings.target_facts, metrics, token)
    # Not with the application's lifespan, which each event would end.
    gateway = Mangum(service, lifespan="off", text_mime_types=_TEXTS)

    def answer(event: Event, context: Any) -> Event:
        if follows:
            follower.look()
        answered: Event = gateway(dict(event), context)
        answers.close()
        outcomes.close()
        try:
            move(prediction_log.folder_in(settings.home), prediction_log.collected_in(settings.lake), Answer)
            move(outcome_log.folder_in(settings.home), outcome_log.collected_in(settings.lake), ToldOutcome)
        except Exception as error:  # noqa: BLE001 - bucket clients may raise anything; the next event tries again
            _log.error("what was answered is not in the lake yet: %s", error)
        return answered

    return answer
