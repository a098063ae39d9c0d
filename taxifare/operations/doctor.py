"""The doctor: whether everything outside the code is in order, one finding for each part, in words.

A part is asked as the work asks it, so that what is well here works there. How parts are repaired is not known here.
"""

import shlex
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import requests
from dotenv import dotenv_values
from upath import UPath

from taxifare.approval import alarms, standing
from taxifare.approval.approvals import Approvals
from taxifare.approval.due import covered
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import NOTHING
from taxifare.approval.promotions import in_use
from taxifare.approval.records import Promotion, Request
from taxifare.approval.tokens import KEPT_IN
from taxifare.approval.verification import verify
from taxifare.approval.versions import registry_of
from taxifare.buckets import is_local
from taxifare.environment import ENV_FILE
from taxifare.errors import ToldError
from taxifare.model.contents import NotOnRecordError
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import RegistryError
from taxifare.monitoring.calendar import calendar_in
from taxifare.operations import sharing
from taxifare.operations.inventory import nothing_to_work_on, told_months
from taxifare.secrets import private_folder, redacted, shown
from taxifare.serving import in_force
from taxifare.serving.bundle import Bundle, BundleError
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import AskingSettings, ExecutionSettings, FolderSettings, MlflowSettings, Settings, unknown_names
from taxifare.sources import make_source
from taxifare.sources.base import CannotTellError, NoBaseError, Sample, SourceError, ensure_target, month_with
from taxifare.sources.files import SAMPLE_ROWS
from taxifare.sources.folder import Folder
from taxifare.sources.whole_months import why_waiting
from taxifare.texts import counted, named_version
from taxifare.trips.city_files import CityFile
from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COORDINATES
from taxifare.trips.dropped import left_out, why_dropped
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.months import Month
from taxifare.trips.preparation import faults_of, inspect_clean
from taxifare.workers import Workers

_WITHOUT_BASE_YEARS = (
    "without base years the first month's candidate is the first model, and learns from that month alone"
)
IF_NO_BASE_YEARS = f"If there are none: {_WITHOUT_BASE_YEARS} (make dev; make demo needs them)"
"""What to do where a folder of trips has no base years."""

_TIMEOUT_S = 5

_EXAMPLES = 3
"""Of events that are named where there are more."""


class DisorderError(ToldError, RuntimeError):
    """A part that answers, but not as it should; the message says what to do."""


class NothingToExamineError(ToldError, RuntimeError):
    """A part of which there is nothing yet; the message says where to look instead."""


@dataclass(frozen=True)
class Finding:
    """What the examination of one part came to.

    Attributes:
        part: Which.
        is_well: Whether it works as it should; None where there is nothing to examine.
        says: What was found, and the way out where it is not well.
    """

    part: str
    is_well: bool | None
    says: str


def examine(settings: Settings, run_server: Callable[[Settings], str | None]) -> Iterator[Finding]:
    """Yields a finding for each part, whether it is well or not; nothing is repaired, and no state is made.

    Args:
        settings: In force.
        run_server: Returns the address of the server that has the record of runs, None where that is files.
    """
    if settings.database_url is None and not settings.home.exists():
        yield Finding(
            "state folder", False, f"there is no state in {settings.home}: `make demo` or `make dev` makes one"
        )
        yield from _found(_parts_of_trips(settings, None))
        return
    registry = registry_of(settings)
    approvals = Approvals.from_settings(settings, registry)
    parts: dict[str, Callable[[], str]] = {
        "state folder": lambda: _home(settings.home),
        "machines": lambda: _machines(settings, run_server(settings)),
        "lake": lambda: _writable("TAXIFARE_HOME" if settings.storage_uri is None else "STORAGE_URI", settings.lake),
        **_parts_of_trips(settings, approvals),
        "ledger": lambda: _ledger(approvals),
        "approval": lambda: _approval(approvals, settings),
        "approval tokens": lambda: _tokens(approvals, settings),
        "ledger's chain": lambda: _chain(approvals, settings.home),
        "MLflow": lambda: _registry(registry),
        "versions": lambda: _versions(approvals, registry),
        "MLflow's files": lambda: _artifacts(settings, registry),
        "ledger and MLflow": lambda: _agreement(approvals, registry),
        "in force": lambda: _in_force(approvals, LakePublisher(settings, registry), settings),
        "calendar": lambda: _calendar(approvals, settings),
        "chat": lambda: _chat(settings),
    }
    if settings.scoring_inbox is not None:
        parts["inbox"] = lambda: _inbox(settings)
    if settings.cluster_url is not None:
        parts["workers"] = lambda: _workers(settings)
    if settings.target == "duration":
        parts["drop-off times"] = lambda: _dropoffs(settings)
    yield from _found(parts)


