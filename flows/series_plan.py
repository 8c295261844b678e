"""Everything about a series that can be known before its first film is begun: rows, plans, what is there, the cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from prefect_kling.flows.films import film_name, rendered_before
from prefect_kling.flows.preparing import Prepared, Wish, check_balance, reckoned
from prefect_kling.flows.series_outcome import FOR_EVERY_ROW, SeriesRow
from prefect_kling.flows.standing import standings
from prefect_kling.gateway.errors import BudgetExceeded, StoryboardError
from prefect_kling.gateway.prices import micro_usd
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.money import Limits, Spent, refusal
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.document import Storyboard, slug
from prefect_kling.storyboard.drafts import draft_edition
from prefect_kling.storyboard.places import did_you_mean
from prefect_kling.storyboard.reader import variables_named
from prefect_kling.storyboard.rows import Row, read_rows, rows_of

__all__ = ["PlannedRow", "SeriesPlan", "SeriesWish", "budget_of", "money_refusal", "plan_series"]


@dataclass(frozen=True)
class SeriesWish:
    """What a series is asked for.

    Attributes:
        storyboard: the path or URL of the document, or the document itself.
        rows: the path or URL of the rows, or the rows themselves.
        variables: for all rows; a row's own value wins.
        edition: separates runs that are meant to give new films.
        draft: try it cheaply.
        allow_outside: the document may use files outside of its folder.
        budget: USD for the whole series.
    """

    storyboard: Storyboard | str
    rows: str | Sequence[Mapping[str, Any]]
    variables: Mapping[str, str] = field(default_factory=dict)
    edition: str = "main"
    draft: bool = False
    allow_outside: bool = False
    budget: Decimal | None = None

    @property
    def name(self) -> str:
        """What the series is called: like its rows' file, or like its document."""
        source = self.rows if isinstance(self.rows, str) else self.storyboard
        if isinstance(source, Storyboard):
            return slug(source.title)
        return slug(PurePosixPath(source.partition("?")[0]).stem)


@dataclass(frozen=True)
class PlannedRow:
    """One row, and how its film stands.

    Attributes:
        row: what became of it so far: `kept`, `failed`, or not begun.
        variables: what its film is rendered with: those that the document names.
        film: the name of its film in storage; empty where it cannot be planned.
        micro_usd, usd: what it costs at most, and most likely.
        held: micro-dollars that another run holds for the very same document.
    """

    row: SeriesRow
    variables: Mapping[str, str] = field(default_factory=dict)
    film: str = ""
    micro_usd: int = 0
    usd: Decimal = Decimal(0)
    held: int = 0


@dataclass(frozen=True)
class SeriesPlan:
    """A series, ready to be rendered.

    Attributes:
        wish: what is asked for.
        edition: that the films are of; a draft has one of its own.
        desk: who pays.
        rows: all of them.
        unused: columns that the document does not name.
    """

    wish: SeriesWish
    edition: str
    desk: Desk
    rows: tuple[PlannedRow, ...]
    unused: tuple[str, ...]

    @property
    def to_render(self) -> tuple[PlannedRow, ...]:
        """The rows whose films are to be made."""
        return tuple(planned for planned in self.rows if planned.row.status == "not-begun")

    @property
    def micro_usd(self) -> int:
        """The most that all of it will cost."""
        return sum(planned.micro_usd for planned in self.to_render)


async def plan_series(wish: SeriesWish, settings: StudioSettings, *, spent: int = 0) -> SeriesPlan:
    """Reads the rows, plans a film of each, looks up what is there, and makes sure that the rest could be paid.

    A row that cannot be planned fails alone. Nothing is bought.

    Args:
        wish: what is asked for.
        settings: of the studio.
        spent: micro-dollars that earlier attempts of this series have spent already.

    Raises:
        StoryboardError: the document or the rows cannot be read, or two rows would make one film.
        AuthenticationFailed: there is no key.
        BudgetExceeded, InsufficientCredits: all films together would cost more than there is.
        LedgerUnavailable: the ledger cannot be used.
        OSError: the storage cannot be written.
    """
    rows = await asyncio.to_thread(read_rows, wish.rows) if isinstance(wish.rows, str) else rows_of(wish.rows)
    named = await asyncio.to_thread(variables_named, wish.storyboard)
    for name in wish.variables:
        if name not in named:
            raise StoryboardError(
                f"the variable '{name}' is used nowhere in this document{did_you_mean(name, sorted(named))}"
            )
    ours = await desk(settings)
    await ours.client().aclose()
    await ours.ledger.reclaim(ours.account)
    planned = [await _planned(row, named, wish, settings) for row in rows]
    _refuse_one_film_of_two_rows(planned)
    columns = dict.fromkeys(name for row in rows for name in row.values)
    found = SeriesPlan(
        wish=wish,
        edition=draft_edition(wish.edition) if wish.draft else wish.edition,
        desk=ours,
        rows=tuple(planned),
        unused=tuple(name for name in columns if name not in named),
    )
    await _check_money(found, spent)
    await ours.storage().check()
    return found


