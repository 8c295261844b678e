"""The commands about what was bought: `prefect-kling ledger list|show|resolve|spend|prune`, and `prefect-kling sweep`.

They read the studio from the environment, as `plan` does, and then need no Prefect server; `--studio` takes a saved one
from there. Only what asks the gateway needs a key. Tokens are secrets: people see 8 characters, `--json` alone prints
them whole.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from cyclopts import App, Parameter

from prefect_kling.cli_studio import StudioName, studio_named, told, typed
from prefect_kling.gateway.errors import (
    GenerationFailed,
    InvalidRequest,
    KlingError,
    PurchaseUncertain,
    TaskNotFound,
)
from prefect_kling.ledger.states import State
from prefect_kling.tables import (
    megabytes,
    print_budgets,
    print_prunable,
    print_purchase,
    print_purchases,
    print_spending,
)
from prefect_kling.terminal import announce

# The ledger and Prefect are imported where they are used: every command of `prefect-kling` imports this module.
if TYPE_CHECKING:
    from prefect_kling.ledger.desk import Desk
    from prefect_kling.ledger.hints import Hint
    from prefect_kling.ledger.pruning import Pruned
    from prefect_kling.ledger.purchases import Account, Purchase
    from prefect_kling.ledger.reports import Budget, Budgets, Spending
    from prefect_kling.ledger.sweeping import Swept

__all__ = ["ledger", "sweep"]

T = TypeVar("T")
Json = Annotated[bool, Parameter(negative="")]
MOST_LISTED: Final = 50
USAGE: Final = 2

ledger = App(name="ledger", help="Show what was bought, and settle what is uncertain.")


@ledger.command(name="list")
def list_(
    *,
    studio: StudioName = None,
    state: State | None = None,
    storyboard: str | None = None,
    edition: str | None = None,
    limit: int | None = None,
    json: Json = False,
) -> int:
    """List purchases, the newest last.

    Parameters
    ----------
    state
        Only those in this state.
    storyboard
        Only those of the storyboard with this title.
    edition
        Only those of this edition.
    limit
        So many of the newest; 50 where it is not given, all of them with --json.
    json
        Print one JSON document to stdout, with whole tokens.
    """
    from prefect_kling.ledger.reports import as_json

    if limit is not None and limit < 1:
        raise KlingError(f"--limit has to be at least 1, not {limit}")
    most = limit if json else limit or MOST_LISTED
    account, found = _run(_list(studio, state, storyboard, edition, None if most is None else most + 1))
    shown = found if most is None else found[-most:]
    if json:
        _print_json({"purchases": [as_json(purchase) for purchase in shown]})
    elif shown:
        print_purchases(shown)
        if len(found) > len(shown):
            announce(f"These are the newest {len(shown)}; --limit shows more")
    elif state or storyboard or edition:
        announce("The ledger has no such purchase.")
    else:
        announce(f"Nothing was bought yet: the ledger of the account '{account.name}' at {account.base_url} is empty.")
    return 0


@ledger.command
def show(token: str, /, *, studio: StudioName = None, json: Json = False) -> int:
    """Show everything about one purchase.

    Parameters
    ----------
    token
        Of the purchase; its first 8 characters are enough.
    json
        Print one JSON document to stdout, with the whole token.
    """
    purchase, hints = _run(_show(studio, token))
    if json:
        _print_whole(purchase, studio, hints)
    else:
        print_purchase(purchase, _resolving(purchase, studio), hints)
    return 0


@ledger.command
def resolve(
    token: str,
    /,
    *,
    studio: StudioName = None,
    task_id: str | None = None,
    never_created: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Settle an uncertain purchase: say which task it is, or that there is none.

    Parameters
    ----------
    token
        Of the purchase; its first 8 characters are enough.
    task_id
        The gateway's task that the lost answer named.
    never_created
        The gateway has no such task: the money is free again, and the next run buys it.
    json
        Print one JSON document to stdout, with the whole token.
    """
    if never_created == (task_id is not None):
        raise KlingError(
            "ledger resolve takes either --task-id ID or --never-created: look at the account's tasks first"
        )
    settled = _run(_resolve(studio, token, task_id))
    if json:
        _print_whole(settled, studio)
    announce(told(_settled(settled), studio))
    return 0


