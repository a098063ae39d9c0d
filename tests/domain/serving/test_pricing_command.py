"""`taxifare predict`, as somebody types it: one ride in a moment, files with bad rows, and nothing to ask."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from taxifare.serving.bundle import Bundle
from taxifare.serving.rides import FIELDS
from tests.support.bundles import Made
from tests.support.servers import free_port

HEAVY = ("tensorflow", "mlflow", "pandas", "dagster", "sqlalchemy", "scipy", "pyarrow")

ONE = ("--at", "2015-03-14 18:05", "--from", "-73.9857,40.7580", "--to", "-73.7781,40.6413", "--passengers", "2")


def predict(*words: str, told: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, and which heavy modules it has loaded, as its last line of errors."""
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))\n"
        "from taxifare_dagster.command import main\n"
        "sys.argv = ['taxifare', 'predict', *sys.argv[1:]]\n"
        "main()\n"
    )
    environment = os.environ | {name.upper(): str(value) for name, value in settings.items()}
    environment.pop("ORT_DISABLE_TELEMETRY", None)  # this process may have said so already
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        input=told,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def numbers(output: str) -> dict[str, float]:
    return {line[:13].strip(): float(line[13:21]) for line in output.splitlines()}


def test_one_ride_is_priced_without_loading_anything_heavy_or_telling_anybody(made: Made, tmp_path: Path) -> None:
    done = predict(*ONE, service_model_path=made.folder.path, home=str(tmp_path))
    assert not list(tmp_path.rglob("*onnxruntime*"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    ride = pd.DataFrame(
        [[pd.Timestamp("2015-03-14 18:05"), -73.9857, 40.7580, -73.7781, 40.6413, 2]], columns=list(FIELDS)
    )
    found = numbers(done.stdout)
    assert found["fare"] == pytest.approx(float(made.model.predict(ride)[0]), abs=0.0051)
    assert found["corrected"] == pytest.approx(float(made.model.predict(ride, corrected=True)[0]), abs=0.0051)
    assert found["upper"] >= found["fare"]
    assert found["on the meter"] % 0.5 == 0
    assert re.search(r"^on the meter +[\d.]+ USD  \(to quote\)$", done.stdout, re.MULTILINE)
    assert found["version"] == 1


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("service_model_path", "s3"),
        pytest.param("storage_uri", "s3", marks=pytest.mark.slow),
        pytest.param("service_model_path", "gs", marks=pytest.mark.slow),  # whose client goes on for half a minute
        pytest.param("storage_uri", "gs", marks=pytest.mark.slow),
    ],
)
def test_a_bucket_that_is_away_is_told_in_a_line(setting: str, kind: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    login = {"aws_access_key_id": "somebody", "aws_secret_access_key": "sesame", "aws_max_attempts": "1"}
    addresses = {"aws_endpoint_url": nowhere, "storage_emulator_host": nowhere, setting: f"{kind}://bucket/lake"}
    done = predict(*ONE, **login, **addresses)
    assert done.returncode == 1
    said, _ = done.stderr.splitlines()
    assert said.startswith(f"UnreachableError: {setting.upper()}: {kind}://bucket/lake")
    assert "the bucket does not answer, also after several tries" in said


def test_a_rule_that_the_version_has_not_learned_is_told(made: Made) -> None:
    done = predict(*ONE[2:], "--at", "2015-04-01 10:00", service_model_path=made.folder.path)
    assert "tolls_2015_03 is in force then, and the version has learned no ride under it" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            (*ONE, "--from", "0,40.75"),
            2,
            "--from: longitude: expected degrees from -74.3 to -73.7, received 0.0; the ride",
        ),
        ((*ONE, "--from", "0,40.75"), 2, "the ride begins outside New York, the city whose rides the model prices"),
        ((*ONE, "--to", "40.64,-73.78"), 2, "--to: longitude and latitude are swapped"),
        ((*ONE, "--at", "14/03/2015"), 2, "--at: expected a time on the city's clock without a zone, as in 2015-03-14"),
        ((*ONE, "--at", "2015-03-14T18:05Z"), 2, "received '2015-03-14T18:05Z'"),
        ((*ONE, "--passengers", "208"), 2, "--passengers: expected a whole number from 1 to 7, received 208"),
        ((*ONE, "--from", "40.75"), 2, "Invalid value for '--from': expected LON,LAT in degrees, the longitude first"),
        (ONE[:4], 2, "expected a file of rides, or --at, --from and --to of one ride, received --at, --from."),
        ((), 2, "received nothing. For example:"),
        ((*ONE, "rides.csv"), 2, "received a file, --at, --from, --to"),
        (("rides.txt",), 2, "expected a file that ends in .csv, .csv.gz, .parquet"),
        (
            ("rides.csv", "-o", "/nowhere/x.csv"),
            1,
            "--output: expected a file in a folder that is there, received /nowhere/x.csv: make the folder",
        ),
        (("nowhere.csv",), 1, "Cannot read or write nowhere.csv: No such file or directory"),
    ],
)
def test_what_cannot_be_priced_is_told(made: Made, words: tuple[str, ...], code: int, said: str) -> None:
    done = predict(*words, service_model_path=made.folder.path, columns=300)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_packed_file_in_names_and_times_of_its_own_is_priced_and_what_to_quote_is_said(
    made: Made, tmp_path: Path
) -> None:
    """As a source of trips reads it; the prices are in a plain file with the names that came."""
    rides = made.trips[list(FIELDS)].head(5).astype({"passenger_count": "int64"})
    rides["pickup_datetime"] = rides["pickup_datetime"].dt.floor("s").astype(str) + " UTC"
    packed, to = tmp_path / "rides.csv.gz", tmp_path / "prices.csv"
    packed.write_bytes(gzip.compress(rides.rename(columns={"pickup_datetime": "start"}).to_csv(index=False).encode()))
    done = predict(
        str(packed), "-o", str(to), service_model_path=made.folder.path, trip_columns="pickup_datetime=start"
    )
    assert done.returncode == 0, done.stderr
    assert "its times say UTC and were taken for the clock of New York" in done.stderr
    assert "To quote: quoted_fare_usd. Seven rides in ten cost no more than upper_fare_usd; corr" in done.stderr
    prices = pd.read_csv(to)
    assert list(prices.columns[:6]) == ["start", *FIELDS[1:]]
    np.testing.assert_allclose(prices["fare_usd"], made.model.predict(made.trips.head(5)), atol=0.0051)


