"""What is in force follows the ledger, whatever was lost, damaged or killed, and a promotion waits for nobody."""

import shutil
from functools import partial
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from taxifare.approval import asking, projection
from taxifare.approval.approvals import Approvals
from taxifare.approval.comparisons import record
from taxifare.approval.ledger import NOTHING
from taxifare.approval.records import Comparison
from taxifare.approval.versions import registry_of
from taxifare.cli.main import app
from taxifare.operations.doctor import examine
from taxifare.serving import in_force, in_shadow
from taxifare.serving.bundle import NETWORK, Bundle
from taxifare.serving.in_force import InForce, NothingInForceError, bundles_in
from taxifare.serving.in_shadow import InShadow
from taxifare.serving.publishing import LakePublisher, approvals_of
from taxifare.settings import Settings
from tests.support.approvals import LINKS, by_recorded_files, evidence
from tests.support.bundles import Made
from tests.support.kills import moments_of
from tests.support.registry import put_files
from tests.support.services import make_bundle
from tests.support.small import small_settings


@pytest.fixture(scope="module")
def prepared(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A state in which version 1 has a bundle, and nobody was asked yet."""
    home = tmp_path_factory.mktemp("prepared") / "state"
    shutil.copytree(made.settings.home, home)
    settings = small_settings(home, mlflow_tracking_uri=None)
    registry_of(settings).store.mend()
    LakePublisher(settings, registry_of(settings)).prepare("1")
    return settings


@pytest.fixture
def state(prepared: Settings, tmp_path: Path) -> Settings:
    """The same in a folder of the test's own."""
    shutil.copytree(prepared.home, tmp_path / "state")
    settings = small_settings(tmp_path / "state", mlflow_tracking_uri=None)
    mend(settings)
    return settings


def compared(approvals: Approvals) -> Comparison:
    found = by_recorded_files(evidence("base", "1", None), approvals.ledger)
    return record(approvals.ledger, found, approvals.now())


def promote(settings: Settings) -> Approvals:
    approvals = approvals_of(settings)
    with approvals.ledger.reading() as entries:
        waiting = entries.open_requests()
    request = waiting[0] if waiting else approvals.request(compared(approvals))
    approvals.decide(request.id, "approve", "Ada", "I looked at the slices")
    return approvals


def published(settings: Settings) -> InForce:
    found = in_force.read(settings.lake)
    assert found is not None
    return found


def a_bundle_of(version: str, settings: Settings) -> None:
    """Gives a version a bundle in milliseconds: that of a plain network, under the digest of its registered files."""
    content = registry_of(settings).contents.of(version)
    assert content is not None
    (bundles_in(settings.lake) / "made" / content.files_digest).write_text(
        make_bundle(bundles_in(settings.lake), version)
    )


def ill(settings: Settings) -> str:
    """What the doctor says against what is in force; nothing where that is well."""
    found = next(finding for finding in examine(settings, lambda _: None) if finding.part == "in force")
    return "" if found.is_well else found.says


def test_a_promotion_is_in_force_at_once_and_says_who_decided(state: Settings) -> None:
    promote(state)
    found = published(state)
    assert (found.sequence, found.version, found.city, found.target) == (1, "1", "new-york", "fare")
    assert (found.by, found.reason, found.replaced_version) == ("Ada", "I looked at the slices", None)
    assert found.digest is not None
    assert Bundle.read(bundles_in(state.lake) / found.digest).manifest.version == "1"
    assert ill(state) == ""


def test_a_version_that_somebody_is_asked_about_is_ready_before_the_answer(state: Settings) -> None:
    shutil.rmtree(bundles_in(state.lake).path)
    approvals = approvals_of(state)
    asking.ask(approvals, compared(approvals), [], LINKS, state)
    assert LakePublisher(state, registry_of(state)).made_of("1") is not None
    assert in_force.read(state.lake) is None


def test_a_model_that_is_taken_out_is_in_force_as_none(state: Settings) -> None:
    promote(state).rollback(NOTHING, by="Ada", reason="it errs")
    found = published(state)
    assert (found.sequence, found.version, found.digest, found.replaced_version) == (2, None, None, "1")
    assert ill(state) == ""
    with pytest.raises(NothingInForceError) as told:
        in_force.model_in(state.lake, state.city, state.target)
    assert str(told.value) == (
        "no model is in production, so nothing prices rides, since Ada took version 1 out on "
        f"{found.promoted_at:%Y-%m-%d %H:%M} UTC (promotion 2: it errs). taxifare rollback --to 1 --by YOU --reason "
        '"WHY" puts version 1 back, or the next month\'s run makes a new start that is asked about'
    )


def test_a_version_that_is_asked_about_is_in_shadow_until_the_question_ends(state: Settings) -> None:
    approvals = promote(state)
    put_files(registry_of(state), 1, state.home / "files")
    staging = "2"

    def shadow() -> InShadow | None:
        return in_shadow.read(state.lake)

    def asked(mae: float) -> Comparison:
        found = by_recorded_files(evidence("2015-01", staging, "1", mae=mae), approvals.ledger)
        return record(approvals.ledger, found, approvals.now())

    first = asked(2.10)
    approvals.request(first)
    assert shadow() is None, "its bundle is made when the message is out"
    a_bundle_of(staging, state)
    request = asking.ask(approvals, first, [], LINKS, state).request
    found = shadow()
    assert found is not None
    assert (found.version, found.sequence, found.request_id, found.since) == (
        *(staging, published(state).sequence, request.id, request.requested_at),
    )
    assert Bundle.read(bundles_in(state.lake) / found.digest).manifest.version == staging
    (bundles_in(state.lake) / "in-shadow.json").write_bytes(b"{}")
    approvals.repair()
    assert shadow() == found
    (bundles_in(state.lake) / "in-shadow.json").unlink()
    assert f"expected version {staging} in shadow" in ill(state)
    told = CliRunner().invoke(app, ["bundle"], env={"TAXIFARE_HOME": str(state.home)})
    assert f"Version {staging}: {found.digest}" in told.output
    assert shadow() == found
    again = asking.ask(approvals, asked(2.00), [], LINKS, state).request
    assert shadow() == msgspec.structs.replace(found, request_id=again.id, since=again.requested_at)
    approvals.decide(again.id, "reject", "Ada", "not yet")
    assert shadow() is None
    approvals.decide(asking.ask(approvals, asked(1.90), [], LINKS, state).request.id, "approve", "Ada", "now")
    assert shadow() is None
    assert published(state).version == staging


@pytest.mark.parametrize("left", [None, b"", b'{"sequence": 1}'])
def test_what_was_lost_is_published_again_by_the_next_command(state: Settings, left: bytes | None) -> None:
    promote(state)
    before = published(state)
    file = bundles_in(state.lake) / "in-force.json"
    file.unlink() if left is None else file.write_bytes(left)
    assert ill(state) != ""
    assert approvals_of(state).production() == "1"
    assert published(state) == before


def test_what_somebody_forged_is_put_right_by_the_next_command(state: Settings) -> None:
    promote(state)
    before = published(state)
    forged = InForce(**{name: getattr(before, name) for name in before.__struct_fields__} | {"by": "Mallory"})
    in_force.publish(state.lake, forged)
    assert "expected promotion 1, version 1, received promotion 1, version 1" in ill(state)
    approvals_of(state).repair()
    assert published(state) == before


def test_the_sequence_never_goes_down(state: Settings) -> None:
    promote(state).rollback(NOTHING, by="Ada", reason="it errs")
    later = published(state)
    in_force.publish(state.lake, InForce(**{n: getattr(later, n) for n in later.__struct_fields__} | {"sequence": 1}))
    assert published(state) == later


def test_a_damaged_bundle_is_told_by_the_doctor_and_made_anew(state: Settings) -> None:
    promote(state)
    network = bundles_in(state.lake) / str(published(state).digest) / NETWORK
    network.write_bytes(network.read_bytes()[:-1])
    assert "it is made anew by: taxifare bundle 1" in ill(state)
    LakePublisher(state, registry_of(state)).bundle_of("1")
    approvals_of(state).repair()
    assert ill(state) == ""


def test_a_version_that_cannot_be_served_is_promoted_all_the_same_and_what_was_in_force_stays(
    state: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(bundles_in(state.lake).path)
    lake = Path(state.lake.path)
    lake.mkdir(exist_ok=True)
    (lake / "bundles").write_text("a file where a folder should be")
    assert promote(state).record.history()[-1].version == "1"
    assert "promotion 1 is not in force yet, the next command tries again" in caplog.text
    (lake / "bundles").unlink()
    assert approvals_of(state).production() == "1"
    assert ill(state) == ""


def mend(settings: Settings) -> None:
    registry_of(settings).store.mend()


def finish(settings: Settings) -> None:
    """What comes after a killed promotion: any command where it was recorded, the same one where it was not."""
    if approvals_of(settings).production() is None:
        promote(settings)
    assert published(settings).version == "1"
    assert ill(settings) == ""


def test_a_promotion_that_is_killed_is_in_force_after_the_next_command(
    prepared: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in processes of their own: what this one has opened would be the files of the state before."""
    # Tags in MLflow that take longer than this wait for the next command: a busy machine would pass fewer moments.
    monkeypatch.setattr(projection, "TELLING_S", 60)

    def after_a_kill_at(moment: int | None) -> int:
        home = tmp_path / f"state-{moment}"
        shutil.copytree(prepared.home, home)
        settings = small_settings(home, mlflow_tracking_uri=None)
        moments_of(home, partial(mend, settings))
        passed = moments_of(home, partial(promote, settings), last=moment)
        moments_of(home, partial(finish, settings))
        return len(passed)

    # One less than it passed when nobody killed it: SQLite does without a sync now and then.
    number = after_a_kill_at(None) - 1
    for moment in (number // 2, *range(number - 4, number + 1, 2)):
        after_a_kill_at(moment)


@pytest.mark.end_to_end
@pytest.mark.parametrize("kind", ["bucket", pytest.param("s3_bucket", marks=pytest.mark.slow)])
def test_a_bucket_holds_what_is_in_force_as_a_folder_does(
    state: Settings, kind: str, request: pytest.FixtureRequest
) -> None:
    bucket: str = request.getfixturevalue(kind)
    settings = small_settings(state.home, mlflow_tracking_uri=None, storage_uri=f"{bucket}/lake")
    promote(settings).rollback(NOTHING, by="Ada", reason="it errs")
    assert (published(settings).sequence, published(settings).digest) == (2, None)
    approvals_of(settings).rollback("1", by="Ada", reason="it does not")
    digest = published(settings).digest
    assert Bundle.read(bundles_in(settings.lake) / str(digest)).manifest.version == "1"
    assert ill(settings) == ""
