"""`make guard`: writes nginx's configuration from the settings and becomes nginx.

Listens on GUARD_LISTEN, knows the host of DAGSTER_URL, lets GUARD_USER pass with GUARD_PASSWORD and sends the rest of
the world away. Encrypts where GUARD_CERTIFICATE and GUARD_KEY are set.
"""

import base64
import hashlib
import os
import re
import secrets
import shutil
import ssl
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from taxifare.environment import SettingsError
from taxifare.secrets import private_folder
from taxifare.settings import GuardSettings, settings_in_force

_ENCRYPTION = """ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
        ssl_session_cache shared:tls:1m;
        ssl_session_tickets off;"""
_USUAL_PORTS = {"http": 80, "https": 443}


def main() -> None:
    """Becomes nginx, which runs until it is stopped."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise SystemExit("the guard is nginx, which is not installed: apt-get install nginx")
    try:
        settings = settings_in_force()
        configuration = write_configuration(settings)
    except SettingsError as error:
        raise SystemExit(f"the guard cannot start: {error}") from None
    print(f"Guarding {settings.guard_upstream}: {settings.dagster_url} at {settings.guard_listen}", flush=True)
    os.execv(nginx, [nginx, "-p", str(configuration.parent), "-c", str(configuration)])  # noqa: S606 - nothing of it is foreign


def write_configuration(settings: GuardSettings) -> Path:
    """Returns the path of nginx's configuration, written with the login beside it, both readable by the owner only.

    No path of this machine is written into it, so that none has to be quoted: certificate and key are links beside it.

    Raises:
        SettingsError: There is no login to ask for, DAGSTER_URL is no address of a guard, or certificate and key cannot
            be used.
    """
    users = _users(settings)
    scheme, host = _address(settings.dagster_url)
    is_encrypted, is_root = settings.guard_certificate is not None, os.geteuid() == 0
    # Started by root, nginx works as nobody, who cannot look into the state folder.
    folder = Path(tempfile.mkdtemp(prefix="taxifare-guard-")) if is_root else private_folder(settings.home / "guard")
    if settings.guard_certificate is not None and settings.guard_key is not None:
        _ensure_usable(settings.guard_certificate, settings.guard_key, scheme)
        _link(folder / "certificate.pem", settings.guard_certificate)
        _link(folder / "key.pem", settings.guard_key)
    words = {
        "$LISTEN": settings.guard_listen + " ssl" * is_encrypted,
        "$ENCRYPTION": _ENCRYPTION * is_encrypted,
        "$UPSTREAM": settings.guard_upstream,
        "$HOST": host,
        "$ORIGIN": f"{scheme}://{host}",
        "$PASS": secrets.token_hex(),
    }
    text = Path(__file__).with_name("nginx.conf").read_text()
    for word, value in words.items():
        text = text.replace(word, value)
    login = _write(folder / "users", users)
    if is_root:
        for path in (folder, login):
            shutil.chown(path, "nobody")
    return _write(folder / "nginx.conf", text)


def salted_hash(password: str) -> str:
    """Returns the password as nginx's `auth_basic_user_file` takes it: {SSHA}, base64 of SHA-1 and salt.

    The strongest form that nginx itself verifies on every platform; the file is the owner's alone.
    """
    salt = os.urandom(16)
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()  # noqa: S324


def _users(settings: GuardSettings) -> str:
    """Returns the line of the one who may log in."""
    user, password = settings.guard_user, settings.guard_password
    if user is None or password is None or not user.isprintable() or {":", "#"} & set(user):
        raise SettingsError("expected GUARD_USER (one line without : and #) and GUARD_PASSWORD, both set")
    return f"{user}:{salted_hash(password.get_secret_value())}\n"


def _address(url: str) -> tuple[str, str]:
    """Returns scheme and host of the address that people open, with its port where it is not the usual one.

    >>> _address("https://Taxi.example:443/")
    ('https', 'taxi.example')

    Raises:
        SettingsError: It is not of this form; its host goes into nginx's configuration as it is.
    """
    found = re.fullmatch(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?", url)
    if found is None:
        host = urlsplit(url).hostname if "://" in url else None
        said = "a login, a path, a query or other letters" if host else "no host"
        raise SettingsError(
            "DAGSTER_URL: expected the address that people open, http(s)://host:port and nothing else, as in "
            f"https://taxi.example; received one with {said}"
        )
    scheme, host, port = found.groups()
    usual = port is None or int(port) == _USUAL_PORTS[scheme]
    return scheme, host.lower() + ("" if usual else f":{int(port)}")


def _ensure_usable(certificate: Path, key: Path, scheme: str) -> None:
    """Ensures that nginx can encrypt with them, and that people open what is encrypted."""
    for name, path in (("GUARD_CERTIFICATE", certificate), ("GUARD_KEY", key)):
        if not path.expanduser().is_file():
            raise SettingsError(f"{name}: expected a file, received {str(path)!r}, which is none")
    try:
        # A key that asks for a passphrase would ask whoever starts it, and nginx has nobody to ask.
        ssl.create_default_context().load_cert_chain(certificate.expanduser(), key.expanduser(), password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            "GUARD_CERTIFICATE, GUARD_KEY: expected a certificate and its key in PEM, without a passphrase; "
            f"OpenSSL says: {error}"
        ) from None
    if scheme != "https":
        raise SettingsError("DAGSTER_URL: expected an address that begins with https://, for GUARD_CERTIFICATE is set")


def _link(path: Path, target: Path) -> None:
    """Ensures a link: what is renewed in its place is read when nginx reloads."""
    path.unlink(missing_ok=True)
    path.symlink_to(target.expanduser().absolute())


def _write(path: Path, text: str) -> Path:
    """Returns the path, written for the owner's eyes only."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


if __name__ == "__main__":
    main()
