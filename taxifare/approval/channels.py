"""Channels: the ways in which a message reaches people, one class each."""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Protocol
from urllib.parse import quote, urlsplit

import requests

from taxifare.bounds import beginning, parsed_json, within
from taxifare.errors import ToldError
from taxifare.secrets import below, redacted, shown
from taxifare.settings import AskingSettings

TIMEOUT_S = 5

LONGEST_ANSWER_S = 30.0
MOST_BYTES_OF_CHANNEL = 1 << 24
"""How much of a channel is searched for a message; a chat that sends more counts as one that cannot be read."""

_CHUNK_BYTES = 1 << 12

PASSING_STATUS = frozenset({408, 425, 429})


class DeliveryError(ToldError, RuntimeError):
    """A message that could not be delivered, and will not be by trying again."""


class PassingDeliveryError(DeliveryError):
    """A message that could not be delivered now: no connection, no answer in time, or a server in trouble."""


@dataclass(frozen=True)
class Message:
    """A text to deliver.

    Attributes:
        key: Its last line, by which it is recognised in a channel.
        text: All of it, as plain text.
        links: The links in it, name and address; in the text they are `name: address`.
    """

    key: str
    text: str
    links: tuple[tuple[str, str], ...] = ()


class Notifier(Protocol):
    """A way to reach people."""

    @property
    def channel(self) -> str:
        """Where messages go; deliveries are recorded under it."""

    def deliver(self, message: Message) -> None:
        """Delivers a message, in one attempt; raises PassingDeliveryError or DeliveryError."""


class WatchedLog:
    """Shows messages in a log that people look at: that of the sending run, where no channel is set."""

    channel = "run log"

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def deliver(self, message: Message) -> None:
        """Logs the message."""
        self._log.info("No channel is set, so this is shown here:\n%s", message.text)


