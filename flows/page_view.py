"""What a run's page in the Prefect UI says of its shots, in markdown. Pure.

Text from documents and gateways is escaped: nothing in a title or an error draws links or pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from prefect_kling.flows.progress import Step

__all__ = ["PageShot", "artifact_key", "done_share", "escaped", "linked", "summary"]

MOST_ROWS: Final = 200
"""A page with more rows is slow in a browser."""
MOST_PICTURES: Final = 100
"""Shots with a picture in the table: Prefect's lists carry the table whole, and it has to stay under 1 MB."""
MOST_KEY: Final = 60
_SHARE: Final[dict[str, float]] = {
    "buying": 0.05,
    "generating": 0.1,
    "downloading": 0.9,
    "checking": 0.95,
    "stored": 1.0,
    "kept": 1.0,
}
_NAMES: Final[dict[str, str]] = {
    "planned": "Planned",
    "waiting": "Waiting",
    "buying": "Buying",
    "softened": "In softer words",
    "generating": "Generating",
    "downloading": "Downloading",
    "checking": "Checking",
    "retaking": "Taking again",
    "stored": "Stored",
    "kept": "Kept",
    "failed": "**Failed**",
    "blocked": "Blocked",
}
_FIRST_SHOWN: Final = {"failed": 0, "blocked": 1, "stored": 3, "kept": 4, "planned": 5}
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")


@dataclass
class PageShot:
    """A shot's row.

    Attributes:
        id: of the shot.
        step: the last thing that happened to it.
        note: what there is to say about that.
        seconds: of the clip, or as planned.
        take: which one the film uses.
        usd: what this run bought for it.
        picture: a `data:` URI, or empty.
    """

    id: str
    step: Step = "planned"
    note: str = ""
    seconds: float = 0.0
    take: int = 1
    usd: Decimal = field(default_factory=Decimal)
    picture: str = ""


def done_share(shots: Iterable[PageShot]) -> float:
    """How much of the shots' way to a clip is behind them, from 0 to 100."""
    shares = [_SHARE.get(shot.step, 0.0) for shot in shots]
    return round(100 * sum(shares) / len(shares), 1) if shares else 0.0


def summary(title: str, edition: str, shots: Sequence[PageShot], usd: Decimal, *, note: str = "", end: str = "") -> str:
    """The page's table.

    Args:
        title, edition: of the storyboard and the run.
        shots: in the document's order. Of more than 200 those are shown that failed, and those that are on their way.
        usd: what the run has bought for, what is under way included.
        note: what the run waits for, or why it has stopped, in markdown.
        end: how the run has ended, in markdown; empty while it goes on.
    """
    there = len([shot for shot in shots if shot.step in ("stored", "kept")])
    head = f"Edition {escaped(edition)}: {there} of {len(shots)} clips are there; this run has spent {usd:.2f} USD."
    rows = _rows(_shown(shots))
    left = len(shots) - MOST_ROWS
    more = f"{left} more shots are not shown." if left > 0 else ""
    said = (end,) if end else (head, note)
    return "\n\n".join(filter(None, (f"# {escaped(title)}", *said, rows, more))) + "\n"


def _rows(shots: Sequence[PageShot]) -> str:
    pictures = any(shot.picture for shot in shots)
    columns = ["Shot", "State", "Take", "Seconds", "USD", *(["Picture"] if pictures else []), "Note"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for shot in shots:
        picture = [f"![]({shot.picture})" if shot.picture else ""] if pictures else []
        numbers = [str(shot.take), f"{shot.seconds:.1f}", f"{shot.usd:.2f}" if shot.usd else ""]
        lines.append(f"| {' | '.join([escaped(shot.id), _NAMES[shot.step], *numbers, *picture, escaped(shot.note)])} |")
    return "\n".join(lines)


def _shown(shots: Sequence[PageShot]) -> Sequence[PageShot]:
    if len(shots) <= MOST_ROWS:
        return shots
    first = sorted(range(len(shots)), key=lambda number: (_FIRST_SHOWN.get(shots[number].step, 2), number))
    return [shots[number] for number in sorted(first[:MOST_ROWS])]


def escaped(text: str) -> str:
    """A text as it is, whatever it would mean in markdown; in one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def linked(text: str, location: str) -> str:
    """A link where a browser can follow it, else where the file is."""
    if location.startswith(("http://", "https://")):
        return f"[{escaped(text)}](<{location.replace('>', '%3E')}>)"
    return f"{escaped(text)}: {escaped(location)}"


def artifact_key(kind: str, title: str) -> str:
    """An artifact's name, by which Prefect keeps its versions together: small letters, digits and hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:MOST_KEY].strip("-")
    return "-".join(filter(None, (kind, words)))
