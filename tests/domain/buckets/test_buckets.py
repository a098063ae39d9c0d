"""Buckets that refuse, are away or are not there: that is said, and is never "nothing there"."""

from collections.abc import Callable

import pytest
import requests
from upath import UPath

from taxifare.buckets import UnreachableError
from taxifare.environment import opened
from taxifare.whole_files import whole_file
from tests.support.clouds import ELSEWHERE, FORBIDDEN, STRANGER, THROTTLED, Cloud, Front, Refusal, new_clients


@pytest.fixture
def lake(front: Front) -> UPath:
    """A folder in the bucket with one file."""
    place = opened("STORAGE_URI", front.bucket) / "lake"
    (place / "there.json").write_text("{}")
    return place


def rewrite(path: UPath) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text("anew")


ACTS: dict[str, Callable[[UPath], object]] = {
    "exists": lambda lake: (lake / "there.json").exists(),
    "is file": lambda lake: (lake / "there.json").is_file(),
    "is folder": lambda lake: lake.is_dir(),
    "bucket exists": lambda lake: lake.parent.exists(),
    "bucket is folder": lambda lake: lake.parent.is_dir(),
    "look at": lambda lake: (lake / "there.json").stat(),
    "read": lambda lake: (lake / "there.json").read_bytes(),
    "open": lambda lake: (lake / "there.json").open("rb").read(),
    "list": lambda lake: list(lake.iterdir()),
    "list by pattern": lambda lake: list(lake.glob("*.json")),
    "list all": lambda lake: list(lake.rglob("*")),
    "list with facts": lambda lake: lake.fs.ls(lake.path, detail=True),
    "write": lambda lake: (lake / "there.json").write_text("{}"),
    "write whole": lambda lake: rewrite(lake / "there.json"),
    "remove": lambda lake: (lake / "there.json").unlink(),
    "remove if there": lambda lake: (lake / "there.json").unlink(missing_ok=True),
}


def assert_told(lake: UPath, *said: str) -> None:
    """Ensures that whatever is asked of the lake ends with an error that says so."""
    for name, act in ACTS.items():
        try:
            answer = act(lake)
        except UnreachableError as told:
            words = str(told)
        else:
            pytest.fail(f"{name} was answered: {answer}")
        assert words.startswith(f"STORAGE_URI: {lake.protocol}://"), f"{name}: {words}"
        for part in said:
            assert part in words, f"{name}: {words}"


def test_a_file_that_is_not_in_a_bucket_that_is_there_is_not_there(lake: UPath) -> None:
    absent = lake / "absent.json"
    assert (absent.exists(), absent.is_file(), absent.is_dir(), (lake / "no").is_dir()) == (False,) * 4
    assert list(lake.glob("*.parquet")) == []
    for read in (absent.read_bytes, absent.stat, absent.unlink):
        with pytest.raises(FileNotFoundError):
            read()
    absent.unlink(missing_ok=True)
    assert (lake.exists(), lake.is_dir(), lake.parent.is_dir()) == (True,) * 3
    assert [path.name for path in lake.iterdir()] == ["there.json"]


def test_a_bucket_that_is_not_there_is_not_an_empty_one(front: Front) -> None:
    missing = opened("STORAGE_URI", f"{front.bucket}-not-made") / "lake"
    assert_told(missing, "-not-made", "there is no such bucket (404", "make it, or correct STORAGE_URI")


def test_a_bucket_that_lets_nobody_in_is_not_an_empty_one(lake: UPath, front: Front, cloud: Cloud) -> None:
    front.refuses = FORBIDDEN[cloud]
    assert_told(
        lake, "the account may not do this (403: ".removesuffix(": "), "let it list, read, write and remove there"
    )


def test_who_is_not_known_is_told_what_says_who_asks(lake: UPath, front: Front, cloud: Cloud) -> None:
    front.refuses = STRANGER[cloud]
    variable = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "s3": "AWS_ACCESS_KEY_ID"}[cloud]
    assert_told(lake, str(STRANGER[cloud].status), variable)


def test_what_throttles_for_good_is_said_after_several_tries(lake: UPath, front: Front, cloud: Cloud) -> None:
    front.refuses = THROTTLED[cloud]
    assert_told(lake, f"refuses for the moment, also after several tries ({THROTTLED[cloud].status}", "try again later")
    assert len(front.asked) > len(ACTS) * 2


def test_what_throttles_for_a_moment_is_asked_again(
    front: Front, cloud: Cloud, lake: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    with new_clients():
        lake = opened("STORAGE_URI", front.bucket) / "lake"
        for name, act in ACTS.items():
            (lake / "there.json").write_text("{}")
            front.refusals = [THROTTLED[cloud]]
            answer = act(lake)
            assert (front.refusals, answer) != ([THROTTLED[cloud]], False), name


def test_a_bucket_in_another_region_says_which(lake: UPath, front: Front, cloud: Cloud) -> None:
    if cloud == "gs":
        front.refuses = THROTTLED[cloud]  # Google's buckets have one address, wherever they are
        assert_told(lake, "429")
        return
    front.refuses = ELSEWHERE
    assert_told(lake, "not asked where it is (301", "it is in eu-west-3", "AWS_DEFAULT_REGION")


def test_a_cloud_that_is_away_is_not_empty(
    front: Front, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lake: UPath
) -> None:
    variable = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}[cloud]
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with new_clients():
        assert_told(opened("STORAGE_URI", front.bucket) / "lake", "does not answer, also after several tries", variable)


@pytest.mark.parametrize("cloud", ["s3"])
@pytest.mark.parametrize("code", ["NoSuchKey", ""])
def test_a_server_that_has_no_buckets_has_no_empty_ones(lake: UPath, front: Front, code: str) -> None:
    """It knows no path at all, or the address of the endpoint has the bucket's name in it already."""
    front.refuses = Refusal(404, code, "Not Found")
    assert_told(lake, "there is no such bucket (404", "AWS_ENDPOINT_URL")


@pytest.mark.parametrize("cloud", ["s3"])
def test_a_removal_that_is_refused_is_told(lake: UPath, front: Front, cloud: Cloud) -> None:
    front.refuses, front.only = FORBIDDEN[cloud], "DELETE "
    removals = (
        (lake / "there.json").unlink,
        lambda: lake.rmdir(recursive=True),
    )
    for remove in removals:
        with pytest.raises(UnreachableError, match=r"may not do this \(403.*list, read, write and remove"):
            remove()
        assert (lake / "there.json").exists()
    assert not [request for request in front.asked if request.startswith("POST") and "delete" in request]


@pytest.mark.parametrize("cloud", ["s3"])
def test_a_wrong_clock_is_told_as_one(lake: UPath, front: Front) -> None:
    front.refuses = Refusal(403, "RequestTimeTooSkewed", "The difference between the times is too large.")
    with pytest.raises(UnreachableError, match="clock of this machine is wrong"):
        lake.joinpath("there.json").write_text("{}")


@pytest.mark.parametrize("cloud", ["s3"])
def test_amazon_knows_its_accounts(front: Front, lake: UPath) -> None:
    """Its own server refuses, not the front."""
    requests.post(f"{front.backend}/moto-api/reset-auth", data="0", timeout=10)
    try:
        assert_told(lake, "403")
        with pytest.raises(UnreachableError, match="403 InvalidAccessKeyId"):
            list(lake.rglob("*"))
    finally:
        requests.post(f"{front.backend}/moto-api/reset-auth", data="inf", timeout=10)
