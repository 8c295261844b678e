"""How a series ended: what became of each row, as a result, as a file and as a table for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from prefect_kling.flows.outcome import MOST_NAMED, Rendering, said_of
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    InsufficientCredits,
    KlingError,
    LedgerUnavailable,
    PurchaseUncertain,
)
from prefect_kling.tasks.results import Film

__all__ = ["FOR_EVERY_ROW", "Series", "SeriesRow"]

FOR_EVERY_ROW: tuple[type[KlingError], ...] = (AuthenticationFailed, InsufficientCredits, LedgerUnavailable)
"""What stops one film in this way stops the next one as well."""

MOST_SHOWN = 1000
"""Rows in the UI's table: it loads whole artifacts, and the file has all of them."""

_KINDS: tuple[type[KlingError], ...] = (PurchaseUncertain, BudgetExceeded, *FOR_EVERY_ROW)
_TOLD_FIRST = [kind.__name__ for kind in _KINDS]
_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$!&])")


class SeriesRow(BaseModel):
    """What became of one row.

    Attributes:
        number: of the row, from 1.
        place: `FILE:LINE` where it stands; empty where it was given directly.
        title: its film's; empty where the row could not be planned.
        status: `rendered`; `kept` where its film was there already; `failed`; or `not-begun` where something that holds
            for every row came between.
        film: where it is in storage.
        seconds: how long it plays.
        usd: what this run bought for it, at the most that it can cost.
        error_type, error: class and message of what went wrong; of a rendered film, what has to be known of it, such as
            a take that is missing or a softer prompt that was used.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    place: str = ""
    title: str = ""
    status: Literal["rendered", "kept", "failed", "not-begun"]
    film: str | None = None
    seconds: float | None = None
    usd: Decimal = Decimal(0)
    error_type: str | None = None
    error: str | None = None

    @property
    def called(self) -> str:
        """What people call it."""
        where = ", ".join(filter(None, (self.place, self.title)))
        return f"row {self.number} ({where})" if where else f"row {self.number}"

    def as_kept(self, film: Film) -> Self:
        """The row, with a film that was there already."""
        return self.model_copy(update={"status": "kept", "film": film.path, "seconds": film.seconds})

    def as_ended(self, rendering: Rendering) -> Self:
        """The row, with what became of its film."""
        kinds = sorted(
            rendering.error_types,
            key=lambda kind: _TOLD_FIRST.index(kind) if kind in _TOLD_FIRST else len(_TOLD_FIRST),
        )
        found: dict[str, Any] = {"usd": rendering.usd, "error_type": kinds[0] if kinds else None}
        film = rendering.film
        if film is None:
            return self.model_copy(update={**found, "status": "failed", "error": _reasons(rendering)})
        told = "; ".join(rendering.remarks()) or None
        return self.model_copy(
            update={**found, "status": "rendered", "film": film.path, "seconds": film.seconds, "error": told}
        )

    def as_failed(self, error: Exception, usd: Decimal = Decimal(0)) -> Self:
        """The row, with the error that stopped it and what was spent all the same."""
        told = {"error_type": type(error).__name__, "error": said_of(error)}
        return self.model_copy(update={"status": "failed", "usd": usd, **told})

    def stops_others(self) -> KlingError | None:
        """What stopped this row, where it would stop every other."""
        kind = next((kind for kind in FOR_EVERY_ROW if kind.__name__ == self.error_type), None)
        return None if kind is None else kind(f"{self.called} was stopped: {self.error}")

    def as_not_begun(self, error: KlingError) -> Self:
        """The row, with the error that stopped what came before it."""
        return self.model_copy(
            update={"status": "not-begun", "error_type": type(error).__name__, "error": f"not begun: {said_of(error)}"}
        )


class Series(BaseModel):
    """A whole series: what became of each row, in their order.

    Attributes:
        name: of the series: its rows' file, or its document.
        edition: that the films are of.
        rows: all of them.
        summary: where the same is kept as JSON; None where it could not be written.
        unwritten: why the summary could not be written or shown; empty where it was.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    edition: str
    rows: tuple[SeriesRow, ...]
    summary: str | None = None
    unwritten: str = ""

    @property
    def usd(self) -> Decimal:
        """What this run bought, at the most that it can cost."""
        return sum((row.usd for row in self.rows), Decimal(0))

    @property
    def films(self) -> tuple[SeriesRow, ...]:
        """The rows that have a film, made now or before."""
        return tuple(row for row in self.rows if row.film is not None)

    @property
    def failures(self) -> tuple[SeriesRow, ...]:
        """The rows that went wrong themselves; those that were not begun are not among them."""
        return tuple(row for row in self.rows if row.status == "failed")

    def sentence(self) -> str:
        """One line for a run's final state."""
        kept = len([row for row in self.rows if row.status == "kept"])
        again = f" ({kept} made before)" if kept else ""
        beside = [f"{row.called}: {row.error}" for row in self.films if row.error]
        unwritten = f"; the summary could not be written: {self.unwritten}" if self.unwritten else ""
        said = f"{len(self.films)} of {len(self.rows)} films are there{again}, {self.usd:.2f} USD{unwritten}"
        said += "".join(f"; {remark}" for remark in beside[:MOST_NAMED])
        if len(self.films) == len(self.rows):
            return said
        reasons = [f"{row.called}: {row.error}" for row in self.failures[:MOST_NAMED]]
        if len(self.failures) > MOST_NAMED:
            reasons.append(f"and {len(self.failures) - MOST_NAMED} more")
        waiting = [row for row in self.rows if row.status == "not-begun"]
        if waiting:
            reasons.append(f"{len(waiting)} {waiting[0].error}")
        todo = "Mend what is named and run again: what is kept is used again and costs nothing."
        return f"{said}. {len(self.failures)} failed. {'; '.join(reason.rstrip('.') for reason in reasons)}. {todo}"

    def document(self) -> dict[str, Any]:
        """The series as JSON: what the summary and `--json` hold."""
        return {
            "name": self.name,
            "edition": self.edition,
            "films": len(self.films),
            "kept": len([row for row in self.rows if row.status == "kept"]),
            "failed": len(self.failures),
            "not_begun": len(self.rows) - len(self.films) - len(self.failures),
            "usd": float(self.usd),
            "rows": [row.model_dump(mode="json") | {"usd": float(row.usd)} for row in self.rows],
        }

    def markdown(self, link: Callable[[str], str]) -> str:
        """The series as a page for the UI.

        Args:
            link: gives a film's public URL, or its location where it has none.
        """
        rows = self._shown()
        table = ["| row | film | status | seconds | USD | what went wrong |", "|--:|---|---|--:|--:|---|"]
        table += [_line(row, link) for row in rows]
        lines = [f"# {_escaped(self.name)}", "", _escaped(self.sentence()), "", *table]
        if len(rows) < len(self.rows):
            lines += ["", f"{len(self.rows) - len(rows):,} more rows are in the summary."]
        if self.summary is not None:
            lines += ["", f"Summary: {_escaped(link(self.summary))}"]
        return "\n".join(lines) + "\n"

    def _shown(self) -> Sequence[SeriesRow]:
        """All rows, or the most important of them: those without a film come first."""
        first = sorted(self.rows, key=lambda row: row.film is not None)[:MOST_SHOWN]
        return sorted(first, key=lambda row: row.number)


def _reasons(rendering: Rendering) -> str:
    """Why there is no film, in few words: the series says what to do."""
    if not rendering.failures:
        return f"its shots are stored, but not joined: {rendering.error}"
    told = [f"{shot.id}: {shot.error}" for shot in rendering.failures]
    more = f"; and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return "; ".join(told[:MOST_NAMED]) + more


def _line(row: SeriesRow, link: Callable[[str], str]) -> str:
    title = _escaped(row.title or row.place)
    if row.film is not None:
        shown = link(row.film)
        title = f"[{title}](<{shown}>)" if shown.startswith(("http://", "https://")) else f"{title}: {_escaped(shown)}"
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    return f"| {row.number} | {title} | {row.status} | {seconds} | {row.usd:.2f} | {_escaped(row.error or '')} |"


def _escaped(text: str) -> str:
    """Text that stays one cell of a table, and nothing but text, in markdown."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
