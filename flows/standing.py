"""How each shot of a plan stands in the ledger: kept, new, stale and so on. Nothing is bought, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from prefect_kling.flows.reckoning import Choice, Reckoner, numbers
from prefect_kling.gateway.prices import micro_usd
from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.refusals import moderated
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import LIVE, State
from prefect_kling.ledger.takes import FINISHED
from prefect_kling.ledger.verdicts import Verdict, verdicts
from prefect_kling.storyboard.plan import Plan, PlannedShot

__all__ = ["Standing", "Status", "facts_of", "standings"]

Status = Literal["kept", "running", "new", "stale", "failed", "uncertain", "lost"]

_BOUGHT: Final = (State.COMPLETED, State.STORED, State.PRUNED, State.LOST)
_STATUS: Final[dict[State, Status]] = {
    State.STORED: "kept",
    State.COMPLETED: "running",
    State.SUBMITTED: "running",
    State.RESERVED: "running",
    State.SENDING: "running",
    State.UNCERTAIN: "uncertain",
    State.LOST: "lost",
    State.PRUNED: "running",  # a run that wants it fetches it again, while the gateway has it
}


@dataclass(frozen=True)
class Standing:
    """How one shot stands.

    Attributes:
        status: `kept`: its clip is there. `running`: it is bought, its clip is not there yet. `new`: to be bought.
            `stale`: to be bought anew, since what it takes in changes. `failed`: its takes are there, and none passed
            its checks. `uncertain`, `lost`: see the ledger.
        through: the upstream shot that makes it stale.
        shares: an earlier shot of the plan that is the same purchase.
        key: of that take in the shot's own words, where it is known yet.
        purchase: its live row.
        take: which take the film uses.
        to_buy: the most that each take costs that a run would buy, in micro-dollars by its number.
        is_unseen: the take that the film uses has checks to pass, and has not been held against them.
    """

    status: Status
    through: str | None = None
    shares: str | None = None
    key: str | None = None
    purchase: Purchase | None = None
    take: int = 1
    to_buy: Mapping[int, int] = field(default_factory=dict)
    is_unseen: bool = False

    @property
    def micro_usd(self) -> int:
        """The most that a run would pay for it; a shot that shares another's purchase costs nothing."""
        return sum(self.to_buy.values())


async def standings(reckoner: Reckoner) -> dict[str, Standing]:
    """How every shot of a plan stands, by id. Nothing is pinned; a retake that this run has yet to begin is new."""
    ledger, account = reckoner.desk.ledger, reckoner.desk.account
    rows = await _rows(reckoner)
    before = {row.order.shot for row in rows if row.state in _BOUGHT}
    live = {row.order.key: row for row in rows if row.state in LIVE and not row.spare}
    known = await verdicts(ledger, [row.id for row in live.values()])
    refused: set[str] = set()
    found: dict[str, Standing] = {}
    for level in _levels(reckoner.planned.order):
        choices: dict[str, Choice] = {}
        for shot in level:
            blocking = next((need for need in shot.needs if found[need].status != "kept"), None)
            if blocking is not None:
                found[shot.id] = _through(shot, blocking, found, bought_before=shot.id in before)
            else:
                choices[shot.id] = await reckoner.choice(
                    shot, {need: facts_of(found[need]) for need in shot.needs}, pin=False
                )
        keys = [key for choice in choices.values() for take in choice.numbers for key in choice.keys(take)]
        # A clip that another storyboard bought is the same purchase.
        if unknown := [key for key in keys if key not in live]:
            live |= await ledger.find(account, reckoner.edition, unknown)
            known |= await verdicts(ledger, [live[key].id for key in unknown if key in live])
        softened = [key for choice in choices.values() for key in choice.softened(live)]
        refused |= await moderated(ledger, account, reckoner.edition, softened)
        for shot_id, choice in choices.items():
            taken = {take: choice.bought(take, live, refused) for take in choice.numbers}
            standing = _standing(choice, taken, known, again=reckoner.desk.settings.on_uncertain == "buy-again")
            if shot_id in reckoner.retakes and not await reckoner.retaken(choice):
                standing = _retaken(choice, standing, taken)
            found[shot_id] = standing
    return _sharing(reckoner.planned, found)


