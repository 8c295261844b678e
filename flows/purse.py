"""A series' budget while its films are made, several at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Purse"]


class Purse:
    """Gives each film what it needs at most and a part of what nobody needs, so that the sum is never exceeded.

    What is to spare pays for retakes. All amounts are micro-dollars.

    Args:
        budget: of all films together, at least the sum of their needs; None for no limit.
        needs: what each film costs at most without retakes, by its row's number.
        at_once: how many films are made at a time.
    """

    def __init__(self, budget: int | None, needs: Mapping[int, int], at_once: int) -> None:
        self._left = budget
        self._needs = dict(needs)
        self._at_once = at_once

    def draw(self, row: int) -> int | None:
        """What the film of a row may spend; None for no limit. To be settled when the film is done."""
        waiting = len(self._needs)
        need = self._needs.pop(row)
        if self._left is None:
            return None
        spare = max(0, self._left - need - sum(self._needs.values()))
        drawn = need + spare // min(self._at_once, waiting)
        self._left -= drawn
        return drawn

    def settle(self, drawn: int | None, spent: int) -> None:
        """Puts back what a film has left of what it drew."""
        if self._left is not None and drawn is not None:
            self._left += drawn - spent
