"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """What was measured, ours beside something of the same run: an alternative, a floor, or a bound that we promise."""

    what: str
    ours: float
    unit: str
    beside: str
    other: float

    @property
    def ratio(self) -> str:
        """Ours over the other."""
        return f"{self.ours / self.other:.2f}"
