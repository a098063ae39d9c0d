"""Interrupts of a program that may be killed at any moment, for what it leaves is put right when it is run again."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from taxifare.cli.shared import INTERRUPTED, Terminal


def ending_at_once(work: Callable[[], None], words: str) -> None:
    """Ensures that the work is done; Ctrl-C, or TERM, ends the process at once in these words, with `INTERRUPTED`.

    An error of the work is raised. To raise one for an interrupt amid the work would end it in the words of libraries:
    MLflow's store then waits for its own lock, and Dagster raises an error that is no KeyboardInterrupt. So the work
    has a thread, where nothing is raised for interrupts, and this one waits for either.

    Args:
        work: Can be killed without losing anything.
        words: What has happened, and how to go on.
    """
    # While a step of a run is executed, stderr is its log.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as stderr:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Processes inherit what is blocked: those of Dagster that watch over a step's log would each say a traceback.
        unheard = signal.SIG_BLOCK, {signal.SIGINT}
        with ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=unheard) as worker:
            try:
                worker.submit(work).result()
            except KeyboardInterrupt:
                terminal = Terminal()
                terminal.file = stderr
                terminal.show_cursor()  # a bar has hidden it
                terminal.print(f"\n{words}", highlight=False, soft_wrap=True)
                stderr.flush()
                os._exit(INTERRUPTED)
