"""What a shot of a plan has to be bought as: an order for each of its takes and wordings. Nothing is bought here.

A shot's key follows from what would be sent, and from the clips and files it takes in; so it is known once those are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import fsspec

from prefect_kling.clips import file_name, without_password
from prefect_kling.flows.checking import Look, look_of
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.prices import PriceTable, billed_seconds, micro_usd, upper_cost
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.keys import Identity, Place, base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.takes import Pin, Slate, pinned, retake
from prefect_kling.storyboard.document import slug
from prefect_kling.storyboard.plan import Plan, PlannedShot
from prefect_kling.storyboard.reader import Document

__all__ = ["Choice", "Reckoner", "numbers"]


@dataclass(frozen=True)
class Choice:
    """The orders that one shot can become, and which of them are wanted.

    Attributes:
        shot: of the plan.
        candidates: numbers of the takes that the film may use, the first that will do before the others.
        wanted: numbers of the takes that are bought whatever comes of them; candidates beyond these are retakes.
        told: the document says which take it is, so checks only warn.
        look: what its clips are held against.
        pin: what was pinned when the choice was made.
    """

    shot: PlannedShot
    candidates: tuple[int, ...]
    wanted: tuple[int, ...]
    told: bool
    look: Look
    worded: tuple[Order, ...]
    pin: Pin | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every take that is wanted or may be."""
        return tuple(dict.fromkeys((*self.candidates, *self.wanted)))

    @property
    def wordings(self) -> range:
        """0 for the shot's own prompt, then one for each softer one."""
        return range(len(self.worded))

    @property
    def micro_usd(self) -> int:
        """The most that a take costs."""
        return self.worded[0].micro_usd

    @property
    def base_keys(self) -> tuple[str, ...]:
        """The keys without a take, by wording."""
        return tuple(_base_of(order) for order in self.worded)

    @property
    def slate(self) -> Slate:
        """What a pin of the shot's take belongs to."""
        order = self.worded[0]
        return Slate(order.edition, order.storyboard, order.shot, _base_of(order))

    def order(self, take: int, wording: int = 0) -> Order:
        """The order for a take in a wording."""
        order = self.worded[wording]
        return replace(order, take=take, key=key_of(_base_of(order), take))

    def keys(self, take: int) -> tuple[str, ...]:
        """The keys of a take, by wording."""
        return tuple(key_of(base, take) for base in self.base_keys)

    def bought(self, take: int, live: Mapping[str, Purchase], moderated: Collection[str]) -> Purchase | None:
        """A take's live row. Pure.

        One in softer words is the take's where moderation has refused the shot's own; else somebody else wanted just
        those words. Of several, the first is the one that clips were made of.

        Args:
            take: the number.
            live: live rows by key.
            moderated: keys that moderation has refused.
        """
        own, *softer = self.keys(take)
        keys = (own, *softer) if own in moderated else (own,)
        return min((live[key] for key in keys if key in live), key=lambda row: row.id, default=None)

    def softened(self, live: Collection[str]) -> list[str]:
        """Keys of takes in the shot's own words that have a live row in softer ones."""
        keys = (self.keys(take) for take in self.numbers)
        return [own for own, *softer in keys if any(key in live for key in softer)]


