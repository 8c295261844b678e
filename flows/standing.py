"""How each shot of a plan stands in the ledger: kept, new, stale, uncertain, lost. Nothing is bought, nothing changed.

A shot's key follows from what would be sent, and from the clips and files it takes in; so it is known once those are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import fsspec

from prefect_kling.clips import file_name, without_password
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.prices import PriceTable, billed_seconds, micro_usd, upper_cost
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.keys import Identity, Place, base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import State
from prefect_kling.ledger.takes import FINISHED, Pin, Slate, pinned, retake
from prefect_kling.storyboard.document import slug
from prefect_kling.storyboard.plan import Plan, PlannedShot
from prefect_kling.storyboard.reader import Document

__all__ = ["Reckoner", "Standing", "Status", "further_takes", "standings"]

Status = Literal["kept", "running", "new", "stale", "uncertain", "lost"]

_STATUS: Final[dict[State, Status]] = {
    State.STORED: "kept",
    State.COMPLETED: "running",
    State.SUBMITTED: "running",
    State.RESERVED: "running",
    State.SENDING: "running",
    State.UNCERTAIN: "uncertain",
    State.LOST: "lost",
}


@dataclass(frozen=True)
class Standing:
    """How one shot stands.

    Attributes:
        status: `kept`: its clip is there. `running`: it is bought, its clip is not there yet. `new`: to be bought.
            `stale`: to be bought anew, since what it takes in changes. `uncertain`, `lost`: see the ledger.
        through: the upstream shot that makes it stale.
        shares: an earlier shot of the plan that is the same purchase.
        key: of the purchase, where it is known yet.
        purchase: its live row.
        take: which take the film uses.
        to_buy: the most that each take costs that a run would buy, in micro-dollars by its number.
    """

    status: Status
    through: str | None = None
    shares: str | None = None
    key: str | None = None
    purchase: Purchase | None = None
    take: int = 1
    to_buy: Mapping[int, int] = field(default_factory=dict)

    @property
    def micro_usd(self) -> int:
        """The most that a run would pay for it; a shot that shares another's purchase costs nothing."""
        return sum(self.to_buy.values())


class Reckoner:
    """Makes orders of planned shots, for one document in one edition.

    Args:
        desk: the account and its ledger.
        document, plan: what is rendered.
        edition: separates runs that are meant to give new clips.
        run: the flow run, or empty.
        retakes: ids of shots that are wanted anew.
    """

    def __init__(
        self, desk: Desk, document: Document, plan: Plan, edition: str, *, run: str = "", retakes: Iterable[str] = ()
    ) -> None:
        self.desk, self.document, self.planned, self.edition = desk, document, plan, edition
        self.run, self.retakes = run, frozenset(retakes)
        self.storyboard = slug(document.storyboard.title)
        self.folder = f"{file_name(edition)}/{self.storyboard}"
        self.prices = PriceTable.load(desk.settings.prices)
        self._files: dict[str, asyncio.Task[str]] = {}
        self._pins: dict[tuple[str, str], Pin] | None = None

    async def digest(self, source: str) -> str:
        """The sha256 of a file that shots take in; each is read once."""
        if source not in self._files:
            self._files[source] = asyncio.create_task(asyncio.to_thread(_sha256, source))
        return await asyncio.shield(self._files[source])

    async def order(self, shot: PlannedShot, clips: Mapping[str, tuple[str, float]], *, pin: bool = True) -> Order:
        """What to buy for a shot.

        Args:
            shot: of the plan.
            clips: sha256 and seconds of each clip it takes in, by shot.
            pin: whether a retake pins its take; else the order is that of the take which is used now.
        """
        identities: dict[Place, Identity] = {}
        for entry in shot.inputs:
            match entry.kind:
                case "file":
                    identities[entry.place] = ("file", await self.digest(entry.source))
                case "url":
                    identities[entry.place] = ("url", entry.source)
                case kind:
                    identities[entry.place] = (kind, clips[entry.source][0])
        body = canonical(shot.request.body(), identities)
        base, length = base_key(body), _input_seconds(shot, clips)
        take = await self._take(shot.id, base, pin=pin)
        return Order(
            edition=self.edition,
            key=key_of(base, take),
            request=body,
            model=shot.request.model,
            seconds=billed_seconds(shot.request, length),
            micro_usd=micro_usd(upper_cost(shot.request, input_seconds=length, prices=self.prices)),
            storyboard=self.storyboard,
            document=self.document.digest,
            shot=shot.id,
            take=take,
            folder=f"clips/{self.folder}",
            run=self.run,
        )

    async def retaken(self, order: Order) -> bool:
        """Whether this run has pinned the take of an order already, as a retry finds it."""
        pin = (await self._pinned()).get((order.shot, _base_of(order)))
        return bool(self.run) and pin is not None and pin.run == self.run

    async def _take(self, shot: str, base: str, *, pin: bool) -> int:
        if pin and shot in self.retakes:
            return await retake(
                self.desk.ledger, self.desk.account, Slate(self.edition, self.storyboard, shot, base), self.run
            )
        found = (await self._pinned()).get((shot, base))
        return 1 if found is None else found.take

    async def _pinned(self) -> dict[tuple[str, str], Pin]:
        if self._pins is None:
            self._pins = await pinned(self.desk.ledger, self.desk.account, self.edition, self.storyboard)
        return self._pins