def _parts_of_trips(settings: Settings, approvals: Approvals | None) -> dict[str, Callable[[], str]]:
    """Returns the parts that there are before there is any state, which is None then."""
    files = {"files not read": lambda: _not_read(settings)} if settings.trip_source == "folder" else {}
    return {
        "settings": _settings,
        "city": lambda: _city(settings.city),
        "trips": lambda: _published(settings, approvals),
        **files,
        "newest month": lambda: _newest_month(settings),
        "base years": lambda: _base_years(settings, approvals),
    }


def _found(parts: Mapping[str, Callable[[], str]]) -> Iterator[Finding]:
    """Yields what examining each part comes to."""
    for part, says in parts.items():
        try:
            yield Finding(part, True, says())
        except NothingToExamineError as error:
            yield Finding(part, None, str(error))
        # Whatever a part raises is the finding; the examination goes on to the next.
        except Exception as error:  # noqa: BLE001
            yield Finding(part, False, redacted(f"{type(error).__name__}: {error}"))


def _home(home: Path) -> str:
    """Returns that the state folder can be written to, and by its owner only."""
    says = _writable("TAXIFARE_HOME", UPath(str(private_folder(home))))
    if home.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        holds = "holds" if (home / KEPT_IN).exists() else "will hold, once somebody is asked,"
        raise DisorderError(
            f"{home} can be looked into by others, and {holds} the key of the approval tokens: chmod 700 "
            f"{shlex.quote(str(home))}"
        )
    return f"{says} by its owner only"


def _settings() -> str:
    """Returns that whatever `.env` sets is a setting."""
    if faults := list(unknown_names(dotenv_values(ENV_FILE))):
        raise DisorderError("; ".join(faults))
    return f"every name in {ENV_FILE} is a setting" if Path(ENV_FILE).exists() else f"there is no {ENV_FILE} here"


def _machines(settings: Settings, run_server: str | None) -> str:
    """Returns whether several machines may share the installation, which then lacks nothing for it."""
    lacking = list(sharing.faults(settings, run_server))
    if lacking:
        raise DisorderError(f"this installation is shared by half: {'; '.join(lacking)} (docs/scale.md)")
    if run_server is not None:
        return f"runs are on a server, {shown(run_server)}, and so is the ledger: any machine may execute them"
    if settings.ledger_is_server:
        return (
            "the ledger is on a server; runs are in TAXIFARE_HOME: one machine executes them, others decide and serve"
        )
    return "this one: the ledger is in TAXIFARE_HOME"


def _city(city: CityFile) -> str:
    """Returns which city is set, by which file, and what it says."""
    facts, own = city.facts, "" if city.told == city.slug else f", by {city.path}"
    airports = ", ".join(airport.code for airport in facts.airports) or "none"
    rules = ", ".join(rule.name for rule in facts.rules) or "none"
    return (
        f"{facts.name} ({city.slug}){own}: {city.currency.name}, {city.time_zone}; airports: {airports}; dated rules: "
        f"{rules}"
    )


