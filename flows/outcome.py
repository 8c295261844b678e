"""How a rendering ended: a shot's clip, its failure, or the shot it waited for in vain."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict

from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import KlingError, PurchaseUncertain
from prefect_kling.tasks.results import Film

__all__ = ["Rendering", "ShotOutcome"]

MOST_NAMED = 10


class ShotOutcome(BaseModel):
    """What became of one shot.

    Attributes:
        id: the shot's.
        status: `stored`, `failed`, or `blocked` where a shot that it needs has no clip.
        usd: what was bought for it, as estimated; zero where nothing was.
        task_id: the gateway's task that was bought for it; its result is kept there for 7 days, stored or not.
        clip: where it was stored.
        error: class and message of what went wrong.
        blocked_by: the shots without a clip that it needed.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: str
    usd: Decimal = Decimal(0)
    task_id: str | None = None
    clip: Clip | None = None
    error_type: str | None = None
    error: str | None = None
    blocked_by: tuple[str, ...] = ()

    @classmethod
    def stored(cls, shot: str, clip: Clip, usd: Decimal) -> Self:
        """A shot whose clip is in storage."""
        return cls(id=shot, status="stored", clip=clip, usd=usd, task_id=clip.task_id)

    @classmethod
    def failed(cls, shot: str, error: Exception, usd: Decimal, task_id: str | None) -> Self:
        """A shot that went wrong; `usd` and `task_id` are what was bought before that, or may have been."""
        message = (str(error) if isinstance(error, KlingError) else f"{type(error).__name__}: {error}").rstrip(".")
        if task_id is not None and task_id not in message:
            message += f" (bought as task {task_id})"
        return cls(id=shot, status="failed", usd=usd, task_id=task_id, error_type=type(error).__name__, error=message)

    @classmethod
    def blocked(cls, shot: str, by: Sequence[str]) -> Self:
        """A shot that was not bought, since a shot it needs has no clip."""
        return cls(id=shot, status="blocked", blocked_by=tuple(by))


class Rendering(BaseModel):
    """A whole run: its film, if every shot of the cut has a clip, and what became of each shot."""

    model_config = ConfigDict(frozen=True)

    title: str
    film: Film | None
    shots: tuple[ShotOutcome, ...]
    error_type: str | None = None
    error: str | None = None

    @property
    def usd(self) -> Decimal:
        """What was bought in this run, as estimated."""
        return sum((shot.usd for shot in self.shots), Decimal(0))

    @property
    def failures(self) -> tuple[ShotOutcome, ...]:
        """The shots that went wrong themselves; those they blocked are not among them."""
        return tuple(shot for shot in self.shots if shot.status == "failed")

    def sentence(self) -> str:
        """One line for a run's final state."""
        if self.film is not None:
            clips = len([shot for shot in self.shots if shot.clip])
            return f"{clips} clips, {self.film.seconds:.1f} s, {self.usd:.2f} USD"
        if self.error is not None and not self.failures:
            return f"all {len(self.shots)} shots are stored ({self.usd:.2f} USD), but not joined: {self.error}"
        kept = len([shot for shot in self.shots if shot.clip])
        return (
            f"{len(self.failures)} of {len(self.shots)} shots failed, {kept} are kept ({self.usd:.2f} USD). "
            f"{_reasons(self.failures)}. "
            f"{_what_to_do(self.failures)}"
        )


def _reasons(failures: Sequence[ShotOutcome]) -> str:
    """Each reason once, after the shots it stopped: a wrong key stops all of them."""
    shots: dict[str | None, list[str]] = {}
    for shot in failures:
        shots.setdefault(shot.error, []).append(shot.id)
    return "; ".join(f"{_listed(ids)}: {reason}" for reason, ids in shots.items())


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


def _what_to_do(failures: Sequence[ShotOutcome]) -> str:
    if any(shot.error_type == PurchaseUncertain.__name__ for shot in failures):
        return "Look at the account's tasks before running again: a lost answer may have bought its clip."
    return "Mend what is named and run again, which buys every shot anew."