async def standings(reckoner: Reckoner) -> dict[str, Standing]:
    """How every shot of a plan stands, by id. Nothing is pinned; a retake that this run has yet to begin is new."""
    before = await _bought_before(reckoner)
    found: dict[str, Standing] = {}
    for level in _levels(reckoner.planned.order):
        orders: dict[str, list[Order]] = {}
        for shot in level:
            blocking = next((need for need in shot.needs if found[need].status != "kept"), None)
            if blocking is not None:
                found[shot.id] = _through(shot, blocking, found[blocking], shot.id in before)
            else:
                order = await reckoner.order(shot, {need: _facts(found[need]) for need in shot.needs}, pin=False)
                orders[shot.id] = [order, *further_takes(order, shot.takes)]
        keys = [key for takes in orders.values() for order in takes for key in (order.key, *order.also)]
        live = await reckoner.desk.ledger.find(reckoner.desk.account, reckoner.edition, keys)
        for shot_id, takes in orders.items():
            standing = _standing(takes, live)
            if shot_id in reckoner.retakes and not await reckoner.retaken(takes[0]):
                standing = _retaken(takes, standing)
            found[shot_id] = standing
    return _sharing(reckoner.planned, found)


def further_takes(order: Order, takes: int) -> list[Order]:
    """The orders of the other takes that are wanted of a shot: 1 to `takes`, but for the order's own."""
    base = _base_of(order)
    return [
        replace(order, take=take, key=key_of(base, take), also=()) for take in range(1, takes + 1) if take != order.take
    ]


def _standing(takes: list[Order], live: Mapping[str, Purchase]) -> Standing:
    """How a shot stands, whose first order is that of the take that the film uses."""
    bought = [next((live[key] for key in (order.key, *order.also) if key in live), None) for order in takes]
    to_buy = {order.take: order.micro_usd for order, row in zip(takes, bought, strict=True) if row is None}
    order, purchase = takes[0], bought[0]
    status = "new" if purchase is None else _STATUS[purchase.state]
    return Standing(status, key=order.key, purchase=purchase, take=order.take, to_buy=to_buy)


def _retaken(takes: list[Order], standing: Standing) -> Standing:
    """How a shot stands that is to be retaken: a take that is not finished is gone on with, else the next is bought."""
    if standing.purchase is None or standing.purchase.state not in FINISHED:
        return standing
    following = 1 + max(order.take for order in takes if order.take not in standing.to_buy)
    return Standing("new", to_buy={**standing.to_buy, following: takes[0].micro_usd})


def _through(shot: PlannedShot, need: str, upstream: Standing, bought_before: bool) -> Standing:
    to_buy = dict.fromkeys(range(1, shot.takes + 1), micro_usd(shot.upper_usd))
    if not bought_before:
        return Standing("new", to_buy=to_buy)
    return Standing("stale", through=upstream.through or need, to_buy=to_buy)


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


async def _bought_before(reckoner: Reckoner) -> set[str]:
    """The shots of this storyboard and edition that were bought at some time, in whatever wording."""
    rows = await reckoner.desk.ledger.of_account(
        reckoner.desk.account,
        purchases.c.storyboard == reckoner.storyboard,
        purchases.c.edition == reckoner.edition,
        purchases.c.state.in_([str(state) for state in (State.COMPLETED, State.STORED, State.LOST)]),
    )
    return {row.order.shot for row in rows}


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


def _base_of(order: Order) -> str:
    """The key of an order without its take."""
    return order.key.rpartition("#")[0]


def _facts(standing: Standing) -> tuple[str, float]:
    clip = standing.purchase.clip if standing.purchase else None
    assert clip is not None  # noqa: S101 - what `kept` means
    return clip.sha256, clip.seconds


def _input_seconds(shot: PlannedShot, clips: Mapping[str, tuple[str, float]]) -> float | None:
    if shot.request.base_video is None:
        return None
    upstream = next((i.source for i in shot.inputs if i.kind == "clip" and i.place[0] == "video_list"), None)
    return clips[upstream][1] if upstream else shot.seconds


def _sha256(source: str) -> str:
    try:
        with fsspec.open(source, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except (OSError, ValueError, ImportError) as error:
        raise InvalidMedia(f"{without_password(source)} cannot be read: {error}") from error
