"""Where each setting comes from: the environment, `.env` or its default, and whether it differs from that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from taxifare.environment import Origin, is_secret, origins
from taxifare.settings import Settings, sections, written

NOT_SHOWN = "set, not shown"
"""What stands in place of a secret."""


@dataclass(frozen=True)
class KnownSetting:
    """A setting as it is in force.

    Attributes:
        name: As it is written in `.env`.
        section: What it serves.
        says: What it is.
        value: In force, as it is written; a secret is not shown.
        origin: Where that comes from.
        default: What is in force where nobody sets it.
        differs: Whether the value is another than that.
    """

    name: str
    section: str
    says: str
    value: str
    origin: Origin | Literal["default"]
    default: str
    differs: bool


def known_settings(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str | None]
) -> list[KnownSetting]:
    """Returns every setting, in the order of `.env.sample`.

    Args:
        settings: In force.
        environment: The environment variables that they were read from.
        file: What `.env` says.
    """
    in_environment, in_file = ({name.lower(): value for name, value in them.items()} for them in (environment, file))
    set_in = origins(environment, file)
    found = []
    for section, names in sections().items():
        for name in names:
            field, value = Settings.model_fields[name], getattr(settings, name)
            # A city is read from its name.
            differs = (str(value) if name == "city" else value) != field.default
            told = in_environment.get(name, in_file.get(name))
            shown = written(field.default) if told is None else told
            origin: Origin | Literal["default"] = set_in.get(name, "default")
            if differs and is_secret(Settings, name):
                shown = NOT_SHOWN
            description = field.description or ""
            found.append(
                KnownSetting(name.upper(), section, description, shown, origin, written(field.default), differs)
            )
    return found