@ledger.command
def spend(
    *,
    studio: StudioName = None,
    since: date | None = None,
    by: Literal["day", "storyboard", "model"] | None = None,
    json: Json = False,
) -> int:
    """Show what was spent, and what the budgets leave.

    Parameters
    ----------
    since
        Only what was bought on this UTC day and later, such as 2026-11-22.
    by
        One line a day, storyboard or model; a line for each combination where it is not given.
    json
        Print one JSON document to stdout.
    """
    from prefect_kling.ledger.reports import grouped

    rows, budgets, per_run = _run(_spend(studio, since))
    sums = grouped(rows, by)
    names: tuple[str, ...] = ("day", "storyboard", "model") if by is None else (by,)
    if json:
        _print_json(
            {
                "spending": [
                    {**dict(zip(names, key, strict=True)), "purchases": count, "usd": _usd(micro)}
                    for key, (count, micro) in sums.items()
                ],
                "usd": _usd(sum(row.micro_usd for row in rows)),
                "budgets": {
                    "run": {"limit_usd": _usd(per_run)},
                    "day": _budget_json(budgets.day),
                    "month": _budget_json(budgets.month),
                },
                "uncertain": {"purchases": budgets.uncertain, "usd": _usd(budgets.uncertain_micro_usd)},
            }
        )
        return 0
    if sums:
        print_spending(names, sums)
    else:
        announce("Nothing was spent" + (f" since {since}." if since else " yet."))
    print_budgets(budgets, per_run, lambda text: told(text, studio))
    return 0


