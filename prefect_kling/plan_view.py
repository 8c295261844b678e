"""What `prefect-kling plan` shows: the tree and its totals for people, a Mermaid flowchart, a JSON document."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from prefect_kling.storyboard.drawing import Drawing, DrawnShot, edges, mermaid, mermaid_trouble, tree
from prefect_kling.storyboard.order import longest_chain
from prefect_kling.storyboard.timing import expected_seconds
from prefect_kling.terminal import announce

if TYPE_CHECKING:
    from prefect_kling.flows.standing import Standing
    from prefect_kling.storyboard.plan import Plan, PlannedShot
    from prefect_kling.storyboard.timing import Expected

__all__ = ["PlanView"]

_TO_MAKE: Final = ("new", "stale", "running")
_LONGEST_PATH = 8
# For a stdout that knows no line drawing; anything else that it does not know becomes a question mark.
_ASCII: Final = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "→": ">", "…": "~", "·": ":"})


@dataclass(frozen=True)
class PlanView:
    """A plan with how its shots stand, in the shapes in which people and programs want it.

    Attributes:
        title: of the film.
        plan: of the document.
        standings: how each shot stands, by id.
        in_flight: how many generations the account runs at once.
    """

    title: str
    plan: Plan
    standings: Mapping[str, Standing]
    in_flight: int

    @cached_property
    def to_make(self) -> dict[str, int]:
        """How many generations are to be bought or waited for, by shot; what waits for a decision is not in it."""
        return {
            shot.id: generations
            for shot in self.plan.shots
            if (generations := _generations(self.standings[shot.id])) > 0
        }

    @cached_property
    def critical_path(self) -> tuple[str, ...]:
        """The longest chain of shots that still have to be made, each waiting for the one before."""
        waiting = {shot.id: shot for shot in self.plan.order if self.standings[shot.id].status in _TO_MAKE}
        needs = {name: shot.needs for name, shot in waiting.items()}
        return longest_chain(needs, {name: shot.seconds for name, shot in waiting.items()})

    @cached_property
    def expected(self) -> Expected:
        """About how long a run would take."""
        return expected_seconds(self.plan, self.to_make, self.in_flight)

    @cached_property
    def usd(self) -> Decimal:
        """What a run would most likely pay."""
        return sum((shot.usd * self._to_buy(shot) for shot in self.plan.shots), Decimal(0))

    @cached_property
    def upper_usd(self) -> Decimal:
        """The most that it would pay."""
        return sum((shot.upper_usd * self._to_buy(shot) for shot in self.plan.shots), Decimal(0))

    @cached_property
    def drawing(self) -> Drawing:
        """What is drawn of it."""
        usual = self._models.most_common(1)[0][0]
        return Drawing(
            self.title,
            tuple(self._drawn(shot, usual) for shot in self.plan.shots),
            edges(self.plan),
            self.critical_path if len(self.critical_path) > 1 else (),
        )

    def print_tree(self) -> None:
        """Prints the tree and the totals to stdout, warnings to stderr."""
        _print("\n".join([*tree(self.drawing), *self.totals()]))
        for shot in self.plan.shots:
            for warning in shot.warnings:
                announce(f"warning: {shot.id}: {warning}")

    def print_mermaid(self) -> None:
        """Prints the flowchart to stdout, and to stderr why a page may not draw it."""
        text = mermaid(self.drawing)
        _print(text.removesuffix("\n"))
        trouble = mermaid_trouble(self.drawing, text)
        if trouble is not None:
            announce(trouble)

    def totals(self) -> list[str]:
        """Lines that say how the shots stand, what they cost, and how long they take."""
        shots = self.plan.shots
        standings = Counter(str(self.standings[shot.id].status) for shot in shots)
        models = " and ".join(f"{model} {mode}" for (model, mode), _ in self._models.most_common())
        counted = ", ".join(f"{count} {status}" for status, count in standings.most_common())
        buying = len([shot for shot in shots if self._to_buy(shot)])
        seconds = sum(shot.seconds * self._to_buy(shot) for shot in shots)
        most = f", at most {self.upper_usd:.2f}" if self.upper_usd != self.usd else ""
        lines = [
            f"{_counted(len(shots), 'shot')}, {models}: {counted}",
            f"{buying} of {_counted(len(shots), 'shot')} to buy, {seconds} s to generate, {self.usd:.2f} USD{most}",
        ]
        if len(self.critical_path) > 1:
            lines.append(f"* critical path: {_path(self.critical_path)}")
        made = sum(self.to_make.values())
        how = f"{made} to generate, up to {self.in_flight} at once" if made else "nothing to generate, only the film"
        return [*lines, f"expected time: {self.expected} ({how})"]

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "shots": [self._shot_document(shot) for shot in self.plan.shots],
            "edges": [{"from": edge.start, "to": edge.end, "kind": edge.kind} for edge in self.drawing.edges],
            "critical_path": list(self.critical_path),
            "expected_seconds": round(self.expected.seconds),
            "expected_seconds_if_slow": round(self.expected.slow_seconds),
            "usd": float(self.usd),
            "usd_at_most": float(self.upper_usd),
        }

    @cached_property
    def _models(self) -> Counter[tuple[str, str]]:
        return Counter((shot.request.model, shot.request.mode) for shot in self.plan.shots)

    def _to_buy(self, shot: PlannedShot) -> int:
        return len(self.standings[shot.id].to_buy)

    def _drawn(self, shot: PlannedShot, usual: tuple[str, str]) -> DrawnShot:
        standing, made_with = self.standings[shot.id], (shot.request.model, shot.request.mode)
        files = (entry.source.rpartition("/")[2] for entry in shot.inputs if entry.kind == "file")
        return DrawnShot(
            id=shot.id,
            status=standing.status,
            said=_said(standing),
            seconds=shot.seconds,
            takes=self._to_buy(shot),
            usd=shot.usd * self._to_buy(shot),
            in_cut=shot.in_cut,
            files=tuple("".join(c if c.isprintable() else "\ufffd" for c in name) for name in files),
            notes=() if made_with == usual else (" ".join(made_with),),
        )

    def _shot_document(self, shot: PlannedShot) -> dict[str, Any]:
        standing = self.standings[shot.id]
        return {
            "id": shot.id,
            "status": standing.status,
            "through": standing.through,
            "shares": standing.shares,
            "take": standing.take,
            "takes_to_buy": self._to_buy(shot),
            "needs": list(shot.needs),
            "model": shot.request.model,
            "mode": shot.request.mode,
            "seconds": shot.seconds,
            "usd": float(shot.usd),
            "usd_at_most": float(shot.upper_usd),
            "warnings": list(shot.warnings),
        }


def _generations(standing: Standing) -> int:
    """How many generations a run waits for; of one that is another shot's as well, too."""
    shared = standing.shares is not None and not standing.to_buy
    waited = standing.status == "running" or (standing.status in _TO_MAKE and shared)
    return len(standing.to_buy) + waited


def _said(standing: Standing) -> str:
    said = str(standing.status)
    if standing.through is not None:
        said += f" through {standing.through}"
    if standing.take != 1:
        said += f", take {standing.take}"
    if len(standing.to_buy) > 1 or (standing.to_buy and standing.purchase is not None):
        said += f", {_counted(len(standing.to_buy), 'take')} to buy"
    if standing.shares is not None:
        said += f", the same as {standing.shares}"
    if standing.status in ("uncertain", "lost") and standing.purchase is not None:
        said += f", see ledger show {standing.purchase.short}"
    return said


def _path(ids: tuple[str, ...]) -> str:
    if len(ids) <= _LONGEST_PATH:
        return " → ".join(ids)
    return f"{' → '.join([*ids[: _LONGEST_PATH - 3], '…', *ids[-2:]])} ({len(ids)} shots)"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    print(text)  # noqa: T201 - what the command is for
