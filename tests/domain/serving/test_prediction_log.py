"""The prediction log: whole lines, each once, whatever is killed or full meanwhile."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from typer.testing import CliRunner
from upath import UPath

from taxifare.cli.main import app
from taxifare.serving.prediction_log import Answer, PredictionLog, collected_in, folder_in, read
from taxifare.serving.segments import collect, tidy
from tests.support.places import REPOSITORY
from tests.support.predictions import answer
from tests.support.services import Installation

KEEP_DAYS = 30

WRITER = """
import sys, time
from pathlib import Path
from taxifare.serving.prediction_log import PredictionLog
from tests.support.predictions import answer
log = PredictionLog(Path(sys.argv[1]), 30)
log.append([answer(f"ride {number}") for number in range(3)])
print("written", flush=True)
time.sleep(60)
"""


def test_what_is_answered_is_there_at_once_and_sealed_when_the_process_ends(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", KEEP_DAYS)
    log.append([answer("a"), answer("b")])
    (segment,) = (tmp_path / "log").iterdir()
    assert segment.name.endswith(".jsonl.open")
    assert len(segment.read_bytes().splitlines()) == 2
    log.close()
    assert [path.suffix for path in (tmp_path / "log").iterdir()] == [".jsonl"]


def test_collected_twice_a_ride_is_there_once_for_each_version_and_role(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", KEEP_DAYS)
    lake = UPath(tmp_path / "lake" / "quotes")
    log.append([answer(1, fare=9.5), answer(1, version="5"), answer(1, role="shadow")])
    log.append([answer(1, fare=99.0), answer("1", fare=99.0), answer("01")])
    log.close()
    (segment,) = (tmp_path / "log").iterdir()
    content = segment.read_bytes()
    assert collect(tmp_path / "log", lake, KEEP_DAYS, Answer).lines == 6
    segment.write_bytes(content)  # killed before it was removed
    assert collect(tmp_path / "log", lake, KEEP_DAYS, Answer).segments == 1
    assert not list((tmp_path / "log").iterdir())
    found = list(read(lake))
    assert [each.key for each in found] == [
        ("1", "4", "production"),
        ("1", "5", "production"),
        ("1", "4", "shadow"),
        ("01", "4", "production"),
    ]
    assert found[0].fare == 9.5


def test_collections_at_once_find_each_segment_once_between_them(tmp_path: Path) -> None:
    folder, lake = tmp_path / "log", UPath(tmp_path / "lake")
    for number in range(60):
        log = PredictionLog(folder, KEEP_DAYS)
        log.append([answer(f"ride {number}")])
        log.close()
    with ProcessPoolExecutor(4, get_context("spawn")) as processes:
        found = list(processes.map(collect, [folder] * 8, [lake] * 8, [KEEP_DAYS] * 8, [Answer] * 8))
    assert sum(each.segments for each in found) == sum(each.lines for each in found) == 60
    assert not list(folder.iterdir())
    assert {each.ride_id for each in read(lake)} == {f"ride {number}" for number in range(60)}


def test_a_segment_is_sealed_by_others_only_when_its_process_is_dead_and_its_torn_line_is_counted(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "log"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, cwd=REPOSITORY, env={**os.environ}
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    try:
        assert tidy(folder, KEEP_DAYS).sealed == 0
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    (segment,) = folder.iterdir()
    segment.write_bytes(segment.read_bytes()[:-20])
    found = collect(folder, UPath(tmp_path / "lake"), KEEP_DAYS, Answer)
    assert (found.segments, found.lines, found.torn) == (1, 2, 1)
    assert [each.ride_id for each in read(UPath(tmp_path / "lake"))] == ["ride 0", "ride 1"]


def test_segments_go_when_they_are_older_than_the_setting_says(tmp_path: Path) -> None:
    old, young = (time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - days * 86_400)) for days in (31, 29))
    for folder in (tmp_path / "log", tmp_path / "lake"):
        folder.mkdir()
        for moment in (old, young):
            (folder / f"{moment}-{folder.name}.jsonl").write_bytes(b"")
    assert tidy(tmp_path / "log", KEEP_DAYS).removed == 1
    collect(tmp_path / "log", UPath(tmp_path / "lake"), KEEP_DAYS, Answer)
    assert {path.name for path in (tmp_path / "lake").iterdir()} == {f"{young}-log.jsonl", f"{young}-lake.jsonl"}


def test_a_full_disk_leaves_whole_lines_is_told_and_is_over_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxifare.serving.segments._RETRY_S", 0.0)
    log = PredictionLog(tmp_path, KEEP_DAYS)
    log.append([answer("before")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (segment,) = tmp_path.iterdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 50, limits[1]))
    try:
        log.append([answer("lost")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (log.written, log.lost, log.fault) == (1, 1, "File too large")
    assert "PREDICTION_LOG_DAYS" in caplog.text
    log.append([answer("after")])
    assert (log.written, log.lost, log.fault) == (2, 1, None)
    log.close()
    found = collect(tmp_path, UPath(tmp_path / "lake"), KEEP_DAYS, Answer)
    assert (found.lines, found.torn) == (2, 0)


def test_the_command_says_what_it_collected(tmp_path: Path) -> None:
    log = PredictionLog(folder_in(tmp_path), KEEP_DAYS)
    log.append([answer("a"), answer("b")])
    log.close()
    found = CliRunner().invoke(app, ["collect"], env={"TAXIFARE_HOME": str(tmp_path)})
    assert found.output == f"Collected 2 answers of 1 segment: {tmp_path / 'lake' / 'quotes'}\n"
    assert len(list(read(collected_in(UPath(tmp_path / "lake"))))) == 2
    again = CliRunner().invoke(app, ["collect"], env={"TAXIFARE_HOME": str(tmp_path)})
    assert again.output.startswith("Collected 0 answers")


def test_the_command_says_how_far_what_is_in_shadow_lies_from_production(tmp_path: Path) -> None:
    def told() -> str:
        found = CliRunner().invoke(app, ["shadow"], env={"TAXIFARE_HOME": str(tmp_path)})
        assert found.exit_code == 0, found.output
        return found.output

    assert told().startswith("Nothing is in shadow: nobody is asked about a version that has a bundle.\nNext: ")
    home = Installation(tmp_path, port=1, sequence=7)
    home.put_in_shadow("5")
    assert re.search(r"no ride yet among those collected\nNext: \S*taxifare collect\n$", told())
    log = PredictionLog(folder_in(tmp_path), KEEP_DAYS)
    log.append([answer("a"), answer("b"), answer("a", version="5", role="shadow", fare=10.5)])
    log.close()
    CliRunner().invoke(app, ["collect"], env={"TAXIFARE_HOME": str(tmp_path)})
    assert told().startswith(
        "Version 5 in shadow since 2015-03-01 00:00 UTC: 1 rides: 1.00 USD more than production, on average; "
        "100.0% more than a meter's step apart\n"
    )
