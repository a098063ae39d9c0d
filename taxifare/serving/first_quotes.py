"""First quotes: a ride's first quote remains its quote, whoever prices it again, with whatever model.

They are kept in a JetStream key-value bucket, one key per ride. The server allows a key to be created only once, so of
several consumers that price a ride at the same time one is first, and all send its quote.
"""

import hashlib
from typing import Self

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from taxifare.serving.asking import Priced
from taxifare.serving.prediction_log import Answer


class FirstQuote(msgspec.Struct, frozen=True):
    """The first quote of a ride: the line of the log, and the warnings to the client."""

    answer: Answer
    warnings: tuple[str, ...]

    def priced(self) -> Priced:
        """Returns it as it is sent, the same each time."""
        answer = self.answer
        return Priced(
            ride_id=answer.ride_id,
            fare=answer.fare,
            upper=answer.upper,
            corrected=answer.corrected,
            quoted=answer.quoted,
            unit=answer.unit,
            model_version=answer.version,
            sequence=answer.sequence,
            warnings=self.warnings,
        )


_read = msgspec.json.Decoder(FirstQuote).decode


class FirstQuotes:
    """Remembers them. Errors of nats are raised when the server is away."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    @classmethod
    async def open(cls, stream: JetStreamContext, name: str, keep_s: float) -> Self:
        """Returns those of a bucket, which is created if missing."""
        try:
            return cls(await stream.key_value(name))
        except BucketNotFoundError:
            return cls(await stream.create_key_value(bucket=name, ttl=keep_s))

    async def kept(self, quote: FirstQuote) -> tuple[FirstQuote, bool]:
        """Returns the first quote of the ride, and whether it is this one."""
        key = key_of(quote.answer.ride_id)
        try:
            await self._bucket.create(key, msgspec.json.encode(quote))
        except KeyWrongLastSequenceError:
            found = await self._bucket.get(key)
            return _read(found.value or b""), False
        return quote, True

    async def of(self, ride_id: str | int) -> FirstQuote | None:
        """Returns the first quote of a ride, None where it has none."""
        try:
            found = await self._bucket.get(key_of(ride_id))
        except KeyNotFoundError:
            return None
        return _read(found.value or b"")


def key_of(ride_id: str | int) -> str:
    """Returns a ride's key, for which only some characters are allowed; as on the log, 7 and "7" are one ride.

    >>> key_of(7) == key_of("7"), len(key_of("a ride of many words"))
    (True, 64)
    """
    return hashlib.sha256(str(ride_id).encode()).hexdigest()
