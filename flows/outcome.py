"""How a rendering ended: a shot's clip, its failure, or the shot it waited for in vain."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict

from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import GenerationFailed, KlingError, PurchaseUncertain
from prefect_kling.gateway.moderation import is_moderated
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.tasks.results import Film

__all__ = ["Rendering", "ShotOutcome", "TakeOutcome", "said_of", "usd_of"]

MOST_NAMED = 10


class TakeOutcome(BaseModel):
    """What became of a take that the film does not use: its clip, or the class and message of what went wrong.

    `softened` and `faults` as of a shot.
    """

    model_config = ConfigDict(frozen=True)

    take: int
    usd: Decimal = Decimal(0)
    clip: Clip | None = None
    error_type: str | None = None
    error: str | None = None
    softened: int = 0
    faults: str = ""

    @property
    def was_not_made(self) -> bool:
        """Whether the gateway made no clip of it, and bills none."""
        return self.error_type == GenerationFailed.__name__


class ShotOutcome(BaseModel):
    """What became of one shot.

    Attributes:
        id: the shot's.
        status: `stored`; `kept` where its clip was there already; `failed`; or `blocked` where a shot that it needs has
            no clip.
        usd: what this run bought for it, at the most that it can cost; zero where it bought nothing.
        task_id: the gateway's task that was bought for it; its result is kept there for 7 days, stored or not.
        clip: where it was stored.
        error: class and message of what went wrong.
        blocked_by: the shots without a clip that it needed.
        take: which one the film uses.
        softened: the number of the softer prompt that was used in place of the shot's own, which moderation refused; 0
            where it was its own.
        faults: what its checks say of the clip, where the document wants that take all the same.
        further: the other takes that were wanted; their failures do not stop the film.
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
    take: int = 1
    softened: int = 0
    faults: str = ""
    further: tuple[TakeOutcome, ...] = ()

    @classmethod
    def stored(cls, shot: str, clip: Clip, bought: Purchase | None, *, kept: bool, take: int) -> Self:
        """A shot whose clip is in storage; `bought` is this run's purchase of it, if there is one."""
        status = "kept" if kept else "stored"
        return cls(id=shot, status=status, clip=clip, usd=usd_of(bought), task_id=clip.task_id, take=take)

    @classmethod
    def failed(cls, shot: str, error: Exception, bought: Purchase | None) -> Self:
        """A shot that went wrong; `bought` is this run's purchase that still counts, if there is one."""
        message = said_of(error)
        task_id = bought.task_id if bought is not None else None
        if task_id is not None and task_id not in message:
            message += f" (bought as task {task_id})"
        kind = type(error).__name__
        return cls(id=shot, status="failed", usd=usd_of(bought), task_id=task_id, error_type=kind, error=message)

    @classmethod
    def blocked(cls, shot: str, by: Sequence[str]) -> Self:
        """A shot that was not bought, since a shot it needs has no clip."""
        return cls(id=shot, status="blocked", blocked_by=tuple(by))


class Rendering(BaseModel):
    """A whole run: its film, if every shot of the cut has a clip, and what became of each shot.

    `usd_replaced` is what it has bought besides: takes that were replaced in a review.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    film: Film | None
    shots: tuple[ShotOutcome, ...]
    error_type: str | None = None
    error: str | None = None
    usd_replaced: Decimal = Decimal(0)

    @property
    def usd(self) -> Decimal:
        """What this run bought, at the most that it can cost."""
        takes = [shot.usd for shot in self.shots] + [take.usd for shot in self.shots for take in shot.further]
        return sum(takes, self.usd_replaced)

    def with_replaced(self, spent: Decimal) -> Self:
        """The same with what the run has bought besides, of all that it has bought for."""
        return self.model_copy(update={"usd_replaced": max(spent - self.usd, Decimal(0))})

    @property
    def failures(self) -> tuple[ShotOutcome, ...]:
        """The shots that went wrong themselves; those they blocked are not among them."""
        return tuple(shot for shot in self.shots if shot.status == "failed")

    @property
    def error_types(self) -> tuple[str, ...]:
        """The classes of what went wrong: of shots, of further takes, of the join.

        A generation that failed is not among them where the shot has its clip: it is not billed, and takes are bought
        so that one may fail.
        """
        further = [take for shot in self.shots for take in shot.further if not (shot.clip and take.was_not_made)]
        kinds = (*(shot.error_type for shot in self.failures), *(take.error_type for take in further), self.error_type)
        return tuple(kind for kind in kinds if kind is not None)

    def remarks(self) -> tuple[str, ...]:
        """What whoever asked for the film has to know of it, a sentence each: nothing of this happens silently."""
        said = []
        for shot in self.shots:
            takes: tuple[ShotOutcome | TakeOutcome, ...] = (shot, *shot.further)
            told = shot.error or ""
            for take in takes:
                named = f"{shot.id}, take {take.take}"
                if take.softened:
                    said.append(f"{named}: moderation refused it; prompt {take.softened} of soften was used")
                if take.faults and take.faults not in told:
                    used = "used all the same" if take is shot else "not used"
                    said.append(f"{named}: failed its checks and is {used}: {take.faults}")
                if take is not shot and take.error and take.error not in told:
                    said.append(f"{named}: a further take is missing: {take.error}")
        return tuple(said)

    def sentence(self) -> str:
        """One line for a run's final state."""
        remarks = "".join(f"; {remark}" for remark in self.remarks())
        if self.film is not None:
            clips = len([shot for shot in self.shots if shot.clip])
            # A run that was suspended, or is retried, finds what it has bought itself.
            kept = len([shot for shot in self.shots if shot.status == "kept" and not shot.usd])
            again = f" ({kept} were there already)" if kept else ""
            return f"{clips} clips{again}, {self.film.seconds:.1f} s, {self.usd:.2f} USD{remarks}"
        if self.error is not None and not self.failures:
            return f"all {len(self.shots)} shots are stored ({self.usd:.2f} USD), but not joined: {self.error}{remarks}"
        kept = len([shot for shot in self.shots if shot.clip])
        return (
            f"{len(self.failures)} of {len(self.shots)} shots failed, {kept} are kept ({self.usd:.2f} USD). "
            f"{_reasons(self.failures)}{remarks}. "
            f"{_what_to_do(self.failures)}"
        )


def said_of(error: Exception) -> str:
    """An error in one sentence without its full stop, with its class where it is none of ours."""
    return (str(error) if isinstance(error, KlingError) else f"{type(error).__name__}: {error}").rstrip(".")


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
        return "Settle what is uncertain, then run again: what is kept is used again and costs nothing."
    if all(shot.error_type == GenerationFailed.__name__ and not _is_moderated(shot) for shot in failures):
        return "Run again: what is kept is used again and costs nothing."
    return "Mend what is named and run again: what is kept is used again and costs nothing."


def _is_moderated(shot: ShotOutcome) -> bool:
    return is_moderated(GenerationFailed(shot.error or ""))


def usd_of(bought: Purchase | None) -> Decimal:
    """What a purchase counts, in USD."""
    return Decimal(0) if bought is None else Decimal(bought.counted) / 1_000_000
