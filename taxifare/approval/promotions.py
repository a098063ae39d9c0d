"""Promotions: which version is production, how another one becomes it, and which one a rollback goes back to.

Rules over the ledger's entries within one transaction; `approvals` opens it, and tells the registry afterwards.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from taxifare.approval import alarms, requests
from taxifare.approval.errors import RollbackError
from taxifare.approval.ledger import NOTHING, Entries
from taxifare.approval.records import Outcome, Promotion, Request, RequestState
from taxifare.texts import named_version, one_line


def production(entries: Entries) -> str | None:
    """Returns the version in production, None where nothing was promoted or the model was taken out."""
    last = entries.last_promotion()
    return last.version if last else None


def in_use(entries: Entries, now: datetime) -> tuple[Promotion | None, Request | None]:
    """Returns the promotion in force, and the last open question about replacing its version, if there is one."""
    last = entries.last_promotion()
    return last, None if last is None else requests.last_open(entries, last.version, now)


def promote(
    entries: Entries, version: str | None, now: datetime, *, by: str, reason: str, request: Request | None = None
) -> Promotion:
    """Returns the entry that makes a version production, recorded; open questions about another one become void.

    Args:
        entries: The ledger's, which accept it only on top of the last entry.
        version: The version, None for none at all.
        now: When.
        by: Who decided.
        reason: Why.
        request: The approved request; None for a rollback.
    """
    last = entries.last_promotion()
    promotion = Promotion(
        sequence=last.sequence + 1 if last else 1,
        version=version,
        replaced_version=last.version if last else None,
        kind="promotion" if request else "rollback",
        request_id=request.id if request else None,
        by=by,
        reason=reason,
        evidence_digest=request.evidence_digest if request else None,
        promoted_at=now,
    )
    entries.promote(promotion)
    requests.void_stale(entries, version, now)
    alarms.void_overtaken(entries, now)
    return promotion


def is_repeated(last: Promotion, to: str | None, by: str, reason: str) -> bool:
    """Returns whether a rollback repeats the last one: a command that was killed can be repeated."""
    return (last.kind, last.by, last.reason) == ("rollback", by, reason) and to in {None, last.version or NOTHING}


def rolled_back(history: Iterable[Promotion]) -> dict[str, Promotion]:
    """Returns the rollback that took each version out of production, by version; none for one that came back since.

    Production has a line: versions approved one after the other. Whoever goes back past several versions takes out all
    of them; whoever goes back to nothing, every one that was left; whoever puts one back puts back its line.

    Args:
        history: Every promotion and rollback, in order.
    """
    found: dict[str, Promotion] = {}
    line: tuple[str, ...] = ()
    lines: dict[str | None, tuple[str, ...]] = {None: ()}
    for change in history:
        if change.kind == "rollback" or change.version is None:
            before, line = line, lines.get(change.version, ())
            kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, line, strict=False)))
            found |= dict.fromkeys(before[kept:], change)
            back = line[kept:]
        else:
            back, line = (change.version,), (*line, change.version)
            lines[change.version] = line
        for version in back:
            found.pop(version, None)
    return found


def taken_out_since(
    request: Request, outcome: Outcome | None, rolled_back: Mapping[str, Promotion]
) -> Promotion | None:
    """Returns the rollback that has since taken out what was approved; None without one, or where nothing was.

    Args:
        request: The question.
        outcome: How it ended; None while it is open.
        rolled_back: The rollbacks, see `rolled_back`.
    """
    is_approved = outcome is not None and outcome.state is RequestState.APPROVED
    return rolled_back.get(request.staging_version) if is_approved else None


def rolled_back_in_words(version: str, change: Promotion) -> str:
    """Returns what a person should know before a version that was rolled back is put into production again."""
    is_last = version == change.replaced_version
    was = f"was in production until {change.promoted_at:%Y-%m-%d}, when" if is_last else "was in production before"
    past = "" if is_last else f"; on {change.promoted_at:%Y-%m-%d}"
    to, why = named_version(change.version), one_line(change.reason)
    return f"version {version} {was}{past} {one_line(change.by)} went back to {to}: {why}"


def earlier_version(history: Sequence[Promotion], to: str | None) -> str | None:
    """Returns the version to go back to: the one named, else the one that the present version replaced.

    Args:
        history: Every promotion and rollback, in order; at least one.
        to: The version; `NOTHING` takes the model out of production, and None is returned.

    Raises:
        RollbackError: It replaced nothing, or the one named was never production or is so already.
    """
    if to == NOTHING:
        if history[-1].version is None:
            raise RollbackError("nothing is in production already; taxifare history shows what was")
        return None
    present = history[-1].version
    if to is None:
        # What it replaced when it was promoted, not what a rollback took away: going back twice must not go forward.
        to = next(
            (
                entry.replaced_version
                for entry in reversed(history)
                if (entry.version, entry.kind) == (present, "promotion")
            ),
            None,
        )
        if to is None:
            raise RollbackError(
                f"{'nothing is in production' if present is None else f'nothing came before version {present}'}; name "
                f"the version to put back, or {NOTHING}: --to of taxifare rollback. taxifare history lists them"
            )
    if to == present:
        raise RollbackError(f"version {to} is production already: there is nothing to go back to. See taxifare history")
    if to not in {entry.version for entry in history}:
        raise RollbackError(
            f"version {to} was never production, so there is nothing to go back to: a new version takes a request and "
            f"a decision, and --to {NOTHING} takes the model out. taxifare history lists what was, taxifare requests "
            "what is asked"
        )
    return to
