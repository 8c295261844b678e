"""What a person sees at the command line: live progress on a terminal, a line per event elsewhere, tables.

All of it goes to stderr, but for the tables that a command exists to print.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefect_kling.flows.progress import Progress as ShotProgress
    from prefect_kling.storyboard.plan import Plan

__all__ = ["announce", "progress_by_frames", "stdout_console", "watching"]

_MARKS = {
    "planned": "·",
    "waiting": "·",
    "buying": "$",
    "generating": "▸",
    "softened": "~",
    "downloading": "↓",
    "checking": "?",
    "retaking": "$",
    "stored": "✓",
    "kept": "=",
    "failed": "✗",
    "blocked": "-",
}
_MOST_ROWS = 30
_NO_TERMINAL_WIDTH = 10_000


def announce(text: str) -> None:
    """One line for a person."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is this module's business


def stdout_console(*, wide: bool | None = None) -> Console:
    """For tables on stdout: as wide as the terminal; elsewhere, or where asked, so wide that each row is one line."""
    wide = not sys.stdout.isatty() if wide is None else wide
    return Console(highlight=False, width=_NO_TERMINAL_WIDTH if wide else None)


@contextmanager
def watching(plan: Plan, micro_usd: int, told: Callable[[str], str] = str) -> Iterator[None]:
    """Shows the steps of runs started inside the block, in this process; `told` has the last word on their details."""
    from prefect_kling.flows.progress import watcher

    apart = " without retakes" if plan.may_retake else ""
    announce(f"{len(plan.shots)} shots, {micro_usd / 1e6:.2f} USD to buy at most{apart}; starting Prefect …")
    if sys.stderr.isatty():
        with _Board(plan).live() as show:
            token = watcher.set(lambda step: show(replace(step, detail=told(step.detail))))
            try:
                yield
            finally:
                watcher.reset(token)
        return
    begun = time.monotonic()

    def line(step: ShotProgress) -> None:
        if step.step not in ("planned", "waiting"):
            at = f"{time.monotonic() - begun:6.1f} s"
            announce(f"{at}  {step.shot or 'film':<16} {step.step:<12} {told(step.detail)}".rstrip())

    token = watcher.set(line)
    try:
        yield
    finally:
        watcher.reset(token)


class _Board:
    """Every shot with its latest step; of long storyboards those that moved last."""

    def __init__(self, plan: Plan) -> None:
        self._rows = {shot.id: ("planned", f"{shot.usd:.2f} USD") for shot in plan.shots}
        self._film = ""

    @contextmanager
    def live(self) -> Iterator[Callable[[ShotProgress], None]]:
        from rich.live import Live

        with Live(console=Console(stderr=True, highlight=False), get_renderable=self._draw, refresh_per_second=4):

            def show(step: ShotProgress) -> None:
                if not step.shot:
                    self._film = f"{step.step} {step.detail}"
                    return
                if len(self._rows) > _MOST_ROWS:
                    self._rows.pop(step.shot, None)
                self._rows[step.shot] = (step.step, step.detail)

            yield show

    def _draw(self) -> RenderableType:
        table = Table(box=None, show_header=False, pad_edge=False)
        for shot, (step, detail) in list(self._rows.items())[-_MOST_ROWS:]:
            table.add_row(_MARKS.get(step, ""), escape(shot), step, escape(detail))
        if self._film:
            table.add_row("▸", "film", escape(self._film), "")
        return table


@contextmanager
def progress_by_frames() -> Iterator[Callable[[int, int], None] | None]:
    """A bar over frames on a terminal, nothing elsewhere; the block gets what `media.join` calls as `on_progress`."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("joining", total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)
