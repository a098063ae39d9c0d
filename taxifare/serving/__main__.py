"""`make serve`: prices rides over HTTP until it is told to end. Reads the settings; `server` says how it ends."""

import gc
import logging
import os
import resource
import socket
import sys
import tempfile

from taxifare.addresses import listening_at
from taxifare.environment import ServiceSettings, ServiceSettingsInForce, read_settings
from taxifare.errors import ToldError, exit_code_of
from taxifare.serving.metrics import FOLDER_VARIABLE
from taxifare.serving.server import CANNOT_START, Server, Supervisor, listening

_log = logging.getLogger("taxifare.serving")


def main(arguments: list[str]) -> int:
    """Returns the exit code of the service, or of one of its processes, which receives the number of its socket."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    is_one_of_several = arguments[:1] == ["--socket"]
    try:
        settings = read_settings(ServiceSettingsInForce)
        if is_one_of_several:
            return _serve(settings, socket.socket(fileno=int(arguments[1])), owns_socket=False)
        return _start(settings)
    except ToldError as error:
        _log.error("%s", error)
        return exit_code_of(error) + (CANNOT_START if is_one_of_several else 0)


def _start(settings: ServiceSettings) -> int:
    """Returns the exit code of the service once it has ended.

    Raises:
        ToldError: It cannot start, by its settings or because of the world.
    """
    with listening_at(f"SERVICE_LISTEN: {settings.service_listen}", "stop what listens there, or set another port"):
        listener = listening(settings.service_listen)
    _allow_connections()
    _log.info("rides are priced at http://%s; /docs says how", settings.service_listen)
    if settings.service_workers == 1:
        return _serve(settings, listener, owns_socket=True)
    with tempfile.TemporaryDirectory(prefix="taxifare-counters-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        return Supervisor(settings.service_workers, listener).run()


def _allow_connections() -> None:
    """Ensures that as many clients may be connected as the system allows a process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(settings: ServiceSettings, listener: socket.socket, *, owns_socket: bool) -> int:
    """Returns the exit code of one process once it has ended.

    Raises:
        ToldError: It cannot start.
    """
    # A process prices on one thread; set before numpy is imported, which reads the number of threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from taxifare.serving.app import Service
    from taxifare.serving.bundle import BundleError
    from taxifare.serving.following import Follower
    from taxifare.serving.metrics import Metrics
    from taxifare.serving.outcome_log import OutcomeLog
    from taxifare.serving.outcome_log import folder_in as outcomes_in
    from taxifare.serving.prediction_log import PredictionLog, folder_in
    from taxifare.serving.shadow import StagingFollower

    metrics = Metrics()
    follower = Follower(settings, metrics)
    try:
        follower.start()
    except BundleError as error:
        raise BundleError(f"SERVICE_MODEL_PATH: {error}") from None
    staging = None
    if settings.service_shadow == "on" and settings.service_model_path is None:
        staging = StagingFollower(settings)
        staging.start()
    log = PredictionLog(folder_in(settings.home), settings.prediction_log_days)
    outcomes = OutcomeLog(outcomes_in(settings.home), settings.prediction_log_days)
    token = None if settings.service_token is None else settings.service_token.get_secret_value()
    # What exists now stays: the garbage collector need not look at it again.
    gc.freeze()
    service = Service(follower, log, outcomes, settings.target_facts, metrics, token, staging)
    Server(service, owns_socket=owns_socket).serve_on(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
