"""Streams: `consume`. It starts as fast as it prices, so it imports nothing but what that takes."""

import asyncio
import gc
import logging
import os
import signal

import uvloop

from taxifare.addresses import listening_at
from taxifare.cli.alone import command_alone, errors_told
from taxifare.environment import StreamSettings, StreamSettingsInForce, read_settings

app = command_alone()


@app.command()
def consume() -> None:
    """Price the rides of a stream (NATS JetStream) with the model in production, until a signal ends it.

    Several share the rides. A ride that is delivered again gets its first quote, whatever was promoted meanwhile.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(message)s")
    with errors_told(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_consume(read_settings(StreamSettingsInForce)))


async def _consume(settings: StreamSettings) -> None:
    """Prices until SIGTERM or an interrupt, after which it answers what it has taken; a second one ends it at once."""
    # A process prices on one thread: before numpy is imported, which asks how many there are.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from taxifare.serving.following import Follower
    from taxifare.serving.metrics import Metrics
    from taxifare.serving.outcome_log import OutcomeLog
    from taxifare.serving.outcome_log import folder_in as outcomes_in
    from taxifare.serving.prediction_log import PredictionLog, folder_in
    from taxifare.serving.streams import Consumer

    metrics = Metrics()
    if settings.stream_metrics_listen is not None:
        address = f"STREAM_METRICS_LISTEN: {settings.stream_metrics_listen}"
        with listening_at(address, "give each process another one, or leave it empty"):
            metrics.serve(settings.stream_metrics_listen)
    follower = Follower(settings, metrics)
    await asyncio.to_thread(follower.start)
    log = PredictionLog(folder_in(settings.home), settings.prediction_log_days)
    outcomes = OutcomeLog(outcomes_in(settings.home), settings.prediction_log_days)
    consumer, loop = Consumer(settings, follower, log, outcomes, metrics), asyncio.get_running_loop()

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        consumer.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    gc.freeze()
    try:
        await consumer.run()
    finally:
        follower.stop()
        log.close()
        outcomes.close()


if __name__ == "__main__":
    app()