def _writable(setting: str, folder: UPath) -> str:
    """Returns that the folder or bucket that a setting names can be written to."""
    probe = folder / f".doctor-{uuid4().hex}"
    try:
        if is_local(folder):  # a bucket needs no folders, and would be made where it is missing
            folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
    except OSError as error:
        if not is_local(folder):  # what a bucket answers is said with its setting where buckets are opened
            raise
        raise DisorderError(
            f"{setting}: expected a folder that is there or can be made, and can be written to, received {folder}: "
            f"{error.strerror}. Set {setting} to another, or give whoever runs this the right to write there"
        ) from None
    if probe.name not in {path.name for path in folder.iterdir()}:
        raise DisorderError(f"{folder} does not list what was written to it a moment ago")
    probe.unlink()
    return f"{folder} can be written to"


def _inbox(settings: Settings) -> str:
    """Returns that files of rides can be had from their folder, and receipts be put there."""
    inbox = settings.inbox
    if inbox is None or (is_local(inbox) and not inbox.is_dir()):
        raise DisorderError(f"SCORING_INBOX: expected a folder, received {inbox}: make it, or correct SCORING_INBOX")
    return _writable("SCORING_INBOX", inbox)


def _workers(settings: ExecutionSettings) -> str:
    """Returns that the cluster can do the work."""
    with Workers(settings) as workers:
        return f"{workers.count} at {settings.cluster_url}, with the versions and the code of this process"


def _published(settings: Settings, approvals: Approvals | None) -> str:
    """Returns which months the source has: some that are worked on, none of which waits until it is whole."""
    source = make_source(settings)
    published = source.months()
    months = sorted(covered(published, settings, datetime.now(UTC)))
    if not months:
        raise DisorderError(nothing_to_work_on(source, published, settings))
    compared = dict[str, str]()
    if approvals is not None:
        with approvals.ledger.reading() as entries:
            compared = {subject: comparison.revision for subject, comparison in entries.comparisons().items()}
    rides = source.rides()
    for month in months:
        is_new = compared.get(str(month)) != published[month]
        why = why_waiting(source, month, published[month], rides, settings, settings.lake) if is_new else None
        if why is not None:
            raise DisorderError(f"{settings.trip_source}: {why}")
    return f"{settings.trip_source}: {told_months(months)}"


def _not_read(settings: FolderSettings) -> str:
    """Returns which files in the folder of trips are not read, though somebody may think so."""
    try:
        told = Folder.from_settings(settings).not_read()
    except SourceError:
        raise NothingToExamineError("see trips") from None
    return "; ".join(told) or "none: every file of trips in TRIP_FOLDER is read"


def _newest_month(settings: Settings) -> str:
    """Returns how many of some trips of the newest month can be learned from, as its checks find it."""
    source = make_source(settings)
    try:
        published = source.months()
    except CannotTellError as doubt:
        published = doubt.before
    newest = max(covered(published, settings, datetime.now(UTC)), default=None)
    if newest is None:
        raise NothingToExamineError("there is none to look at: see trips")
    found = source.sample(newest)
    return f"{newest}: {_usable(found, newest, settings)}"


def _base_years(settings: Settings, approvals: Approvals | None) -> str:
    """Returns how many of some trips of the base years can be learned from; a folder has some for a first model."""
    source = make_source(settings)
    try:
        source.base_revision()
        return _usable(source.sample(None), None, settings)
    except NoBaseError as error:
        is_needed = settings.trip_source == "folder" and not _was_promoted(approvals)
        if is_needed:
            raise DisorderError(f"{error}. {IF_NO_BASE_YEARS}") from None
        return f"none: {_WITHOUT_BASE_YEARS}"


def _was_promoted(approvals: Approvals | None) -> bool:
    """Returns whether something was in production."""
    if approvals is None:
        return False
    with approvals.ledger.reading() as entries:
        return entries.last_promotion() is not None


