"""Secrets: what no error, log, record or page shows.

A setting that holds one is known here from the moment it is read, and `redacted` takes all that are known out of a
text. So foreign words – a server's answer that repeats what it was sent, a library's message – can be passed on. An
address is shown by `shown`, which needs no such knowledge. Errors of ours do both by themselves, see
`taxifare.errors`; only a text that is cut has to be redacted before it is.

Why a process knows its secrets in one place: docs/decisions.md, under secrets, texts, bounds.
"""

import base64
import html
import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "…"

_SHORTEST = 4
"""Anything shorter would be found in every other word, and is no secret."""

_SHORTEST_WITHIN_WORDS = 8
"""What is shorter is taken out as a word of its own only: the password `taxi` leaves `taxifare` as it is."""

_NO_SECRETS = frozenset({"application_name", "dbname", "host", "hostaddr", "options", "port", "sslmode", "user"})
"""Parts of a query that say where a database is, and how it is talked to."""

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^@/?#]*@)?(?P<place>[^@?#]*)[^@]*", re.IGNORECASE)

_known: set[str] = set()


def remember(secret: str) -> None:
    """Ensures that `redacted` hides a text all of which is secret: a key, a password, addresses to post to."""
    _learn(secret)
    for address in secret.split() if "://" in secret else ():
        remember_address(address)
        path = address.partition("://")[2].partition("/")[2]
        for part in (address, path, path.partition("?")[0].rpartition("/")[2]):
            if len(part) >= _SHORTEST_WITHIN_WORDS:
                _learn(part)


def remember_address(url: str) -> None:
    """Ensures that `redacted` hides the login and the query of an address."""
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
    except ValueError:  # no address; whoever uses it will say so
        _learn(url)
        return
    _learn(password)
    _learn(parts.query)
    if parts.scheme in {"http", "https"}:
        _learn(user)
        remember_login(unquote(user), unquote(password))
    for name, value in parse_qsl(parts.query):
        if name not in _NO_SECRETS:
            _learn(value)


def remember_login(user: str, password: str) -> None:
    """Ensures that `redacted` hides a password, and the login as HTTP sends it."""
    if user or password:
        _learn(password)
        _learn(base64.b64encode(f"{user}:{password}".encode()).decode())


def redacted(text: str) -> str:
    """Returns the text with every secret that is known taken out, however it is encoded.

    >>> remember_address("https://ada:open+sesame@example.org/trips?sig=a%2Fb%2Fc%2Fd")
    >>> redacted("no such page: /trips?sig=a/b/c/d, said to open%2Bsesame")
    'no such page: /trips?…, said to …'
    """
    return _pattern(frozenset(_known)).sub(HIDDEN, text) if _known else text


def shown(url: str) -> str:
    """Returns an address without login and query, which may be secret; of one that is none, as good as nothing.

    >>> shown("https://ada:sesame@example.org:8080/trips.csv?token=sesame")
    'https://example.org:8080/trips.csv'
    >>> shown("postgresql://ada:ses@me/1@example.org/ledger")
    'postgresql://…'
    """
    found = _ADDRESS.fullmatch(url)
    if found is not None:
        return found["scheme"] + found["place"]
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://{HIDDEN}" if separator else url.partition("?")[0].rpartition("@")[2]


def login_in(url: str) -> tuple[str, str] | None:
    """Returns user and password of a web address that has both, for those who send them otherwise.

    >>> login_in("https://ada:open%20sesame@example.org")
    ('ada', 'open sesame')
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.username or not parts.password:
        return None
    return unquote(parts.username), unquote(parts.password)


def below(url: str, path: str) -> str:
    """Returns the address of what lies below another, with the same query: one that is signed gives access to all.

    >>> below("https://example.org/taxi/?sig=sesame", "misc/zones.zip")
    'https://example.org/taxi/misc/zones.zip?sig=sesame'
    """
    place, separator, query = url.partition("?")
    return f"{place.rstrip('/')}/{path}{separator}{query}"


def private_folder(folder: Path) -> Path:
    """Returns the folder, which is there: made for its owner's eyes only where it was missing, as those above it."""
    for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def _learn(secret: str) -> None:
    """Ensures that a secret is known in every form in which a server may repeat it."""
    if len(secret) >= _SHORTEST:
        for plain in {secret, unquote(secret)}:
            forms = {plain, quote(plain), quote(plain, safe=""), quote_plus(plain), html.escape(plain)}
            _known.update(forms | {json.dumps(plain)[1:-1], plain.replace("/", r"\/")})


@cache
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    """Returns what any of the secrets looks like, the longest first."""
    forms = sorted(secrets, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(_form, forms)), re.IGNORECASE)


def _form(secret: str) -> str:
    escaped = re.escape(secret)
    return escaped if len(secret) >= _SHORTEST_WITHIN_WORDS else rf"(?<!\w){escaped}(?!\w)"
