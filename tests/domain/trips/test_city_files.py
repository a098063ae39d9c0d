"""City files: the project's own cities are what they were, one's own is read, and what is wrong with one is said."""

import os
import re
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from taxifare.environment import SettingsError
from taxifare.settings import Settings, TrainingSettings, read_settings
from taxifare.training.recipe import fingerprint
from taxifare.trips.cities import Airport, City, Rule
from taxifare.trips.city_files import CityFileError, Currency, city_named, read_city, shipped
from taxifare.trips.meters import MeterStep
from taxifare.trips.targets import DURATION, FARE
from tests.support.cities import SAINT_DENIS
from tests.support.places import REPOSITORY

PLAIN: dict[str, Any] = yaml.safe_load(SAINT_DENIS.read_text())

# The project's own


def test_new_york_is_what_it_was_when_it_stood_in_the_code() -> None:
    assert shipped("new-york").facts == City(
        name="New York",
        longitude_range_deg=(-74.3, -73.7),
        latitude_range_deg=(40.5, 40.9),
        grid_angle_deg=29.0,
        airports=(
            Airport("JFK", -73.7781, 40.6413, radius_km=2.5),
            Airport("LGA", -73.8740, 40.7769, radius_km=1.6),
            Airport("EWR", -74.1745, 40.6895, radius_km=2.5),
        ),
        rules=(
            Rule("tolls_2010_12", date(2010, 12, 31), "Bridge and tunnel tolls 4.57 to 4.80 USD"),
            Rule(
                "fares_2012_09",
                date(2012, 9, 4),
                "0.40 to 0.50 USD a unit, JFK flat fare 45 to 52 USD, Newark surcharge 15 to 17.50",
            ),
            Rule("tolls_2013_03", date(2013, 3, 3), "Bridge and tunnel tolls 4.80 to 5.33 USD"),
            Rule("tolls_2015_03", date(2015, 3, 22), "Bridge and tunnel tolls 5.33 to 5.54 USD"),
        ),
        max_passengers=7,
        night_hours=(20, 6),
        rush_hours=(16, 20),
    )


def test_chicago_is_what_it_was_when_it_stood_in_the_code() -> None:
    assert shipped("chicago").facts == City(
        name="Chicago",
        longitude_range_deg=(-87.95, -87.52),
        latitude_range_deg=(41.64, 42.03),
        grid_angle_deg=0.0,
        airports=(
            Airport("ORD", -87.9048, 41.9786, radius_km=2.5),
            Airport("MDW", -87.7522, 41.7868, radius_km=1.8),
        ),
        rules=(Rule("fares_2016_01", date(2016, 1, 1), "1.80 to 2.25 USD a mile, about 15 % a ride"),),
        max_passengers=7,
        night_hours=(20, 6),
        rush_hours=(16, 19),
    )


def test_their_clocks_currencies_and_meters_are_too() -> None:
    new_york, chicago = shipped("new-york"), shipped("chicago")
    assert (new_york.time_zone, chicago.time_zone) == ("America/New_York", "America/Chicago")
    assert new_york.currency == chicago.currency == Currency("USD", "cents")
    assert new_york.meter == (
        MeterStep(date(2004, 5, 3), first_usd=2.50, step_usd=0.40),
        MeterStep(date(2012, 9, 4), first_usd=2.50, step_usd=0.50),
        MeterStep(date(2022, 12, 19), first_usd=3.00, step_usd=0.70),
    )
    assert chicago.meter == ()
    for name in ("new-york", "chicago"):
        assert TrainingSettings(city=name).target_facts == FARE
        assert TrainingSettings(city=name, target="duration").target_facts == DURATION


@pytest.mark.parametrize(
    ("city", "target", "then"),
    [
        ("new-york", "fare", "842c01f4a89c38a2"),
        ("new-york", "duration", "7fb0606caee46a3b"),
        ("chicago", "fare", "4d79becacef7220b"),
        ("chicago", "duration", "00ca95e78b69cf63"),
    ],
)
def test_their_trainings_are_called_what_they_were(city: str, target: str, then: str) -> None:
    """Written down by the code of 3630895. Where a setting, a number or the network changes, this has had its time."""
    assert fingerprint(TrainingSettings(city=city, target=target)) == then


# One's own