class Reckoner:
    """Makes orders of planned shots, for one document in one edition.

    Args:
        desk: the account and its ledger.
        document, plan: what is rendered.
        edition: separates runs that are meant to give new clips.
        run: the flow run, or empty.
        retakes: ids of shots that are wanted anew.
        review: that wants them, or empty for the run itself: each pins takes of its own, and each once.
    """

    def __init__(
        self,
        desk: Desk,
        document: Document,
        plan: Plan,
        edition: str,
        *,
        run: str = "",
        retakes: Iterable[str] = (),
        review: str = "",
    ) -> None:
        self.desk, self.document, self.planned, self.edition = desk, document, plan, edition
        self.run, self.retakes = run, frozenset(retakes)
        self.pins_as = f"{run}/{review}" if review else run
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

    async def choice(self, shot: PlannedShot, clips: Mapping[str, tuple[str, float]], *, pin: bool = True) -> Choice:
        """What a shot can be bought as.

        Args:
            shot: of the plan.
            clips: sha256 and seconds of each clip it takes in, by shot.
            pin: whether a retake pins its take; else the choice is among the takes that are used now.
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
        length = _input_seconds(shot, clips)
        bodies = [canonical(request.body(), identities) for request in (shot.request, *shot.softer)]
        orders = tuple(
            Order(
                edition=self.edition,
                key=key_of(base_key(body), 1),
                request=body,
                model=shot.request.model,
                seconds=billed_seconds(shot.request, length),
                micro_usd=micro_usd(upper_cost(shot.request, input_seconds=length, prices=self.prices)),
                storyboard=self.storyboard,
                document=self.document.digest,
                shot=shot.id,
                folder=f"clips/{self.folder}",
                run=self.run,
            )
            for body in bodies
        )
        choice = Choice(shot, (), (), told=shot.take > 0, look=look_of(shot, length), worded=orders)
        found = await self._pin(choice, pin=pin)
        candidates, wanted = numbers(shot, found)
        return replace(choice, candidates=candidates, wanted=wanted, pin=found)

    async def retaken(self, choice: Choice) -> bool:
        """Whether this run has pinned the take of a shot already, as a retry finds it."""
        pin = (await self._pinned()).get((choice.shot.id, choice.slate.base_key))
        return bool(self.run) and pin is not None and pin.run == self.pins_as

    async def _pin(self, choice: Choice, *, pin: bool) -> Pin | None:
        if pin and choice.shot.id in self.retakes:
            slate, also = choice.slate, choice.base_keys[1:]
            return await retake(self.desk.ledger, self.desk.account, slate, self.pins_as, also=also)
        return (await self._pinned()).get((choice.shot.id, choice.slate.base_key))

    async def _pinned(self) -> dict[tuple[str, str], Pin]:
        if self._pins is None:
            self._pins = await pinned(self.desk.ledger, self.desk.account, self.edition, self.storyboard)
        return self._pins


def numbers(shot: PlannedShot, pin: Pin | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which takes a film may use, in order of preference, and which are bought in any case.

    `takes: n` buys n, one of them the take that is told or pinned. Retakes follow in number, so that a rerun finds
    them; a pin within a series leaves the series as long as it was.

    Args:
        shot: of the plan.
        pin: the take that a `--retake` has made or a film has chosen, if any.

    Returns:
        Candidates, and wanted takes.
    """
    if shot.take:
        first: tuple[int, ...] = (shot.take,)
        candidates = first
    else:
        series = tuple(range(1, shot.takes + 1)) if pin is None or pin.series == 1 else (pin.series,)
        first = series if pin is None else (pin.take,)
        retakes = range(series[-1] + 1, series[-1] + 1 + shot.max_retakes)
        candidates = tuple(dict.fromkeys((*first, *series, *retakes)))
    others = [take for take in range(1, shot.takes + 1) if take not in first]
    return candidates, (*first, *others[: shot.takes - len(first)])


def _base_of(order: Order) -> str:
    """The key of an order without its take."""
    return order.key.rpartition("#")[0]


def _input_seconds(shot: PlannedShot, clips: Mapping[str, tuple[str, float]]) -> float | None:
    if shot.request.base_video is None:
        return None
    upstream = next((i.source for i in shot.inputs if i.kind == "clip" and i.place[0] == "video_list"), None)
    return clips[upstream][1] if upstream else shot.input_seconds


def _sha256(source: str) -> str:
    try:
        with fsspec.open(source, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except (OSError, ValueError, ImportError) as error:
        raise InvalidMedia(f"{without_password(source)} cannot be read: {error}") from error
