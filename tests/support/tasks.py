"""Tasks for workers in tests: what they do is plain to see, and some take their worker with them."""

import os
import signal
import time
from pathlib import Path


def squared(number: int) -> int:
    return number * number


def refused(number: int) -> int:
    raise ValueError(f"expected another number, received {number}")


def begun_and_ended(seconds: float) -> tuple[int, float, float]:
    """The process that did it, and from when until when."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), began, time.monotonic()


def squared_by_the_second(number: int, folder: Path) -> int:
    """Whoever does it first dies of it."""
    (folder / f"{number}.{os.getpid()}").touch()
    if len(list(folder.glob(f"{number}.*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def deadly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
