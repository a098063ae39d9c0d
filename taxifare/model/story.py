"""What a version's tags come to, in the words that its page in MLflow opens with."""

from collections.abc import Mapping

KEPT_INSTEAD_TAG = "kept_instead"
"""On a version that was no closer than an earlier one where it was judged: that version, which was kept."""

NOTHING = "-"
"""The value of a tag that says nothing."""


def story(tags: Mapping[str, str]) -> str:
    """Returns what a version learned, what was decided about it, and when it was in production.

    >>> asked = {"verdict": "PROMOTE", "request": "2015-02-v3-d4a5471a", "decision": "approved"}
    >>> answered = asked | {"decided_by": "Ada", "decision_reason": "gain on airports"}
    >>> promoted = answered | {"promoted_at": "2015-03-02T09:00:00+00:00", "replaced": "1", "replaced_by": "-"}
    >>> print(story({"month": "2015-02", "parent_version": "2"} | promoted))
    Learned 2015-02, starting from version 2.
    Verdict PROMOTE. Request 2015-02-v3-d4a5471a: approved by Ada: gain on airports.
    In production since 2015-03-02, in place of version 1.
    >>> print(story({"month": "2015-02", "parent_version": "2", "asked_about": "2015-03"} | asked | answered))
    Learned 2015-02, starting from version 2.
    Verdict PROMOTE on 2015-03, where nothing trained on it was closer. Request 2015-02-v3-d4a5471a: approved by Ada:
    gain on airports.
    >>> print(story({"month": "2015-03", "parent_version": "3", "kept_instead": "3"}))
    Learned 2015-03, starting from version 3.
    No closer than version 3 on the month's latest rides: version 3 was kept, and nobody is asked about this one.
    """
    return "\n".join([_learned(tags), *_decided(tags), *_promoted(tags)])


def _learned(tags: Mapping[str, str]) -> str:
    if (approved := tags.get("whole_month_of")) is not None:
        return (
            f"Version {approved}, trained further on its whole month: what the next month's candidate may start from."
        )
    subject, parent = tags.get("month", "trips"), tags.get("parent_version")
    learned = "the base years" if subject == "base" else subject
    return f"Learned {learned}, starting from {'random weights' if parent is None else f'version {parent}'}."


def _decided(tags: Mapping[str, str]) -> list[str]:
    if "request" not in tags:
        return _unasked(tags)
    answer = "waits for an answer"
    if tags["decision"] != "requested":
        by, why = (tags[name] for name in ("decided_by", "decision_reason"))
        answer = tags["decision"] + ("" if by == NOTHING else f" by {by}") + ("" if why == NOTHING else f": {why}")
    learned, about = tags.get("month"), tags.get("asked_about")
    is_later = learned is not None and about not in {None, learned}
    later = f" on {about}, where nothing trained on it was closer" if is_later else ""
    return [f"Verdict {tags['verdict']}{later}. Request {tags['request']}: {answer.removesuffix('.')}."]


def _unasked(tags: Mapping[str, str]) -> list[str]:
    if (kept := tags.get(KEPT_INSTEAD_TAG, NOTHING)) != NOTHING:
        same = f"No closer than version {kept} on the month's latest rides"
        return [f"{same}: version {kept} was kept, and nobody is asked about this one."]
    return ["Nobody was asked about it."]


def _promoted(tags: Mapping[str, str]) -> list[str]:
    if "promoted_at" not in tags:
        return []
    before, after = tags["replaced"], tags["replaced_by"]
    told = f"In production since {tags['promoted_at'][:10]}"
    told += "" if before == NOTHING else f", in place of version {before}"
    if after != NOTHING:
        told += ", until it was withdrawn" if after == "none" else f", until version {after} replaced it"
    return [f"{told}."]