def budget_of(usd: float | Decimal | None) -> Decimal | None:
    """A budget as it was given, checked.

    Raises:
        StoryboardError: it is no amount of money.
    """
    if usd is None:
        return None
    given = Decimal(str(usd))
    try:
        if micro_usd(given) > 0:
            return given
    except ValueError as error:
        raise StoryboardError(f"budget: {error}") from None
    raise StoryboardError(f"budget has to be an amount in USD above zero, not {usd}")


async def _planned(row: Row, named: frozenset[str], wish: SeriesWish, settings: StudioSettings) -> PlannedRow:
    begun = SeriesRow(number=row.number, place=row.place, status="not-begun")
    variables = {name: value for name, value in {**wish.variables, **row.values}.items() if name in named}
    asked = Wish(wish.edition, draft=wish.draft)
    try:
        reckoner = await reckoned(wish.storyboard, settings, variables, asked, allow_outside=wish.allow_outside)
        ours = reckoner.desk
        prepared = Prepared(reckoner.document, reckoner.planned, reckoner, await standings(reckoner), ours.limits)
        film = await rendered_before(prepared)
    except FOR_EVERY_ROW:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one row, the others are rendered
        return PlannedRow(begun.as_failed(error), variables)
    begun = begun.model_copy(update={"title": prepared.document.storyboard.title})
    if film is not None:
        return PlannedRow(begun.as_kept(film), variables, film_name(prepared))
    spent = await ours.ledger.spent(ours.account, Hold(reckoner.edition, prepared.document.digest, ""))
    return PlannedRow(begun, variables, film_name(prepared), prepared.micro_usd, prepared.usd, held=spent.held_by_run)


def _refuse_one_film_of_two_rows(planned: Sequence[PlannedRow]) -> None:
    first: dict[str, SeriesRow] = {}
    for found in planned:
        if found.film and first.setdefault(found.film, found.row) is not found.row:
            raise StoryboardError(
                f"{first[found.film].called} and {found.row.called} would make the same film, {found.film}; use a "
                "variable in the title that differs from row to row. Nothing was bought"
            )


async def _check_money(planned: SeriesPlan, already: int) -> None:
    """Tells early what a budget would refuse, or the gateway, halfway through; nothing is held yet."""
    if not planned.micro_usd:
        return
    ours, wish = planned.desk, planned.wish
    limits = replace(ours.limits, per_run=None if wish.budget is None else micro_usd(wish.budget))
    why = await money_refusal(ours, limits, planned.to_render, already)
    if why is not None:
        raise BudgetExceeded(f"{wish.name} was not begun, and nothing was bought: {why}")
    await check_balance(ours, wish.name, sum((found.usd for found in planned.to_render), Decimal(0)))


async def money_refusal(ours: Desk, limits: Limits, rows: Sequence[PlannedRow], already: int = 0) -> str | None:
    """Why the films of some rows may not be paid, in words for an operator; None where they may.

    Args:
        ours: who pays.
        limits: what the account may spend, and the series.
        rows: whose films.
        already: micro-dollars that the series has spent.
    """
    spent = await ours.ledger.spent(ours.account, Hold("", "", ""))
    # What another run of the same documents holds is held for the same shots.
    others = Spent(already, spent.day, spent.month, max(0, spent.held - sum(found.held for found in rows)))
    return refusal(limits, others, sum(found.micro_usd for found in rows))
