"""Streams: rides come in from NATS JetStream, quotes go out, each ride at least once and always with its first quote.

Outcomes of rides arrive on a subject of their own, and are acknowledged once they are on the log (`outcome_log`).

A batch is priced together, each quote is remembered (`first_quotes`), logged (`prediction_log`) and sent, and only then
are the rides acknowledged. Whatever is cut off in between is delivered again, and finds its first quote. Consumers of
one target share the rides; those of another target receive them all as well. How far a consumer gets ahead of its
acknowledgements is limited, so that a backlog stays with the server.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from typing import Any, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError, ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import BadRequestError, NotFoundError

from taxifare import secrets
from taxifare.environment import StreamSettings
from taxifare.errors import ToldError
from taxifare.serving.asking import asked_of, decoded, is_id, unfit, warnings_of
from taxifare.serving.first_quotes import FirstQuote, FirstQuotes, key_of
from taxifare.serving.following import Follower, Served
from taxifare.serving.metrics import Metrics
from taxifare.serving.outcome_log import OutcomeLog, ToldOutcome, outcome_of
from taxifare.serving.prediction_log import Answer, PredictionLog
from taxifare.serving.problems import Problem, ProblemError
from taxifare.serving.rides import Fault, shown
from taxifare.serving.turns import Asked, answers, priced
from taxifare.trips.targets import TargetName, target_in

_BATCH = 256
"""Most rides that are priced together; none waits for others to arrive."""

_MOST_UNACKNOWLEDGED = 4 * _BATCH
"""Rides that all consumers of a target have taken and not yet acknowledged; the others stay with the server."""

_FETCH_S = 1.0
_AGAIN_S = 1.0
_LOOK_EVERY_S = 5.0
_TOLD_EVERY_S = 60.0
_END_S = 5.0
_DAY_S = 86_400.0

_SHOWN = 10_000
"""Most characters of a refused message that are repeated; all of it is in the stream, at `sequence`."""

_log = logging.getLogger(__name__)


class StreamError(ToldError, RuntimeError):
    """A stream that cannot be consumed, now or later."""


class Refused(msgspec.Struct, kw_only=True):
    """A message that cannot be priced.

    Attributes:
        ride_id: The ride's id, if it gives one.
        problem: Why.
        received: What arrived.
        sequence: Its number in the stream.
    """

    ride_id: Any
    problem: Problem
    received: str
    sequence: int


class _Came(NamedTuple):
    """A message that arrived: its content, and what it asks for or why it cannot be priced."""

    message: Msg
    entry: Mapping[str, Any]
    asked: Asked | None
    problem: ProblemError | None


class Consumer:
    """Prices the rides of a stream until it is told to end.

    Args:
        settings: Say where the stream is.
        follower: What rides are priced with.
        log: Where quotes are logged.
        outcomes: Where outcomes are logged.
        metrics: Counts what happens.

    Attributes:
        counts: Rides `quoted`, those of them quoted `again`, messages `refused`, and outcomes `told`.
    """

    def __init__(
        self,
        settings: StreamSettings,
        follower: Follower,
        log: PredictionLog,
        outcomes: OutcomeLog,
        metrics: Metrics,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._outcomes = outcomes
        self._settings, self._follower, self._log, self._metrics = settings, follower, log, metrics
        self._name = f"taxifare-{settings.city}-{settings.target}"
        self._quotes = f"{settings.stream_quotes}.{settings.target}"
        self._refusals = f"{settings.stream_refused}.{settings.target}"
        self._ended, self._denied = asyncio.Event(), asyncio.Event()
        self._encode = msgspec.json.Encoder().encode
        self._looked_s = self._told_s = time.monotonic()
        self._is_waiting = False
        self._warned = "", 0.0

    def end(self) -> None:
        """Ensures that no further ride is taken; those taken already are answered first."""
        self._ended.set()

    async def run(self) -> None:
        """Prices until `end`.

        Raises:
            StreamError: The server refuses the login or a request.
        """
        client = await self._connected()
        if client is None:
            return
        tidying = [asyncio.create_task(log.keep_tidy()) for log in (self._log, self._outcomes)]
        working = [
            asyncio.create_task(self._go_on(client, self._open, self._take_turn)),
            asyncio.create_task(self._go_on(client, self._open_outcomes, self._take_outcomes)),
        ]
        try:
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (*tidying, *working):
                task.cancel()
            await _close(client)
            self._tell()

    async def _go_on(
        self,
        client: Client,
        open_: Callable[[JetStreamContext], Awaitable[None]],
        take: Callable[[], Awaitable[None]],
    ) -> None:
        """Takes turn after turn until the end; reopens what a fault has closed."""
        is_open = False
        while not self._ended.is_set():
            self._ensure_let_in()
            try:
                if not is_open:
                    await open_(client.jetstream())
                    is_open = True
                await take()
            except ConnectionClosedError:
                self._ensure_let_in()
                raise StreamError(
                    f"{self._address}: expected a connection, received an end: {client.last_error}"
                ) from None
            except (NatsError, TimeoutError) as error:
                is_open = False
                self._warn(error)
                await self._pause(_AGAIN_S)

    async def _open(self, stream: JetStreamContext) -> None:
        """Ensures that everything needed exists; creates what is missing."""
        keep_s, rides = self._settings.stream_keep_days * _DAY_S, self._settings.stream_rides
        try:
            source = await _stream_of(stream, rides, rides, keep_s)
            for subject in (self._quotes, self._refusals):
                await _stream_of(stream, subject, subject.rpartition(".")[0], keep_s)
            self._first = await FirstQuotes.open(stream, self._name, keep_s)
            await stream.add_consumer(
                source,
                ConsumerConfig(
                    durable_name=self._name,
                    filter_subject=rides,
                    ack_wait=self._settings.stream_ack_wait_s,
                    max_ack_pending=_MOST_UNACKNOWLEDGED,
                ),
            )
            self._stream, self._rides = stream, await stream.pull_subscribe_bind(self._name, source)
        except BadRequestError as error:
            raise StreamError(
                f"{self._address}: expected streams of {rides}, {self._quotes} and {self._refusals} that keep "
                f"their messages for each consumer, received a refusal: {error.description}"
            ) from None
        _log.info("rides of %s are priced, their quotes are on %s", rides, self._quotes)

    async def _take_turn(self) -> None:
        """Ensures that waiting rides are answered, if any arrive within a second."""
        if self._follower.current is None:
            self._say_waiting()
            await self._pause(_AGAIN_S)
            return
        self._is_waiting = False
        messages = await self._fetched()
        # Taken once, and only now: after the wait it may be a different one, or none.
        served = self._follower.current
        try:
            if served is not None and messages:
                await self._answer(messages, served)
                messages = ()
        finally:
            # Unanswered messages are delivered again at once, not only after the acknowledgement timeout.
            await asyncio.gather(*(message.nak() for message in messages), return_exceptions=True)
        if time.monotonic() - self._told_s > _TOLD_EVERY_S:
            self._tell()

    async def _open_outcomes(self, stream: JetStreamContext) -> None:
        """Ensures that the subject of outcomes and a consumer of it exist; creates what is missing."""
        subject, name = self._settings.stream_outcomes, f"{self._name}-outcomes"
        try:
            source = await _stream_of(stream, subject, subject, self._settings.stream_keep_days * _DAY_S)
            await stream.add_consumer(
                source,
                ConsumerConfig(
                    durable_name=name, filter_subject=subject, ack_wait=max(self._settings.stream_ack_wait_s, 1.0)
                ),
            )
            self._said, self._told = stream, await stream.pull_subscribe_bind(name, source)
        except BadRequestError as error:
            raise StreamError(
                f"{self._address}: expected a stream of {subject} that keeps its messages for each consumer, "
                f"received a refusal: {error.description}"
            ) from None

    async def _take_outcomes(self) -> None:
        """Ensures that waiting outcomes are on the log, and only then acknowledged."""
        try:
            messages = await self._told.fetch(_BATCH, timeout=_FETCH_S)
        except TimeoutError:
            await self._told.consumer_info()  # raises if somebody has deleted it
            return
        kept: list[ToldOutcome] = []
        for message in messages:
            try:
                kept += _told(message, self._settings)
            except ProblemError as problem:
                await self._refuse(message, problem)
        lost = self._outcomes.lost
        self._outcomes.append(kept)
        if self._outcomes.lost > lost:
            await asyncio.gather(*(message.nak(_AGAIN_S) for message in messages))
            await self._pause(_AGAIN_S)
            return
        self.counts["told"] += len(kept)
        self._metrics.told_outcomes(len(kept))
        await asyncio.gather(*(message.ack() for message in messages))

    async def _refuse(self, message: Msg, problem: ProblemError) -> None:
        """Ensures that a message which is not an outcome is on the subject of refused messages, once."""
        sequence = message.metadata.sequence.stream
        received = message.data.decode(errors="backslashreplace")[:_SHOWN]
        refused = Refused(ride_id=None, problem=problem.problem, received=received, sequence=sequence)
        self._count_refused()
        once = {"Nats-Msg-Id": f"{self._name}-outcome-{sequence}"}
        await self._said.publish(self._refusals, self._encode(refused), headers=once)

    async def _fetched(self) -> Sequence[Msg]:
        try:
            messages = await self._rides.fetch(_BATCH, timeout=_FETCH_S)
        except TimeoutError:
            messages = []
        if not messages:  # the client signals it either way
            self._metrics.left_in_stream(0)
            if time.monotonic() - self._looked_s > _LOOK_EVERY_S:
                # A consumer that somebody has deleted delivers nothing, without an error.
                await self._rides.consumer_info()
                self._looked_s = time.monotonic()
            return ()
        self._metrics.left_in_stream(messages[-1].metadata.num_pending or 0)
        return messages

    async def _answer(self, messages: Sequence[Msg], served: Served) -> None:
        """Ensures that each message is answered, with a quote or the reason why there is none, then acknowledged."""
        came = [_came(message, served) for message in messages]
        asked = [each.asked for each in came if each.asked is not None]
        quotes = priced(asked, served)
        new = (
            FirstQuote(line, warnings_of(quote))
            for each, quote, line in zip(asked, quotes, answers(asked, quotes), strict=True)
        )
        outcomes = await asyncio.gather(*(self._settled(each, next(new) if each.asked else None) for each in came))
        self._write_down([found.answer for found in outcomes if isinstance(found, FirstQuote)], served)
        await asyncio.gather(*(self._send(each, found) for each, found in zip(came, outcomes, strict=True)))
        await asyncio.gather(*(message.ack() for message in messages))

    async def _settled(self, came: _Came, quote: FirstQuote | None) -> FirstQuote | ProblemError:
        """Returns the first quote of a ride, or why it has none."""
        is_new = False
        if quote is not None:
            first, is_new = await self._first.kept(quote)
        else:
            # A ride that was priced before may be beyond the limits of the version in production now.
            found = await self._first.of(came.entry["ride_id"]) if is_id(came.entry.get("ride_id")) else None
            if found is None:
                return came.problem or unfit([])
            first = found
        if first.answer.ride != came.entry.get("ride"):
            expected = "an id of its own, for another ride was told with it first"
            return came.problem or unfit([Fault("ride_id", expected, shown(came.entry["ride_id"]))])
        self.counts["again"] += not is_new
        self._metrics.came_again(not is_new)
        return first

    def _write_down(self, lines: Sequence[Answer], served: Served) -> None:
        """Ensures that quotes are on the log before they are sent; one that is there twice counts once."""
        lost = self._log.lost
        self._log.append(lines)
        self._metrics.priced(len(lines), served.version, self._log.lost - lost)

    async def _send(self, came: _Came, found: FirstQuote | ProblemError) -> None:
        """Ensures that an answer is in its stream; the server drops a recent duplicate."""
        sequence = came.message.metadata.sequence.stream
        if isinstance(found, FirstQuote):
            self.counts["quoted"] += 1
            subject, body, once = self._quotes, self._encode(found.priced()), key_of(found.answer.ride_id)
        else:
            self._count_refused()
            received = came.message.data.decode(errors="backslashreplace")[:_SHOWN]
            refused = Refused(
                ride_id=came.entry.get("ride_id"), problem=found.problem, received=received, sequence=sequence
            )
            subject, body, once = self._refusals, self._encode(refused), str(sequence)
        await self._stream.publish(subject, body, headers={"Nats-Msg-Id": f"{self._name}-{once}"})

    def _count_refused(self) -> None:
        self.counts["refused"] += 1
        self._metrics.refused_messages(1)

    def _say_waiting(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            _log.warning("rides wait: %s", self._follower.why_nothing)

    def _warn(self, error: Exception) -> None:
        """Logs what is wrong; a fault that persists is logged once a minute."""
        text, now_s = str(error) or type(error).__name__, time.monotonic()
        if text != self._warned[0] or now_s - self._warned[1] > _TOLD_EVERY_S:
            self._warned = text, now_s
            _log.warning("%s: it is tried again: %s", self._address, text)

    def _tell(self) -> None:
        counts = self.counts
        told = f"; {counts['told']} outcomes" if counts["told"] else ""
        _log.info(
            "%s quoted, %s of them again; %s refused%s", *(counts[n] for n in ("quoted", "again", "refused")), told
        )
        self._told_s = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        """Waits, but not beyond the end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    @property
    def _address(self) -> str:
        return f"STREAM_URL={secrets.shown(self._settings.stream_url.get_secret_value())}"

    async def _connected(self) -> Client | None:
        """Returns a connection that reconnects by itself; None where the end came first.

        Raises:
            StreamError: The login is refused.
        """

        async def told(error: Exception) -> None:
            if isinstance(error, AuthorizationError) or "authorization" in str(error).lower():
                self._denied.set()
            else:
                self._warn(error)

        connecting = asyncio.create_task(_connection(self._settings.stream_url.get_secret_value(), self._name, told))
        waits = [asyncio.create_task(event.wait()) for event in (self._ended, self._denied)]
        await asyncio.wait([connecting, *waits], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if connecting.done():
            return connecting.result()
        connecting.cancel()
        self._ensure_let_in()
        return None

    def _ensure_let_in(self) -> None:
        """Ensures that the server has not refused the login: retrying would not help."""
        if self._denied.is_set():
            raise StreamError(f"{self._address}: expected a login that the server takes, received a refusal")


def _came(message: Msg, served: Served) -> _Came:
    """Returns what a message asks for."""
    entry: Any = None
    try:
        entry = decoded(message.data)
        return _Came(message, entry, asked_of(entry, message.metadata.timestamp.astimezone(UTC), served), None)
    except ProblemError as problem:
        return _Came(message, entry if isinstance(entry, dict) else {}, None, problem)


def _told(message: Msg, settings: StreamSettings) -> list[ToldOutcome]:
    """Returns the outcomes in a message; none where they are meant for another target's consumers.

    Raises:
        ProblemError: It contains no outcome.
    """
    entry = decoded(message.data)
    others = {target_in(settings.city, name).unit for name in get_args(TargetName) if name != settings.target}
    if isinstance(entry, dict) and entry.get("unit") in others:
        return []
    return [outcome_of(entry, message.metadata.timestamp.astimezone(UTC), settings.target_facts)]


async def _connection(address: str, name: str, told: Callable[[Exception], Awaitable[None]]) -> Client:
    """Returns a connection to a server, however long it takes until the server is there."""
    parts = urlsplit(address)
    login: dict[str, Any] = {}
    if parts.username and parts.password is None:
        login = {"token": unquote(parts.username)}
    elif parts.username:
        login = {"user": unquote(parts.username), "password": unquote(parts.password or "")}
    return await nats.connect(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        connect_timeout=3,
        error_cb=told,
        **login,
    )


async def _stream_of(stream: JetStreamContext, subject: str, name: str, keep_s: float) -> str:
    """Returns the name of the stream that keeps a subject's messages, which is created if there is none.

    Args:
        stream: The server.
        subject: The subject.
        name: Names a new stream: the subject itself, or what its subjects begin with.
        keep_s: How long a new stream keeps messages.
    """
    try:
        return await stream.find_stream_name_by_subject(subject)
    except NotFoundError:
        subjects = [subject if subject == name else f"{name}.*"]
        await stream.add_stream(name=name.replace(".", "-"), subjects=subjects, max_age=keep_s)
        return name.replace(".", "-")


async def _close(client: Client) -> None:
    """Ensures that what was sent has reached the server, if it is there, and that the connection ends."""
    # uvloop raises RuntimeError if data is left for a server that is gone.
    with suppress(NatsError, OSError, RuntimeError, TimeoutError):
        if client.is_connected:
            await asyncio.wait_for(client.flush(), _END_S)
        await client.close()