def _usable(sample: Sample | None, month: Month | None, settings: Settings) -> str:
    """Returns how many of some trips can be learned from, by the rules of the assets and their checks.

    Args:
        sample: The trips; None where no setting says what their columns are.
        month: Which they are of; None: of the base years, of which as large a share has to be usable as of a month.
        settings: Say what is expected of them.
    """
    if sample is None:
        return f"as {settings.trip_source} has them: no setting says what their columns are"
    found, target = sample.published, settings.target_facts
    trips = found.trips
    ensure_target(target, found.known(target.column), len(trips), found.origin)
    cleaned = clean(trips, settings.city_facts, target).trips
    first, last = trips["pickup_datetime"].min(), trips["pickup_datetime"].max()
    says = (
        f"{found.origin}: {len(cleaned):,} of the {len(trips):,} trips looked at, {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"can be learned from{_of_all(sample.share)}"
    )
    names = dict(settings.trip_columns)
    faults = [why] if (why := why_dropped(trips, settings.city, target, names)) is not None else []
    beside = [] if faults or (few := left_out(trips, settings.city, target, names)) is None else [few]
    if month is None:  # no check would stop them: what is left of them is learned from, however little
        found_wrong = tuple(rule for rule in inspect_clean(cleaned, len(trips), COORDINATES) if not rule.is_passed)
    else:
        is_all = sample.share == 1 or (sample.share is None and len(trips) < SAMPLE_ROWS)
        minimum_trips = settings.minimum_trips if is_all else 0
        raw = Trips(Edition(str(month), found.revision), trips)
        found_wrong = faults_of(raw, cleaned, month, minimum_trips, COORDINATES)
    faults += (rule.in_words(names) for rule in found_wrong)
    remark = sample.offsets.remark(settings.city_facts.name)
    told = "; ".join([says, *([] if remark is None else [remark]), *faults, *beside])
    if faults:
        raise DisorderError(told)
    return told


def _of_all(share: float | None) -> str:
    """Returns which share of what is there was looked at."""
    if share is None:
        return ""
    return " (all of the file)" if share == 1 else f" ({share:.1%} of the file, in blocks spread over all of it)"


def _dropoffs(settings: Settings) -> str:
    """Returns how many trips of the latest month say when they ended; reads that month."""
    source, target = make_source(settings), settings.target_facts
    published = source.months()
    month = max(covered(published, settings, datetime.now(UTC)), default=None)
    if month is None:
        raise DisorderError(nothing_to_work_on(source, published, settings))
    newest = month_with(target, source, month)
    share = newest.known(target.column) / len(newest.pickups)
    return f"{share:.1%} of the trips of {month} have one"


def _ledger(approvals: Approvals) -> str:
    """Returns how much the ledger holds."""
    with approvals.ledger.reading() as entries:
        (asked, waiting), kinds = entries.counts(), [change.kind for change in entries.promotions()]
    asked_in_all, promoted = counted(asked, "requests"), counted(kinds.count("promotion"), "promotions")
    back = counted(kinds.count("rollback"), "rollbacks")
    return f"{asked_in_all}, {waiting} of them {_wait(waiting)} for an answer, {promoted}, {back}"


def _tokens(approvals: Approvals, settings: Settings) -> str:
    """Returns that the links of questions that wait were made with the key in force."""
    told = ToldHeads(settings.home, approvals.ledger.place).read()
    with approvals.ledger.reading() as entries:
        waiting = {request.id: f"Request {request.id}" for request in entries.open_requests()}
        agreement, alarm = standing.read(entries).open, alarms.read(entries).open
    if agreement is not None:
        waiting[agreement.id] = f"Standing approval {agreement.id}"
    if alarm is not None:
        waiting[alarm.id] = f"Alarm {alarm.id}"
    keys = {
        name: key
        for one in told
        for name, message in waiting.items()
        if one.is_about(message) and (key := one.key) is not None
    }
    # Asked for, the fingerprint of a lost key would be that of a new one, made by looking.
    is_lost = settings.approval_secret is None and not (settings.home / KEPT_IN).exists()
    dead = [name for name, key in keys.items() if is_lost or key != approvals.tokens.fingerprint]
    if dead:
        raise DisorderError(
            f"the key of the approval tokens (APPROVAL_SECRET, or {settings.home / KEPT_IN}) is another than when "
            f"{len(dead)} of the questions that wait were sent: their links are dead. Put the key back, or have fresh "
            f"links sent: {'; '.join(f'taxifare ask-again {name}' for name in dead[:_EXAMPLES])}"
        )
    if not waiting:
        return "no question waits for an answer"
    links = f"the links of {len(keys)} work" if keys else "no channel has had a message about it from here"
    return f"{len(waiting)} {_wait(len(waiting))} for an answer; {links}"