def _standing(
    choice: Choice, rows: Mapping[int, Purchase | None], known: Mapping[tuple[int, str], Verdict], *, again: bool
) -> Standing:
    """How a shot stands: by the first candidate that has not failed its checks.

    Args:
        choice: what it can be bought as.
        rows: of its takes.
        known: what is known of their clips.
        again: what may have been bought already is bought once more.
    """
    to_buy = {take: choice.micro_usd for take in choice.wanted if _is_to_buy(rows[take], again=again)}
    for take in choice.candidates:
        row = rows[take]
        key = choice.keys(take)[0]
        if row is None:
            return Standing("new", key=key, take=take, to_buy={**to_buy, take: choice.micro_usd})
        looks = not (choice.look.nothing or choice.told)
        verdict = known.get((row.id, choice.look.spec)) if looks else None
        if verdict is None or verdict.passed:
            unseen = looks and verdict is None
            return Standing(_STATUS[row.state], key=key, purchase=row, take=take, to_buy=to_buy, is_unseen=unseen)
    first = choice.candidates[0]
    return Standing("failed", key=choice.keys(first)[0], purchase=rows[first], take=first, to_buy=to_buy)


def _is_to_buy(row: Purchase | None, *, again: bool) -> bool:
    return row is None or (again and row.state is State.UNCERTAIN)


def _retaken(choice: Choice, standing: Standing, rows: Mapping[int, Purchase | None]) -> Standing:
    """How a shot stands that is to be retaken: a take that is not finished is gone on with, else the next is bought."""
    if standing.purchase is None or standing.purchase.state not in FINISHED:
        return standing
    following = 1 + max(take for take, row in rows.items() if row is not None)
    return Standing("new", take=following, to_buy={**standing.to_buy, following: choice.micro_usd})


def _through(shot: PlannedShot, need: str, found: Mapping[str, Standing], *, bought_before: bool) -> Standing:
    """How a shot stands whose sources are not there yet; where one of them never will be, a run buys nothing for it."""
    wanted = () if any(_is_dead(found[source]) for source in shot.needs) else numbers(shot, None)[1]
    to_buy = dict.fromkeys(wanted, micro_usd(shot.upper_usd))
    if not bought_before:
        return Standing("new", to_buy=to_buy)
    return Standing("stale", through=found[need].through or need, to_buy=to_buy)


def _is_dead(standing: Standing) -> bool:
    """Whether a run neither has nor buys a clip of it, as long as the document stays what it is."""
    return standing.status == "failed" or (standing.status in ("new", "stale") and not standing.to_buy)


def _sharing(plan: Plan, found: dict[str, Standing]) -> dict[str, Standing]:
    """Says of shots that are one purchase that they are, and counts the price of each take once."""
    firsts: dict[str, str] = {}
    counted: set[str] = set()
    shared = {}
    for shot in plan.order:
        standing = found[shot.id]
        if standing.key is not None:
            base, first = standing.key.rpartition("#")[0], firsts.setdefault(standing.key, shot.id)
            keys = {take: key_of(base, take) for take in standing.to_buy}
            to_buy = {take: micro for take, micro in standing.to_buy.items() if keys[take] not in counted}
            counted.update(keys.values())
            shared[shot.id] = replace(standing, shares=None if first == shot.id else first, to_buy=to_buy)
    return found | shared


async def _rows(reckoner: Reckoner) -> list[Purchase]:
    """The purchases of this storyboard and edition, in whatever wording, at once: a chain would ask shot by shot."""
    return await reckoner.desk.ledger.of_account(
        reckoner.desk.account,
        purchases.c.storyboard == reckoner.storyboard,
        purchases.c.edition == reckoner.edition,
        purchases.c.state.in_(sorted(LIVE)),
    )


def _levels(order: Iterable[PlannedShot]) -> list[list[PlannedShot]]:
    """Shots that need nothing of each other, the upstream ones first."""
    depth: dict[str, int] = {}
    levels: list[list[PlannedShot]] = []
    for shot in order:
        depth[shot.id] = 1 + max((depth[need] for need in shot.needs), default=-1)
        while len(levels) <= depth[shot.id]:
            levels.append([])
        levels[depth[shot.id]].append(shot)
    return levels


def facts_of(standing: Standing) -> tuple[str, float]:
    """Sha256 and seconds of a kept shot's clip."""
    clip = standing.purchase.clip if standing.purchase else None
    assert clip is not None  # noqa: S101 - what `kept` means
    return clip.sha256, clip.seconds