@ledger.command
def prune(
    *,
    studio: StudioName = None,
    edition: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Remove clips of takes that no film uses from storage; asks first.

    Parameters
    ----------
    edition
        Only takes of this edition.
    yes
        Do not ask.
    json
        Print one JSON document to stdout, with whole tokens.
    """
    found = _run(_prunable(studio, edition))
    if found and not json:
        print_prunable(found)
    allowed = bool(found) and (yes or _is_answered_yes(f"Remove {_clips(found)}?"))
    pruned = _run(_prune(studio, found)) if allowed else None
    if json:
        _print_json(_prune_json(found, pruned))
    if not found:
        announce(
            "Nothing can be pruned: every stored take is in a film, newer than the film of its storyboard and edition, "
            "pinned, or of an edition in which a run is under way."
        )
        return 0
    if pruned is not None:
        announce(told(_pruned(pruned), studio))
        return USAGE if pruned.left else 0
    if _has_a_person():
        announce("Nothing was removed.")
        return 0
    announce("Nothing was removed: there is no terminal to ask on. --yes removes without asking.")
    return USAGE


def sweep(*, studio: StudioName = None, json: Json = False) -> int:
    """Finish what nobody waits for: ask about running generations, download what is done.

    Parameters
    ----------
    json
        Print one JSON document to stdout.
    """
    from prefect_kling.cli import exit_code  # which imports this module
    from prefect_kling.ledger.reports import as_json

    swept = _run(_sweep(studio))
    if json:
        _print_json({**swept.as_dict(), "uncertain": [as_json(purchase) for purchase in swept.uncertain]})
    if todo := swept.what_to_do():
        announce(told(todo, studio))
    return exit_code(
        [
            *(PurchaseUncertain.__name__ for _ in swept.uncertain),
            *(TaskNotFound.__name__ for _ in swept.lost),
            *(GenerationFailed.__name__ for _ in swept.failed),
            *(type(error).__name__ for error in swept.raised),
        ]
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def _desk(studio: str | None) -> AsyncIterator[Desk]:
    from prefect_kling.ledger.desk import close_ledgers, desk

    try:
        yield await desk((await studio_named(studio)).settings())
    finally:
        await close_ledgers()


async def _list(
    studio: str | None, state: State | None, storyboard: str | None, edition: str | None, limit: int | None
) -> tuple[Account, list[Purchase]]:
    from prefect_kling.ledger.reports import latest
    from prefect_kling.ledger.schema import purchases
    from prefect_kling.storyboard.document import slug

    conditions = []
    if state is not None:
        conditions.append(purchases.c.state == str(state))
    if storyboard is not None:
        conditions.append(purchases.c.storyboard.in_([storyboard, slug(storyboard)]))
    if edition is not None:
        conditions.append(purchases.c.edition == edition)
    async with _desk(studio) as desk:
        return desk.account, await latest(desk.ledger, desk.account, *conditions, limit=limit)


async def _show(studio: str | None, token: str) -> tuple[Purchase, list[Hint]]:
    from prefect_kling.ledger.hints import hints_of

    async with _desk(studio) as desk:
        purchase = await _named(studio, desk, token)
        return purchase, await hints_of(desk.ledger, [purchase.id])


async def _named(studio: str | None, desk: Desk, token: str) -> Purchase:
    from prefect_kling.ledger.settling import named_by

    try:
        return await named_by(desk.ledger, desk.account, token)
    except InvalidRequest as error:
        # Nobody refused anything: the command names no purchase.
        raise KlingError(f"{error}; {told('`prefect-kling ledger list`', studio)} shows them") from None


async def _resolve(studio: str | None, token: str, task_id: str | None) -> Purchase:
    from prefect_kling.ledger.settling import settle_as_never_created, settle_as_task

    async with _desk(studio) as desk:
        token = (await _named(studio, desk, token)).token
        if task_id is None:
            return await settle_as_never_created(desk.ledger, desk.account, token)
        async with desk.client() as client:
            try:
                return await settle_as_task(desk.ledger, desk.account, client, token, task_id)
            except TaskNotFound as error:
                # A wrong answer to the question, not a clip that is lost.
                raise InvalidRequest(str(error), task_id=task_id) from error


def _settled(purchase: Purchase) -> str:
    from prefect_kling.ledger.money import shown

    what, money = f"{purchase.short} ({purchase.named})", shown(purchase.order.micro_usd)
    if purchase.task_id is None:
        return f"{what} was never created: its {money} are free again, and the next run buys it."
    spare = " Another purchase has taken its place, so its clip is kept as a spare take." if purchase.spare else ""
    if purchase.state is State.SUBMITTED:
        return (
            f"{what} is task {purchase.task_id}: its {money} are spent. Run again, or `prefect-kling sweep`, to bring "
            f"its clip home; that costs nothing.{spare}"
        )
    return f"{what} is task {purchase.task_id} and {purchase.state} already; nothing was changed.{spare}"


async def _spend(studio: str | None, since: date | None) -> tuple[list[Spending], Budgets, int | None]:
    from prefect_kling.ledger.reports import budgets, spending

    async with _desk(studio) as desk:
        rows = await spending(desk.ledger, desk.account, since=since)
        return rows, await budgets(desk.ledger, desk.account, desk.limits), desk.limits.per_run


async def _sweep(studio: str | None) -> Swept:
    from prefect_kling.ledger.sweeping import sweep as sweep_once

    logger, handler = logging.getLogger("prefect_kling.sweep"), logging.StreamHandler(sys.stderr)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # told here, and nowhere else
    logger.addHandler(handler)
    try:
        async with _desk(studio) as desk, desk.keeper(logger) as keeper:
            return await sweep_once(keeper, logger=logger)
    finally:
        logger.removeHandler(handler)


async def _prunable(studio: str | None, edition: str | None) -> list[Purchase]:
    from prefect_kling.ledger.pruning import prunable

    async with _desk(studio) as desk:
        return await prunable(desk.ledger, desk.account, desk.storage(), edition=edition)


async def _prune(studio: str | None, found: list[Purchase]) -> Pruned:
    from prefect_kling.ledger.pruning import prune

    async with _desk(studio) as desk:
        return await prune(desk.ledger, desk.account, desk.storage(), found)


def _has_a_person() -> bool:
    """Whether there is somebody who can be asked: what is asked goes to stderr, as stdout may be a file."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _is_answered_yes(question: str) -> bool:
    if not _has_a_person():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - a question has no line end
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _clips(found: list[Purchase]) -> str:
    return f"{len(found)} {'clip' if len(found) == 1 else 'clips'}, {megabytes(found)} MB"


def _pruned(pruned: Pruned) -> str:
    said = []
    if pruned.removed:
        said.append(
            f"Removed {_clips(pruned.removed)}. They stay in the ledger as pruned: a run that wants such a take "
            "fetches it again at no cost while the gateway keeps it, 7 days from when it was made; later --retake "
            "buys a new one"
        )
    if pruned.spared:
        said.append(f"Left alone: {_clips(pruned.spared)}, as something has come to want them meanwhile")
    said += [f"{purchase.named} ({purchase.short}) could not be removed: {error}" for purchase, error in pruned.left]
    if pruned.left:
        said.append("Another `prefect-kling ledger prune` tries again")
    return ".\n".join(said) + "."


def _prune_json(found: list[Purchase], pruned: Pruned | None) -> dict[str, Any]:
    from prefect_kling.ledger.pruning import Pruned
    from prefect_kling.ledger.reports import as_json

    done = pruned or Pruned()
    return {
        "prunable": [as_json(purchase) for purchase in found],
        "removed": [as_json(purchase) for purchase in done.removed],
        "spared": [as_json(purchase) for purchase in done.spared],
        "left": [{"token": purchase.token, "reason": str(error)} for purchase, error in done.left],
        "bytes": sum(purchase.clip.bytes for purchase in done.removed if purchase.clip is not None),
    }


def _resolving(purchase: Purchase, studio: str | None) -> list[str]:
    """Both commands that settle a purchase; none where there is nothing to settle."""
    from prefect_kling.ledger.reports import resolving

    return [typed(command, studio) for command in resolving(purchase)] if purchase.state is State.UNCERTAIN else []


def _print_whole(purchase: Purchase, studio: str | None, hints: Sequence[Hint] = ()) -> None:
    from prefect_kling.ledger.reports import as_json

    found = as_json(purchase, whole=True)
    if hints:
        found["called_back"] = [
            {"task_id": hint.task_id, "state": hint.state, "heard_at": hint.heard_at.isoformat()} for hint in hints
        ]
    if resolve := _resolving(purchase, studio):
        found["resolve"] = resolve
    _print_json(found)


def _budget_json(budget: Budget) -> dict[str, float | None]:
    return {
        "limit_usd": _usd(budget.limit),
        "bought_usd": _usd(budget.bought),
        "held_usd": _usd(budget.held),
        "left_usd": _usd(budget.left),
    }


def _print_json(document: object) -> None:
    print(jsonlib.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for


def _usd(micro: int | None) -> float | None:
    return None if micro is None else micro / 1_000_000
