"""What the ledger's commands print to stdout: purchases, one of them, what may be pruned, what was spent and is left.

On a terminal tables are as wide as it is; elsewhere each row is one whole line. What came from outside is shown without
its control characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from prefect_kling.ledger.states import State
from prefect_kling.terminal import stdout_console

if TYPE_CHECKING:
    from prefect_kling.ledger.hints import Hint
    from prefect_kling.ledger.purchases import Purchase
    from prefect_kling.ledger.reports import Budget, Budgets

__all__ = ["megabytes", "print_budgets", "print_prunable", "print_purchase", "print_purchases", "print_spending"]

_STYLES = {
    State.STORED: "green",
    State.UNCERTAIN: "bold yellow",
    State.REFUSED: "red",
    State.FAILED: "red",
    State.LOST: "bold red",
}


def print_purchases(found: Sequence[Purchase]) -> None:
    """A row a purchase, then what they cost. On a narrow terminal task and next step are below the shot."""
    console = stdout_console()
    table = _wide(found)
    # Asked of a wide one: what a console measures is never wider than itself.
    if stdout_console(wide=True).measure(table).maximum > console.width:
        table = _narrow(found)
    console.print(table)
    total = sum(purchase.counted for purchase in found)
    console.print(f"{_counted(len(found), 'purchase')}, {_usd(total)} USD spent or held")


def _wide(found: Sequence[Purchase]) -> Table:
    from prefect_kling.ledger.reports import to_do

    with_editions = {purchase.order.edition for purchase in found} != {"main"}
    table = _table()
    for name in ("token", "created (UTC)", *(["edition"] if with_editions else []), "shot"):
        table.add_column(name, no_wrap=True)
    table.add_column("take", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("USD", justify="right", no_wrap=True)
    table.add_column("task", no_wrap=True)
    table.add_column("next", no_wrap=True)
    for purchase in found:
        table.add_row(
            purchase.short,
            f"{purchase.created_at:%Y-%m-%d %H:%M}",
            *([_plain(purchase.order.edition)] if with_editions else []),
            _shot(purchase),
            str(purchase.order.take),
            _state(purchase),
            _usd(purchase.counted),
            _plain(purchase.task_id or ""),
            _plain(to_do(purchase)),
        )
    return table


def _narrow(found: Sequence[Purchase]) -> Table:
    from prefect_kling.ledger.reports import to_do

    table = _table()
    table.add_column("token", no_wrap=True)
    table.add_column("created (UTC)", no_wrap=True)
    table.add_column("shot", overflow="fold", ratio=1)
    table.add_column("state", no_wrap=True)
    table.add_column("USD", justify="right", no_wrap=True)
    for purchase in found:
        shot = _shot(purchase)
        if purchase.order.take != 1:
            shot.append(f", take {purchase.order.take}")
        if purchase.order.edition != "main":
            shot.append(f"\nedition {_plain(purchase.order.edition)}", style="dim")
        if purchase.task_id:
            shot.append(f"\n{_plain(purchase.task_id)}", style="dim")
        if to_do(purchase):
            shot.append(f"\n→ {_plain(to_do(purchase))}")
        table.add_row(
            purchase.short,
            f"{purchase.created_at:%Y-%m-%d %H:%M}",
            shot,
            _state(purchase),
            _usd(purchase.counted),
        )
    return table


def print_purchase(purchase: Purchase, resolve: Sequence[str] = (), hints: Sequence[Hint] = ()) -> None:
    """Everything about one, but for the whole token; for an uncertain one also both commands that settle it.

    Args:
        purchase: the one.
        resolve: those commands.
        hints: what callbacks have said of it, the newest first.
    """
    from prefect_kling.ledger.reports import to_do

    order, clip = purchase.order, purchase.clip
    rows: list[tuple[str, str | Text | None]] = [
        ("token", f"{purchase.short}…"),
        ("state", _state(purchase)),
        ("reason", purchase.reason),
        ("next", to_do(purchase)),
        ("shot", _shot(purchase)),
        ("take", str(order.take)),
        ("edition", order.edition),
        ("run", order.run),
        ("key", order.key),
        ("money", _money(purchase)),
        ("model", f"{order.model}, {order.seconds} s"),
        ("request", json.dumps(dict(order.request), indent=2, ensure_ascii=False)),
        ("task", purchase.task_id),
        ("created", _time(purchase.created_at)),
        ("sent", _time(purchase.sent_at)),
        ("answered", _time(purchase.answered_at)),
        *(("called back", f"{_time(hint.heard_at)}: task {hint.task_id}, {hint.state}") for hint in hints[:5]),
        ("last asked", _time(purchase.polled_at)),
        ("ended", _time(purchase.ended_at)),
        ("stored", _time(purchase.stored_at)),
        ("gateway keeps it", f"until {_time(purchase.expires_at)}" if purchase.expires_at else None),
    ]
    if clip is not None:
        size = f"{clip.width}x{clip.height}"
        rows += [
            ("clip", clip.path),
            ("sha256", clip.sha256),
            ("plays", f"{clip.seconds:.2f} s, {clip.frames} frames of {size}, {clip.bytes} bytes"),
        ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, _plain(value) if isinstance(value, str) else value)
    console = stdout_console()
    console.print(table)
    if resolve:
        at = f" around {_time(purchase.sent_at)}" if purchase.sent_at else ""
        is_task, is_none = resolve
        console.print(
            f"\nThe answer to its POST was lost: {_usd(order.micro_usd)} USD may have been spent. It is not bought "
            f"again by itself. Look at the account's tasks{at}. Where it is there, say"
        )
        console.print(Text(f"  {is_task}"), soft_wrap=True)
        console.print("and where it is not")
        console.print(Text(f"  {is_none}"), soft_wrap=True)


def print_prunable(found: Sequence[Purchase]) -> None:
    """A row a take that no film uses: whose it is, when it was bought, what it takes up and what it cost."""
    table = _table()
    table.add_column("shot", overflow="fold")
    table.add_column("take", justify="right")
    table.add_column("storyboard", overflow="fold")
    table.add_column("edition", overflow="fold")
    table.add_column("bought", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("USD", justify="right", no_wrap=True)
    for purchase in found:
        order = purchase.order
        table.add_row(
            _plain(order.shot),
            str(order.take),
            _plain(order.storyboard),
            _plain(order.edition),
            f"{purchase.created_at:%Y-%m-%d}",
            megabytes([purchase]),
            _usd(purchase.counted),
        )
    stdout_console().print(table)


def megabytes(found: Sequence[Purchase]) -> str:
    """What the clips of purchases take up."""
    return f"{sum(purchase.clip.bytes for purchase in found if purchase.clip is not None) / 1e6:.1f}"


def print_spending(names: Sequence[str], sums: Mapping[tuple[str, ...], tuple[int, int]]) -> None:
    """A row a group, as `reports.grouped` gives them, then the total."""
    table = _table()
    for name in names:
        table.add_column(name, overflow="fold")
    table.add_column("purchases", justify="right")
    table.add_column("USD", justify="right", no_wrap=True)
    for key, (count, micro) in sums.items():
        table.add_row(*(_plain(part or "(none)") for part in key), str(count), _usd(micro))
    counts, amounts = zip(*sums.values(), strict=True)
    table.add_section()
    table.add_row(*(["total"] + [""] * (len(names) - 1)), str(sum(counts)), _usd(sum(amounts)), style="bold")
    stdout_console().print(table)


def print_budgets(budgets: Budgets, per_run: int | None, told: Callable[[str], str] = str) -> None:
    """What this day and month may still cost, and what of it is held for whom; `told` has the last word on commands."""
    console = stdout_console()
    console.print()
    console.print(_budget("this UTC day", budgets.day))
    console.print(_budget("this UTC month", budgets.month))
    console.print(f"each run: {'no budget' if per_run is None else f'{_usd(per_run)} USD at most'}")
    if budgets.uncertain:
        held = _usd(budgets.uncertain_micro_usd)
        console.print(
            f"{_counted(budgets.uncertain, 'uncertain purchase')}: {held} USD held until somebody says whether they "
            f"were spent; {told('`prefect-kling ledger list --state uncertain`')} shows which"
        )


def _budget(name: str, budget: Budget) -> str:
    held = f", {_usd(budget.held)} held for storyboards on their way" if budget.held else ""
    if budget.limit is None or budget.left is None:
        return f"{name}: {_usd(budget.bought)} USD bought{held}, no budget"
    return f"{name}: {_usd(budget.bought)} of {_usd(budget.limit)} USD bought{held}, {_usd(budget.left)} left"


def _money(purchase: Purchase) -> str:
    price = f"{_usd(purchase.order.micro_usd)} USD"
    if purchase.counted == 0:
        return f"{price}, not spent"
    return f"{price}, held" if purchase.state in (State.RESERVED, State.SENDING, State.UNCERTAIN) else price


def _shot(purchase: Purchase) -> Text:
    order = purchase.order
    return _plain("/".join(filter(None, (order.storyboard, order.shot))) or "(single video)")


def _state(purchase: Purchase) -> Text:
    spare = " (spare)" if purchase.spare else ""
    return Text(f"{purchase.state}{spare}", style=_STYLES.get(purchase.state, ""))


def _time(value: datetime | None) -> str | None:
    return None if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC"


def _usd(micro: int) -> str:
    return f"{micro / 1_000_000:.4f}"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _plain(text: str) -> Text:
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def _table() -> Table:
    return Table(box=None, pad_edge=False)