def test_where_nothing_is_in_production_the_way_out_is_told(tmp_path: Path) -> None:
    done = predict(*ONE, taxifare_home=tmp_path / "state")
    assert done.returncode == 1
    assert "no model is in production" in done.stderr
    assert "taxifare bundle" in done.stderr
    assert not (tmp_path / "state").exists()


def test_bad_rows_of_a_file_are_named_by_their_line_and_the_others_priced(made: Made, tmp_path: Path) -> None:
    rides = made.trips[list(FIELDS)].head(5).astype({"passenger_count": "int64"})
    rides["pickup_datetime"] = rides["pickup_datetime"].dt.floor("s").astype(str)
    lines = rides.to_csv(index=False).splitlines()
    lines[2] = lines[2].replace("-7", "7", 1)
    done = predict("-", told="\n".join(lines) + "\n", service_model_path=made.folder.path)
    assert done.returncode == 3
    assert "standard input, line 3: pickup_longitude: expected degrees" in done.stderr
    assert "the ride begins outside the city whose rides the model prices" in done.stderr
    assert "1 of 5 rides has no price" in done.stderr
    (tmp_path / "rides.csv").write_text("\n".join(lines) + "\n")
    to = tmp_path / "prices.csv"
    again = predict(str(tmp_path / "rides.csv"), "-o", str(to), service_model_path=made.folder.path)
    assert "rides.csv, line 3: pickup_longitude: expected degrees" in again.stderr
    assert (again.returncode, again.stdout, to.read_text()) == (3, "", done.stdout)
    over_itself = predict(str(to), "-o", str(to), service_model_path=made.folder.path)
    assert (over_itself.returncode, to.read_text()) == (2, done.stdout)
    assert "expected another file than the rides'" in " ".join(over_itself.stderr.split())
    prices = pd.read_csv(to)
    assert prices["fare_usd"].isna().tolist() == [False, True, False, False, False]
    assert prices["fare_usd"][0] == pytest.approx(float(made.model.predict(made.trips.head(1))[0]), abs=0.005)
    assert Bundle.read(UPath(made.folder)).manifest.version == str(prices["model_version"].dropna().astype(int)[0])
