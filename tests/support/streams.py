"""A NATS server in a process of its own, and what a dispatcher does with it: sends rides, and collects quotes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import nats
from nats.js import JetStreamContext

from tests.support.places import REPOSITORY
from tests.support.servers import free_port
from tests.support.services import RIDE

_T = TypeVar("_T")

HEAVY = ("tensorflow", "mlflow", "pandas", "dagster", "sqlalchemy")

_CONSUME = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None
{{prelude}}
from taxifare_dagster.command import main
main()
"""
"""`taxifare consume` where importing anything heavy is an error."""


@dataclass
class Broker:
    """A NATS server with JetStream on loopback.

    Attributes:
        folder: Its files; they outlive it.
        login: User and password that it asks for.
        process: It, while it runs.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    login: tuple[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = Path(sys.executable).with_name("nats-server")
        arguments = [*("-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "jetstream"))]
        if self.login is not None:
            arguments += ["--user", self.login[0], "--pass", self.login[1]]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([program, *arguments], stdout=log, stderr=subprocess.STDOUT)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(number)
            process.wait(20)

    def do(self, work: Callable[[JetStreamContext], Awaitable[_T]]) -> _T:
        """Returns what is done with a connection of its own, which waits until the server is there."""

        async def connected() -> _T:
            login = {} if self.login is None else dict(zip(("user", "password"), self.login, strict=True))
            client = await nats.connect(self.url, max_reconnect_attempts=60, reconnect_time_wait=0.1, **login)
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(connected())

    def send(self, *messages: bytes, subject: str = "taxifare.rides") -> None:
        """Sends messages, each of which is with the server when this returns."""

        async def work(stream: JetStreamContext) -> None:
            for message in messages:
                await stream.publish(subject, message)

        self.do(work)

    def messages(self, subject: str) -> list[Any]:
        """What is on a subject, from the beginning, as JSON; nothing where no stream has it yet."""

        async def work(stream: JetStreamContext) -> list[Any]:
            try:
                name = await stream.find_stream_name_by_subject(subject)
            except nats.js.errors.NotFoundError:
                return []
            reader = await stream.pull_subscribe(subject, stream=name)
            found: list[Any] = []
            while (await reader.consumer_info()).num_pending:
                messages = await reader.fetch(1000)
                await asyncio.gather(*(message.ack() for message in messages))
                found += (json.loads(message.data) for message in messages)
            await stream.delete_consumer(name, (await reader.consumer_info()).name)
            return found

        return self.do(work)

    def quotes(self, target: str = "fare") -> list[dict[str, Any]]:
        return self.messages(f"taxifare.quotes.{target}")

    def refused(self, target: str = "fare") -> list[dict[str, Any]]:
        return self.messages(f"taxifare.refused.{target}")


def ride(ride_id: str | int, **changes: Any) -> bytes:
    """A ride as a dispatcher sends it."""
    return json.dumps({"ride_id": ride_id, "ride": {**RIDE, **changes}}).encode()


@contextmanager
def broker(folder: Path, login: tuple[str, str] | None = None) -> Iterator[Broker]:
    """A server that has streams of rides and of quotes, gone at the end.

    That of quotes drops copies for a tenth of a second only: whatever is quoted again is seen.
    """
    made = Broker(folder, login=login)
    made.start()

    async def add_streams(stream: JetStreamContext) -> None:
        for attempt in range(50):
            try:
                await stream.add_stream(name="rides", subjects=["taxifare.rides"])
                await stream.add_stream(name="taxifare-quotes", subjects=["taxifare.quotes.*"], duplicate_window=0.1)
            except nats.js.errors.Error:
                if attempt == 49:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    try:
        made.do(add_streams)
        yield made
    finally:
        made.stop()


@contextmanager
def consumers(
    home: Path, url: str, count: int = 1, prelude: str = "", **settings: str
) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """So many processes of `taxifare consume`, killed at the end where they have not ended by themselves.

    Args:
        home: State folder.
        url: Of the NATS server.
        count: How many.
        prelude: What they run before.
        settings: Further ones.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TAXIFARE_HOME": str(home),
        "STREAM_URL": url,
        "STREAM_ACK_WAIT_S": "1",
        **settings,
    }
    home.mkdir(parents=True, exist_ok=True)
    with (home / "consumer.log").open("ab") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _CONSUME.format(prelude=prelude), "consume"],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for _ in range(count)
        ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait(holds: Callable[[], bool], patience_s: float = 30) -> None:
    """Waits until something holds."""
    until = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.2)