def test_a_city_of_one_s_own_is_all_that_its_file_says() -> None:
    city = read_city(SAINT_DENIS)
    assert (city.slug, city.time_zone, city.currency) == ("saint-denis", "Indian/Reunion", Currency("EUR", "cents"))
    assert city.facts.airports == (Airport("RUN", 55.5103, -20.8871, radius_km=2.0),)
    assert city.facts.rules == (Rule("fares_2024_02", date(2024, 2, 1), "2.00 to 2.20 EUR a km"),)
    settings = Settings(_env_file=None, city=str(SAINT_DENIS), trip_source="folder", trip_folder=Path("trips"))
    assert (settings.target_facts.unit, settings.target_facts.most) == ("EUR", 250.0)
    assert (settings.city_facts, settings.time_zone, settings.meter) == (city.facts, city.time_zone, city.meter)
    assert settings.registered_model == "taxifare-saint-denis"


class _Plain(yaml.SafeDumper):
    """Writes a value that stands in two places twice."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def written(folder: Path, **changes: Any) -> Path:
    """The file with some fields changed; those that are `...` are left out."""
    fields = {name: value for name, value in (PLAIN | changes).items() if value is not ...}
    path = folder / "city.yaml"
    path.write_text(yaml.dump(fields, Dumper=_Plain, sort_keys=False, allow_unicode=True))
    return path


def test_a_file_that_is_moved_is_the_same_city_and_a_corrected_one_another_training(tmp_path: Path) -> None:
    then = TrainingSettings(city=str(SAINT_DENIS))
    moved = TrainingSettings(city=str(written(tmp_path)))
    assert (moved.city.slug, fingerprint(moved)) == (then.city.slug, fingerprint(then))
    corrected = TrainingSettings(city=str(written(tmp_path, max_passengers=6)))
    assert corrected.city.slug == then.city.slug
    assert fingerprint(corrected) != fingerprint(then)


def test_what_need_not_be_there_may_be_absent_or_empty(tmp_path: Path) -> None:
    optional = ("airports", "rules", "meter", "street_angle_deg")
    bare = read_city(written(tmp_path, currency={"name": "JPY"}, **dict.fromkeys(optional, ...)))
    assert (bare.facts.airports, bare.facts.rules, bare.facts.grid_angle_deg, bare.meter) == ((), (), 0.0, ())
    assert bare.currency == Currency("JPY", None)


def test_rules_and_steps_may_stand_in_any_order(tmp_path: Path) -> None:
    rules = [
        {"name": f"fares_{year}", "since": f"{year}-01-01", "description": "dearer"} for year in (2024, 2019, 2022)
    ]
    meter = [{"since": date(year, 1, 1), "first_fare": 3.0, "step": 0.1} for year in (2023, 2020)]
    city = read_city(written(tmp_path, rules=rules, meter=meter))
    assert [rule.since.year for rule in city.facts.rules] == [2019, 2022, 2024]
    assert [step.since.year for step in city.meter] == [2020, 2023]


def test_what_yaml_makes_of_a_text_is_not_made(tmp_path: Path) -> None:
    """`NO` is no truth value, a quoted day is a day, and a name may be a number."""
    text = SAINT_DENIS.read_text().replace("name: Saint-Denis", "name: NO").replace("2024-02-01", "'2024-02-01'")
    path = tmp_path / "city.YML"
    path.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
    city = read_city(path)
    assert city.facts.name == "NO"
    assert city.facts.rules[0].since == date(2024, 2, 1)


# What is wrong

BOX = {"west": 55.35, "east": 55.65, "south": -21.0, "north": -20.85}
AIRPORT = {"code": "RUN", "longitude_deg": 55.5103, "latitude_deg": -20.8871, "radius_km": 2}
RULE = {"name": "fares_2024_02", "since": "2024-02-01", "description": "dearer"}
STEP = {"since": "2020-01-01", "first_fare": 3.0, "step": 0.1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slug": ...}, "slug: expected a value, received none"),
        ({"slug": None}, "slug: expected a text, received nothing"),
        (
            {"slug": "Saint Denis"},
            "slug: expected small letters, .* as in saint-denis, received 'Saint Denis'",
        ),
        ({"slug": "../x"}, "slug: expected small letters, .*, received '../x'"),
        ({"slug": "x" * 41}, "slug: expected a text of at most 40 characters"),
        ({"name": ["a"]}, r"line 2, name: expected a text, received \['a'\]"),
        ({"name": "   "}, "name: expected a text, received '   '"),
        (
            {"time_zone": "Mars/Olympus"},
            "time_zone: expected the name of a time zone as in .*, received 'Mars/Olympus'",
        ),
        ({"time_zone": "../../etc/passwd"}, "time_zone: expected the name of a time zone"),
        ({"time_zone": ""}, "time_zone: expected the name of a time zone"),
        ({"time_zone": "localtime"}, "time_zone: expected the name of a time zone"),
        ({"time_zone": "Factory"}, "time_zone: expected the name of a time zone"),
        ({"time_zone": "right/America/New_York"}, "time_zone: expected the name of a time zone"),
        ({"time_zone": "America"}, "time_zone: expected the name of a time zone"),
        ({"currency": "EUR"}, "currency: expected fields with values, received 'EUR'"),
        ({"currency": {"name": "euro"}}, "currency.name: expected three capital letters, as in EUR, received 'euro'"),
        ({"currency": {"name": "MIN"}}, "currency.name: expected the code of a currency, received MIN, which are min"),
        ({"highest_fare": 0}, "highest_fare: expected more than 0.0, received '0'"),
        ({"highest_fare": "inf"}, "highest_fare: expected a finite number, received 'inf'"),
        ({"highest_fare": float("nan")}, "highest_fare: expected a number, received '.nan'"),
        (
            {"box": BOX | {"west": 55.65, "east": 55.35}},
            r"line 9, box\.west: expected west below east, received 55.65 and 55",
        ),
        ({"box": BOX | {"south": -20.85, "north": -21.0}}, r"box\.south: expected south below north"),
        (
            {"box": BOX | {"west": -180, "east": 180}},
            r"box\.west: expected a city, at most 4 degrees wide and high, received",
        ),
        ({"box": BOX | {"west": 555}}, r"box.west: expected 180.0 or less, received '555'"),
        (
            {"box": BOX | {"north": ...}} | {"box": {k: v for k, v in BOX.items() if k != "north"}},
            "box.north: expected",
        ),
        ({"box": [55.35, 55.65, -21.0, -20.85]}, "box: expected fields with values, received"),
        ({"street_angle_deg": 120}, "street_angle_deg: expected 90.0 or less"),
        ({"airports": [AIRPORT, AIRPORT]}, "airports: expected each name and date once, received RUN twice"),
        (
            {"airports": [AIRPORT | {"code": "EAST"}]},
            r"airports\[1\].code: .* received EAST: its code makes a feature .*, pickup_east_km",
        ),
        ({"airports": [AIRPORT | {"longitude_deg": 5.5}]}, r"airports\[1\]: expected RUN within the box"),
        ({"airports": [AIRPORT | {"code": "run"}]}, r"airports\[1\].code: expected 2 to 8 capital letters"),
        (
            {"airports": [AIRPORT | {"radius_km": -2}]},
            r"airports\[1\].radius_km: expected more than 0.0, received",
        ),
        ({"airports": [AIRPORT | {"radius": 2}]}, r"airports\[1\].radius: is no field .* \(did you mean radius_km\?\)"),
        ({"airports": AIRPORT}, "airports: expected a list"),
        ({"max_passengers": 0}, "max_passengers: expected 1 or more"),
        ({"max_passengers": 6.5}, "max_passengers: expected a whole number, received '6.5'"),
        ({"max_passengers": True}, "max_passengers: expected a whole number, received 'true'"),
        ({"night_hours": [19, 25]}, r"night_hours\[2\]: expected 24 or less, received '25'"),
        ({"night_hours": [0, 6]}, "night_hours: expected the first hour of the night .* received .0, 6"),
        ({"night_hours": [19]}, "night_hours"),
        ({"night_hours": "19-7"}, "night_hours: expected a list, received '19-7'"),
        ({"night_hours": ["19:30", 7]}, r"night_hours\[1\]: expected a whole number, received '19:30'"),
        ({"rush_hours": [19, 15]}, "rush_hours: expected the first hour of the evening rush"),
        ({"rules": [RULE, RULE]}, "rules: expected each name and date once, received fares_2024_02 twice"),
        ({"rules": [RULE | {"name": "hour"}]}, r"rules\[1\].name: expected small letters, digits and _, with the year"),
        (
            {"rules": [RULE | {"since": "February 2024"}]},
            r"rules\[1\].since: expected a day as in 2015-03-22, received",
        ),
        ({"rules": [RULE | {"since": "20240201"}]}, r"rules\[1\].since: expected a day as in"),
        ({"rules": [RULE | {"since": "2024-W05-4"}]}, r"rules\[1\].since: expected a day as in"),
        ({"rules": [RULE | {"since": "2024-02-30"}]}, r"rules\[1\].since: expected a day"),
        ({"rules": [RULE | {"since": 1706745600}]}, r"rules\[1\].since: expected a day"),
        ({"rules": [RULE | {"since": "0001-01-01"}]}, r"rules\[1\].since: expected a day of the years 1900 to 2199"),
        ({"rules": [RULE | {"description": "x" * 300}]}, r"rules\[1\].description: expected a text of at most 200"),
        ({"meter": [STEP, STEP]}, "meter: expected each name and date once, received 2020-01-01 twice"),
        ({"meter": [STEP | {"step": 0}]}, r"meter\[1\].step: expected more than 0.0"),
        ({"nam": "x"}, r"nam: is no field of a city file \(did you mean name\?\)"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_with_file_field_expected_and_received(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(CityFileError, match=said) as raised:
        read_city(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).endswith("docs/your-city.md")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("written", "instead", "at", "said"),
    [
        ("radius_km: 2", "radius_km: two", "two", r"airports\[1\]\.radius_km: expected a number, received 'two'"),
        ("  west: 55.35", "  west: 56", "  west:", r"box\.west: expected west below east, received 56 and 55.65"),
        ("  south: -21.00", "  south: 21.00", "  south:", r"box\.south: expected south below north"),
        ("  north: -20.85\n", "", "box:", r"box\.north: expected a value, received none"),
        ("55.5103", "2.5103", "2.5103", r"airports\[1\]: expected RUN within the box .*, received longitude 2.51"),
        ("night_hours: [19, 7]", "night_hours: [7, 19]", "night_hours", "night_hours: expected the first hour"),
        ("rush_hours: [15, 19]", "rush_hours: [19, 15]", "rush_hours", "rush_hours: expected the first hour"),
        ("slug: saint-denis", "slug: Saint-Denis", "slug", "slug: expected small letters"),
        (
            "  name: EUR",
            "  name: euro",
            "  name: euro",
            r"currency\.name: expected three capital letters",
        ),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, written: str, instead: str, at: str, said: str) -> None:
    """The line of what is named: of a table that lacks something, the one with the table's name."""
    path, text = tmp_path / "city.yaml", SAINT_DENIS.read_text()
    assert written in text
    path.write_text(text.replace(written, instead))
    line = next(n for n, found in enumerate(path.read_text().splitlines(), 1) if found.startswith(at) or at in found)
    with pytest.raises(CityFileError, match=rf"city\.yaml: line {line}, {said}"):
        read_city(path)