class WagonChat:
    """Posts messages to a channel of the Wagon chat: `POST {base_url}/{channel}/messages` with author and content."""

    def __init__(self, base_url: str, channel: str, author: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = below(base_url, f"{quote(channel, safe='')}/messages")
        self._author = author
        self._timeout_s = timeout_s

    @property
    def channel(self) -> str:
        """The address of the channel's messages, without a login or a key in it."""
        return shown(self._url)

    def deliver(self, message: Message) -> None:
        """Posts the message, unless it is in the channel already.

        Raises:
            PassingDeliveryError: No connection, no answer in time, 429 or 5xx.
            DeliveryError: Any other refusal; names the address and the status.
        """
        if self._shows(message.key):
            return
        content = {"author": self._author, "content": message.text}
        _post(self._url, content, message.key, shown_as=self.channel, timeout_s=self._timeout_s)

    def _shows(self, key: str) -> bool:
        """Whether the channel is known to show the message; a chat that cannot be read does not."""
        try:
            with requests.get(self._url, timeout=self._timeout_s, allow_redirects=False, stream=True) as answer:
                chunks = within(answer.iter_content(_CHUNK_BYTES), MOST_BYTES_OF_CHANNEL, LONGEST_ANSWER_S)
                found = parsed_json(b"".join(chunks)) if answer.ok else []
        except (requests.RequestException, ValueError):
            return False
        posts = found.get("messages", []) if isinstance(found, dict) else found
        return isinstance(posts, list) and any(key in _lines(post) for post in posts)


def _lines(post: object) -> list[str]:
    content = post.get("content") if isinstance(post, dict) else None
    return content.splitlines() if isinstance(content, str) else []


class SlackWebhook:
    """Posts messages to an incoming webhook of Slack, or of Mattermost, Rocket.Chat and others that speak its format.

    The address is a secret: whoever knows it can post. Records and errors name its host and a hash of it.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._timeout_s = timeout_s

    @property
    def channel(self) -> str:
        """The webhook's host, and what distinguishes it from others there."""
        return f"webhook {urlsplit(self._url).hostname} {_fingerprint(self._url)}"

    def deliver(self, message: Message) -> None:
        """Posts the message, its first line bold and its links by name.

        Raises:
            PassingDeliveryError: No connection, no answer in time, 429 or 5xx.
            DeliveryError: Any other refusal.
        """
        _post(
            self._url, {"text": in_slack_format(message)}, message.key, shown_as=self.channel, timeout_s=self._timeout_s
        )


class Service:
    """Sends messages through apprise: mail, Teams, Telegram, Discord and a hundred others, by their apprise address."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def channel(self) -> str:
        """The service, and what distinguishes its address from others; the address itself may hold a password."""
        return f"{urlsplit(self._url).scheme} {_fingerprint(self._url)}"

    def deliver(self, message: Message) -> None:
        """Sends the message with its first line as the title.

        Raises:
            DeliveryError: The address is not one of apprise's.
            PassingDeliveryError: The service did not take it; apprise does not say why.
        """
        import apprise

        # It logs addresses that it does not know, and a redirect could send the message, which has tokens, anywhere.
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        service = apprise.Apprise(asset=apprise.AppriseAsset(http_redirects=False))
        if not service.add(self._url):
            raise DeliveryError(f"{self.channel}: not an address that apprise knows")
        title, _, body = message.text.partition("\n")
        if not service.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
            raise PassingDeliveryError(f"{self.channel}: the service did not take the message")


_NO_MARKUP = re.compile(r"`|\]\(|@(?=(?:all|channel|everyone|here)\b)")
"""Code, links and mentions of everybody, which a name or a reason could contain: Mattermost reads more than Slack."""


def _defused(markup: re.Match[str]) -> str:
    return "'" if markup[0] == "`" else " ".join(markup[0]) if markup[0] == "](" else f"{markup[0]} "


def in_slack_format(message: Message) -> str:
    r"""The message in Slack's markup: the first line bold, links by name, nothing else read as markup.

    >>> url = "https://x.example/?a=1&b"
    >>> print(in_slack_format(Message("key", f"A < B\nSee: {url}\nkey", (("See", url),))))
    *A &lt; B*
    <https://x.example/?a=1&amp;b|See>
    key
    """
    text = _NO_MARKUP.sub(_defused, escape(message.text, quote=False))
    for label, url in message.links:
        text = text.replace(escape(f"{label}: {url}", quote=False), f"<{escape(url, quote=False)}|{label}>")
    first, _, rest = text.partition("\n")
    return f"*{first}*\n{rest}"


def _post(url: str, content: Mapping[str, str], key: str, *, shown_as: str, timeout_s: float) -> None:
    """Posts JSON, in one attempt; raises PassingDeliveryError or DeliveryError, which call the address `shown_as`."""
    try:
        answer = requests.post(
            url, json=content, headers={"Idempotency-Key": key}, timeout=timeout_s, allow_redirects=False, stream=True
        )
        with answer:
            said = beginning(answer.iter_content(_CHUNK_BYTES), _CHUNK_BYTES).decode("utf-8", "replace")
    except requests.RequestException as error:
        # An invalid address stays invalid; whatever else happens between two machines may pass.
        fault = DeliveryError if isinstance(error, ValueError) else PassingDeliveryError
        # The transport's own words, and its traceback, would reveal the address.
        raise fault(f"POST {shown_as}: {type(error).__name__}") from None
    if answer.ok and not answer.is_redirect:
        return
    passing = answer.status_code >= 500 or answer.status_code in PASSING_STATUS
    fault = PassingDeliveryError if passing else DeliveryError
    said = redacted(f"{answer.reason}: {said}")
    raise fault(f"POST {shown_as} answered {answer.status_code} {said[:200]}")


def _fingerprint(secret: str) -> str:
    """What distinguishes a secret from others without revealing it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def notifiers(settings: AskingSettings) -> tuple[Notifier, ...]:
    """Every way in which, by the settings, people are reached; none where no channel is set."""
    found: list[Notifier] = []
    if settings.chat_base_url is not None and settings.chat_channel is not None:
        url = settings.chat_base_url.get_secret_value()
        found.append(WagonChat(url, settings.chat_channel, settings.chat_author))
    if settings.slack_webhook_url is not None:
        found.append(SlackWebhook(settings.slack_webhook_url.get_secret_value()))
    if settings.notify_urls is not None:
        found += map(Service, settings.notify_urls.get_secret_value().split())
    return tuple(found)