def _wait(questions: int) -> str:
    return "waits" if questions == 1 else "wait"


def _approval(approvals: Approvals, settings: Settings) -> str:
    """Returns who decides; where that is a standing approval, whether one covers the months that come next."""
    with approvals.ledger.reading() as entries:
        return standing.who_decides(entries, settings)


def _chain(approvals: Approvals, home: Path) -> str:
    """Returns what of the ledger was found as it was written, and as people were told."""
    return str(verify(approvals.ledger, ToldHeads(home, approvals.ledger.place).read()))


def _registry(registry: ModelRegistry) -> str:
    """Returns what MLflow says is in production."""
    production, staging = registry.production_version(), registry.staging_version()
    return f"{named_version(production)} is in production, {named_version(staging)} is staging"


def _versions(approvals: Approvals, registry: ModelRegistry) -> str:
    """Returns that production, and what people are asked about, have the files that were registered."""
    with approvals.ledger.reading() as entries:
        history, asked, known = entries.promotions(), entries.open_requests(), entries.contents()
    faults = [
        f"{fault}, or run {request.subject} again, which is asked about anew"
        for request in asked
        if (fault := _fault_of(request.staging_version, registry)) is not None
    ]
    production = history[-1].version if history else None
    if production is not None and (fault := _fault_of(production, registry)) is not None:
        earlier = _last_usable([entry.version for entry in history], production, registry)
        after = "" if earlier else "; then base_job, or the next month, makes a new start that is asked about"
        faults.append(
            f'{fault}, or go back: taxifare rollback --to {earlier or NOTHING} --by YOU --reason "WHY"{after}'
        )
    if faults:
        raise DisorderError("; ".join(faults))
    return f"{len(known)} on record; production and what is asked about have the files that were registered"


def _fault_of(version: str, registry: ModelRegistry) -> str | None:
    """Returns what is wrong with a version, None if it is what was registered."""
    try:
        registry.verify(version)
    except NotOnRecordError as error:
        return str(error)
    except VersionUnusableError as error:
        content = registry.contents.of(version)
        names = [] if content is None else registry.names_of(content.run_id)
        renamed = f". The registered model {names[0]} has it: set MODEL_NAME={names[0]}" if names else ""
        return f"{error}{renamed}"
    return None


def _last_usable(versions: Sequence[str | None], production: str, registry: ModelRegistry) -> str | None:
    """Returns the last version before production that is what was registered, None where there is none."""
    for version in reversed(versions):
        if version not in {None, production} and _fault_of(str(version), registry) is None:
            return version
    return None


def _artifacts(settings: MlflowSettings, registry: ModelRegistry) -> str:
    """Returns where the files of runs and models are; to a bucket of ours a file is written and removed."""
    place, wanted = registry.store.artifacts(), settings.mlflow_artifact_location
    if wanted is not None and not place.startswith(wanted.rstrip("/")):
        raise DisorderError(
            f"the files of experiment {settings.mlflow_experiment} are in {place}, MLFLOW_ARTIFACT_LOCATION says "
            f"{wanted}: an experiment keeps the place it was created with; name a new one in MLFLOW_EXPERIMENT"
        )
    return f"in {place}" if settings.artifacts is None else _writable("MLFLOW_ARTIFACT_LOCATION", settings.artifacts)


