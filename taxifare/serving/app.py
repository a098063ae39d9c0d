"""The service: HTTP in, quotes out, as an ASGI application; what it says of itself is in `openapi`.

A request is decoded and its rides are checked as soon as it arrives; then it waits for a turn of the event loop with
whatever else has arrived (`turns`). Why there is no framework between server and application: docs/decisions.md,
under serving.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec

from taxifare.serving import invocations, openapi, problems
from taxifare.serving.asking import MOST_RIDES, Priced, Unpriced, answer_to, asked_of, decoded, only, ride_of, unfit
from taxifare.serving.bundle import BundleError
from taxifare.serving.following import Follower, Served
from taxifare.serving.metrics import CONTENT_TYPE, Metrics
from taxifare.serving.outcome_log import OutcomeLog, outcomes_of
from taxifare.serving.prediction_log import PredictionLog
from taxifare.serving.problems import ProblemError
from taxifare.serving.rides import Fault, shown
from taxifare.serving.shadow import Shadow, StagingFollower
from taxifare.serving.turns import Asked, Turns
from taxifare.trips.targets import Target

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_BYTES = 4 << 20
_CHECKED_AT_ONCE = 256
_BODY_S = 5.0
_MOST_WAITING = 512
"""Requests being answered at once; further ones are asked to come again."""

_RETRY_AFTER_S = b"1"
_JSON = b"application/json"
_OPEN_TO_ALL = frozenset({"/health/live", "/health/ready", "/ping"})

_log = logging.getLogger(__name__)


class Reply(NamedTuple):
    """An answer on its way out."""

    status: int
    body: bytes
    media_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Service:
    """The application.

    Args:
        follower: What is served.
        log: Where answers are recorded.
        outcomes: Where the outcomes of rides are recorded.
        target: What outcomes are of.
        metrics: Counts what happens.
        token: The token that requests must carry, None if none is required.
        staging: What prices in shadow, if anything.

    Attributes:
        draining: Whether the process is about to end: it says so, and lets connections go.
    """

    def __init__(
        self,
        follower: Follower,
        log: PredictionLog,
        outcomes: OutcomeLog,
        target: Target,
        metrics: Metrics,
        token: str | None,
        staging: StagingFollower | None = None,
    ) -> None:
        self.draining = False
        self._follower, self._log, self._metrics = follower, log, metrics
        self._outcomes, self._target = outcomes, target
        self._bearer = None if token is None else f"Bearer {token}".encode()
        self._turns = Turns(follower, log, metrics)
        self._waiting = 0
        self._shadow = None if staging is None else Shadow(staging, log, metrics, lambda: self._waiting > 0)
        self._encode = msgspec.json.Encoder().encode
        self._posts: Final[Mapping[str, Callable[[bytes], Awaitable[Reply]]]] = {
            "/predict": self._predict,
            "/predict/batch": self._predict_batch,
            "/invocations": self._invocations,
            "/outcomes": self._keep_outcomes,
        }
        self._gets: Final[Mapping[str, Callable[[], Reply]]] = {
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/ping": self._ready,
            "/model": self._model,
            "/metrics": self._told_metrics,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or handles the start and end of the process."""
        if scope["type"] == "lifespan":
            await self._live_through(receive, send)
            return
        began_s = perf_counter()
        path = scope["path"]
        self._waiting += 1
        try:
            reply = await self._replied(scope, path, receive)
        except ProblemError as error:
            reply = self._problem(error)
        except BundleError as error:
            _log.error("a ride that is in order was not priced: %s", error)
            reply = self._problem(
                ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "the model in production does not predict")
            )
        finally:
            self._waiting -= 1
        await self._send(reply, send)
        self._metrics.request(path if path in self._posts or path in self._gets else "other", reply.status, began_s)

    async def _replied(self, scope: Scope, path: str, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        if self._bearer is not None and path not in _OPEN_TO_ALL:
            _ensure_token(headers, self._bearer)
        post, method = self._posts.get(path), scope["method"]
        if post is not None:
            if method != "POST":
                raise _not_allowed(b"POST")
            if self._waiting > _MOST_WAITING:
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{_MOST_WAITING:,} requests are waiting already",
                    headers=((b"retry-after", _RETRY_AFTER_S),),
                )
            _ensure_json(headers)
            return await post(await _body(headers, receive))
        get = self._gets.get(path)
        if get is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is nothing here; /docs says what there is")
        if method not in {"GET", "HEAD"}:
            raise _not_allowed(b"GET, HEAD")
        return get()

    async def _send(self, reply: Reply, send: Send) -> None:
        headers = [
            (b"content-type", reply.media_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _problem(self, error: ProblemError) -> Reply:
        return Reply(error.problem.status, self._encode(error.problem), problems.MEDIA_TYPE, error.headers)

    async def _predict(self, body: bytes) -> Reply:
        asked = asked_of(decoded(body), datetime.now(UTC), self._follower.served())
        quote = await self._turns.quote(asked)
        self._offer([asked], quote.served)
        return Reply(200, self._encode(answer_to(asked, quote)))

    async def _predict_batch(self, body: bytes) -> Reply:
        received_at, served = datetime.now(UTC), self._follower.served()
        entries = only(decoded(body), ("rides",))["rides"]
        _ensure_rides(entries, "rides")
        answers: list[Priced | Unpriced | None] = []
        good: list[Asked] = []
        for number, entry in enumerate(entries):
            if number % _CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # let others have their turn
            try:
                good.append(asked_of(entry, received_at, served))
                answers.append(None)
            except ProblemError as error:
                answers.append(
                    Unpriced(ride_id=entry.get("ride_id") if isinstance(entry, dict) else None, problem=error.problem)
                )
        quotes = await self._turns.quote_all(good, served)
        self._offer(good, served)
        priced = iter([answer_to(asked, quote) for asked, quote in zip(good, quotes, strict=True)])
        whole = {
            "model_version": served.version,
            "sequence": served.sequence,
            "answers": [next(priced) if answer is None else answer for answer in answers],
        }
        return Reply(200, self._encode(whole))

    async def _invocations(self, body: bytes) -> Reply:
        received_at, served = datetime.now(UTC), self._follower.served()
        call = invocations.read(decoded(body))
        _ensure_rides(call.rows, "rows")
        request = uuid4().hex
        asked, errors = [], []
        for number, row in enumerate(call.rows):
            try:
                asked.append(Asked(f"{request}-{number}", row, ride_of(row, served), received_at))
            except ProblemError as error:
                errors += [
                    Fault(f"row {number}: {fault.field}", fault.expected, fault.received)
                    for fault in error.problem.errors
                ]
        if errors:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "rows that cannot be priced; /predict/batch prices the others",
                errors[:100],
            )
        quotes = await self._turns.quote_all(asked, served)
        self._offer(asked, served)
        told = {"predictions": [quote.corrected if call.corrected else quote.fare for quote in quotes]}
        # MLflow's form has no place for it.
        return Reply(200, self._encode(told), headers=((b"model-version", served.version.encode()),))

    async def _keep_outcomes(self, body: bytes) -> Reply:
        told = outcomes_of(decoded(body), datetime.now(UTC), self._target)
        lost = self._outcomes.lost
        self._outcomes.append(told)
        if self._outcomes.lost > lost:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"outcomes cannot be kept: {self._outcomes.fault}; tell them again",
                headers=((b"retry-after", _RETRY_AFTER_S),),
            )
        self._metrics.told_outcomes(len(told))
        return Reply(200, self._encode({"kept": len(told)}))

    def _offer(self, asked: Sequence[Asked], served: Served) -> None:
        """Ensures that the version in shadow prices, when there is time, what `served` has priced."""
        if self._shadow is not None:
            self._shadow.offer(asked, served)

    def _live(self) -> Reply:
        return Reply(200, b'{"status":"live"}')

    def _ready(self) -> Reply:
        if self.draining:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "this process is about to end")
        self._follower.served()
        return Reply(200, b'{"status":"ready"}')

    def _model(self) -> Reply:
        facts = self._follower.facts() | {
            "prediction_log": {"written": self._log.written, "lost": self._log.lost, "fault": self._log.fault},
            "outcome_log": {"written": self._outcomes.written, "fault": self._outcomes.fault},
            "shadow": None if self._shadow is None else self._shadow.facts(),
        }
        return Reply(200, self._encode(facts))

    def _told_metrics(self) -> Reply:
        return Reply(200, self._metrics.told(), CONTENT_TYPE)

    def _openapi(self) -> Reply:
        return Reply(200, self._encode(self._described()))

    def _docs(self) -> Reply:
        return Reply(200, openapi.page(self._described()), b"text/html; charset=utf-8")

    def _described(self) -> Mapping[str, Any]:
        served = self._follower.current
        return openapi.document(None if served is None else served.bundle.manifest, self._target)

    async def _live_through(self, receive: Receive, send: Send) -> None:
        await receive()
        tidying = [asyncio.create_task(log.keep_tidy()) for log in (self._log, self._outcomes)]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tidying:
            task.cancel()
        self._follower.stop()
        if self._shadow is not None:
            self._shadow.end()
        self._log.close()
        self._outcomes.close()
        await send({"type": "lifespan.shutdown.complete"})