LAUGHS = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected the fields of a city, received nothing"),
        (b"- a\n- b\n", "expected the fields of a city, received none"),
        (b"just a text", "expected the fields of a city, received none"),
        (b"slug: a\nname: [b\n", "line 3: expected YAML, received did not find expected"),
        (b"slug: a\n\tname: b\n", "line 2: expected YAML, received "),
        (b"slug: a\nslug: b\n", "line 2: 'slug' stands there twice: keep one"),
        (b"slug: a\nbox:\n  west: 1\n  west: 2\n", "line 4: 'west' stands there twice"),
        (b"slug: a\n---\nslug: b\n", "line 2: expected YAML, received but found another document"),
        (LAUGHS.encode(), r"line 1: expected values as they are, received an anchor or an alias"),
        (b"slug: !!python/object/apply:os.system ['true']\n", "line 1: expected plain values, received the tag"),
        (b"slug: !!binary aGk=\n", "line 1: expected plain values, received the tag"),
        (b"[a, b]: c\n", "line 1: expected the name of a field, received a list"),
        (b"slug: caf\xe9\n", "line 1: expected text in UTF-8, received the byte 0xe9"),
        ("slug: a\n".encode("utf-16"), "line 1: expected text in UTF-8"),
        (b"slug: a\0b\n", "expected YAML, received .*not allowed"),
        (b"slug: " + b"[" * 10_000, "expected the fields of a city, received lists within lists"),
        (b"# " + b"x" * 2**16, "expected at most 65,536 bytes about a city, received more"),
        (b"%PDF-1.4\n%\xe2\xe3", "line 2: expected text in UTF-8"),
    ],
)
def test_what_is_no_city_file_is_said_in_a_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "city.yaml"
    path.write_bytes(content)
    with pytest.raises(CityFileError, match=said) as raised:
        read_city(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_whatever_a_file_is_made_of_it_is_a_city_or_told(tmp_path: Path) -> None:
    """Bytes, tokens of YAML and odd values at random places: never another error, and nothing that takes long."""
    draws, path, plain = Random(1), tmp_path / "city.yaml", SAINT_DENIS.read_bytes()
    odd = [
        b"*a",
        b"&a ",
        b"!x ",
        b"[",
        b"}",
        b": ",
        b"- ",
        b"|\n",
        b"? ",
        b"---\n",
        b"%YAML 9\n",
        b"\t",
        b"\0",
        b"\xff",
    ]
    odd += [b"~", b"1e999", b".nan", b"0x10", b"'", b'"', b"#", b"<<: ", b'"\\ud800"', b"9999-12-31", b"9" * 400]
    for _ in range(400):
        content = bytearray(plain)
        for _ in range(draws.randint(1, 2)):
            at = draws.randrange(len(content))
            content[at : at + draws.choice([0, 0, 1, 20])] = draws.choice([*odd, b"", bytes([draws.randrange(256)])])
        path.write_bytes(content)
        with suppress(CityFileError):
            assert read_city(path).slug


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    del path


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (nothing, "received No such file or directory: CITY names it"),
        (a_folder, "received a folder"),
        (a_pipe, "received what is no file"),
        (a_link_to_itself, "received Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_at_all_is_said_too(place: Any, said: str, tmp_path: Path) -> None:
    place(tmp_path / "city.yaml")
    with pytest.raises(CityFileError, match=rf"{tmp_path}/city.yaml: expected a YAML file .*{said}"):
        city_named(str(tmp_path / "city.yaml"))


@pytest.mark.parametrize("told", ["chikago", "", "New York", "https://example.org/city.yaml", "lisbon", "x\0y/"])
def test_what_is_neither_a_city_nor_a_path_is_said_as_a_setting(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CityFileError, match="expected"):
        city_named(told)
    if "\0" not in told:
        monkeypatch.setenv("CITY", told)
        with pytest.raises(SettingsError, match=r"^CITY: expected new-york, chicago or the path of a YAML file"):
            read_settings(Settings)


def test_a_fault_of_the_file_is_one_of_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITY", str(written(tmp_path, max_passengers="many")))
    with pytest.raises(SettingsError, match=r"^CITY: .*city.yaml: line \d+, max_passengers: expected a whole number"):
        read_settings(Settings)


def test_the_simulator_says_which_city_is_set() -> None:
    with pytest.raises(ValueError, match=rf"has trips of CITY=new-york, received saint-denis \({SAINT_DENIS}\)"):
        Settings(_env_file=None, city=str(SAINT_DENIS))


def test_the_files_are_part_of_the_package() -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    assert '"taxifare.trips" = ["*.yaml"]' in pyproject


def test_facts_keep_their_types(tmp_path: Path) -> None:
    """15 is 15.0, so that a fingerprint does not go by how a number is written."""
    one, other = (read_city(written(tmp_path, street_angle_deg=angle)).facts for angle in (15, 15.0))
    assert asdict(one) == asdict(other)
    assert isinstance(one.grid_angle_deg, float)


def test_the_example_of_the_documentation_is_a_city() -> None:
    text = (REPOSITORY / "docs" / "your-city.md").read_text()
    assert f"```yaml\n# saint-denis.yaml\n{SAINT_DENIS.read_text()}```" in text
    named = set(re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE))
    assert {name for names in named for name in re.findall(r"`(\w+)`", names)} == set(PLAIN)