def _agreement(approvals: Approvals, registry: ModelRegistry) -> str:
    """Returns that ledger and registry tell the same story."""
    approvals.ensure_told()
    with approvals.ledger.reading() as entries:
        last, pending = entries.last_promotion(), entries.pending()
    recorded, alias = None if last is None else last.version, registry.production_version()
    if recorded != alias and recorded is not None and _fault_of(recorded, registry) is not None:
        raise DisorderError(
            f"the ledger says version {recorded} is production, which MLflow does not have as it was registered: see "
            "versions"
        )
    if recorded != alias:
        raise DisorderError(
            f"the ledger says {named_version(recorded)} is production, MLflow says {alias or 'nothing'}: "
            "a command was killed or somebody moved the alias by hand; the next command or run repairs it"
        )
    gone = {version for versions in pending.values() for version in versions if not _is_there(version, registry)}
    untold = [event for event, versions in pending.items() if gone.isdisjoint(versions)]
    if untold:
        some = ", ".join(untold[:_EXAMPLES]) + (", …" if len(untold) > _EXAMPLES else "")
        raise DisorderError(
            f"MLflow has not been told of {counted(len(untold), 'events')} ({some}); the next commands and runs tell it"
        )
    return f"they agree; MLflow does not have versions {', '.join(sorted(gone))} any more" if gone else "they agree"


def _in_force(approvals: Approvals, publisher: LakePublisher, settings: Settings) -> str:
    """Returns that those who price rides find the version in production, and that it answers as it should."""
    with approvals.ledger.reading() as entries:
        last, asked = in_use(entries, approvals.now())
    if last is None:
        return "nothing was promoted"
    found = publisher.found()
    difference = publisher.difference(found, last)
    if found is None or difference is not None:
        raise DisorderError(str(difference))
    if found.digest is None:
        return in_force.taken_out(found)
    try:
        Bundle.read(in_force.bundles_in(settings.lake) / found.digest, city=settings.city, target=settings.target)
    except BundleError as error:
        raise DisorderError(f"{error}; it is made anew by: taxifare bundle {found.version}") from None
    shadow = _in_shadow(asked, last, publisher)
    return f"version {found.version}, promotion {found.sequence}, bundle {found.digest[:12]}; in shadow {shadow}"


def _calendar(approvals: Approvals, settings: Settings) -> str:
    """Returns which dated rules what prices rides has not learned; none of them is a concern."""
    with approvals.ledger.reading() as entries:
        found = calendar_in(entries, settings, approvals.now())
    says = found.told(settings.target_facts.unit)
    if found.concerns:
        raise DisorderError(says)
    return says


def _in_shadow(asked: Request | None, beside: Promotion, publisher: LakePublisher) -> str:
    """Returns which version those who price rides find in shadow, and that it is the one that is asked about."""
    if not publisher.is_in_shadow(asked, beside):
        raise DisorderError(
            f"expected {named_version(None if asked is None else asked.staging_version)} in shadow, received "
            "something else; the next command or run publishes it: taxifare bundle"
        )
    if asked is None:
        return "is nothing"
    if publisher.made_of(asked.staging_version) is None:
        return f"is nothing: version {asked.staging_version} has no bundle yet, taxifare bundle makes it"
    return f"is version {asked.staging_version}"


def _is_there(version: str, registry: ModelRegistry) -> bool:
    """Returns whether MLflow, which answers, has the version: one that was deleted cannot be told its story."""
    try:
        registry.describe(version)
    except RegistryError:
        return False
    return True


def _chat(settings: AskingSettings) -> str:
    """Returns that the chat answers, or where questions are shown without one."""
    if settings.chat_base_url is None:
        return "none is set; without any channel questions are shown in make dev's terminal and on their run's page"
    url = settings.chat_base_url.get_secret_value()
    try:
        answer = requests.get(url, timeout=_TIMEOUT_S, allow_redirects=False, stream=True)
    except requests.RequestException as error:
        raise DisorderError(f"{shown(url)} does not answer: {type(error).__name__}") from None
    with answer:
        if answer.status_code >= requests.codes.internal_server_error:
            raise DisorderError(f"{shown(url)} answers {answer.status_code} {answer.reason}")
    return f"{shown(url)} answers"