def _ensure_token(headers: Mapping[bytes, bytes], bearer: bytes) -> None:
    if not hmac.compare_digest(headers.get(b"authorization", b""), bearer):
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED,
            "expected the header `Authorization: Bearer …` with the token of this service",
            headers=((b"www-authenticate", b"Bearer"),),
        )


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """Returns what was sent.

    Raises:
        ProblemError: It is too much, or does not arrive in time.
    """
    announced = headers.get(b"content-length", b"0")
    if len(announced) > 12 or int(announced) > _MOST_BYTES:
        raise _too_large()
    message = await _received(receive)
    if not message["more_body"]:
        return bytes(message["body"])
    chunks, length = [message["body"]], len(message["body"])
    try:
        async with asyncio.timeout(_BODY_S):
            while message["more_body"]:
                message = await _received(receive)
                chunks.append(message["body"])
                length += len(message["body"])
                if length > _MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"expected the whole request within {_BODY_S:.0f} s, received {length:,} bytes",
            headers=((b"connection", b"close"),),
        ) from None
    return b"".join(chunks)


async def _received(receive: Receive) -> MutableMapping[str, Any]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the client went away")
    return message


def _too_large() -> ProblemError:
    # The rest of what was sent is not read, so the connection cannot be used again.
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"expected at most {_MOST_BYTES:,} bytes and {MOST_RIDES:,} rides",
        headers=((b"connection", b"close"),),
    )


def _ensure_json(headers: Mapping[bytes, bytes]) -> None:
    """Ensures that the request is declared as JSON."""
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if media_type.strip() != b"application/json" or charset not in {b"", b"utf-8"} or b"content-encoding" in headers:
        received = headers.get(b"content-type", b"nothing").decode("latin-1")
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "expected the header `Content-Type: application/json`, and no Content-Encoding",
            (Fault("Content-Type", "application/json", shown(received)),),
        )


def _ensure_rides(rides: Any, name: str) -> None:
    if not isinstance(rides, list) or not rides:
        raise unfit([Fault(name, "a list of at least one ride", shown(rides))])
    if len(rides) > MOST_RIDES:
        raise _too_large()


def _not_allowed(methods: bytes) -> ProblemError:
    return ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {methods.decode()}", headers=((b"allow", methods),))
