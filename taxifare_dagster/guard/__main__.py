"""`make guard`: writes nginx's configuration from the settings and becomes nginx.

Listens on GUARD_LISTEN, knows the host of DAGSTER_URL, lets GUARD_USER pass with GUARD_PASSWORD and sends the rest of
the world away. Encryption is the business of whatever ends TLS before it.
"""

import base64
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from taxifare.secrets import private_folder
from taxifare.settings import GuardSettings, settings_in_force


def main() -> None:
    """Becomes nginx, which runs until it is stopped."""
    settings = settings_in_force()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise SystemExit("the guard is nginx, which is not installed: apt-get install nginx")
    configuration = write_configuration(settings)
    print(f"Guarding {settings.guard_upstream}: {settings.dagster_url} at {settings.guard_listen}", flush=True)
    os.execv(nginx, [nginx, "-p", str(configuration.parent), "-c", str(configuration)])  # noqa: S606 - nothing of it is foreign


def write_configuration(settings: GuardSettings) -> Path:
    """Returns the path of nginx's configuration, written with the login beside it, both readable by the owner only.

    Raises:
        SystemExit: There is no login to ask for.
    """
    if settings.guard_user is None or settings.guard_password is None or ":" in settings.guard_user:
        raise SystemExit("the guard needs GUARD_USER (without a colon) and GUARD_PASSWORD")
    address, is_root = urlsplit(settings.dagster_url), os.geteuid() == 0
    # Started by root, nginx works as nobody, who cannot look into the state folder.
    folder = Path(tempfile.mkdtemp(prefix="taxifare-guard-")) if is_root else private_folder(settings.home / "guard")
    text = Path(__file__).with_name("nginx.conf").read_text()
    words = {
        "$FOLDER": str(folder),
        "$LISTEN": settings.guard_listen,
        "$UPSTREAM": settings.guard_upstream,
        "$HOST": str(address.hostname),
        "$ORIGIN": f"{address.scheme}://{address.netloc}",
    }
    for word, value in words.items():
        text = text.replace(word, value)
    users = _write(
        folder / "users", f"{settings.guard_user}:{salted_hash(settings.guard_password.get_secret_value())}\n"
    )
    if is_root:
        for path in (folder, users):
            shutil.chown(path, "nobody")
    return _write(folder / "nginx.conf", text)


def salted_hash(password: str) -> str:
    """Returns the password as nginx's `auth_basic_user_file` takes it: {SSHA}, base64 of SHA-1 and salt.

    The strongest form that nginx itself verifies on every platform; the file is the owner's alone.
    """
    salt = os.urandom(16)
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()  # noqa: S324


def _write(path: Path, text: str) -> Path:
    """Returns the path, written for the owner's eyes only."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


if __name__ == "__main__":
    main()
