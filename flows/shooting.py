"""One shot of a run: its takes, made at the same time, and the first of them that will do.

A take that moderation refuses is tried again in the document's softer words, a shot whose takes all fail their checks
is taken again as often as the document says. Both are said aloud, and neither is done by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prefect.logging import get_run_logger

from prefect_kling.clips import Clip
from prefect_kling.flows.checking import imported
from prefect_kling.flows.elsewhere import make_elsewhere
from prefect_kling.flows.outcome import ShotOutcome, TakeOutcome, said_of, usd_of
from prefect_kling.flows.progress import tell
from prefect_kling.flows.reckoning import Choice
from prefect_kling.flows.stage import Stage, named
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    CheckFailed,
    GenerationFailed,
    InsufficientCredits,
    InvalidRequest,
    KlingError,
    LedgerUnavailable,
    PurchaseUncertain,
)
from prefect_kling.gateway.moderation import is_moderated
from prefect_kling.ledger.money import shown
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import State
from prefect_kling.ledger.takes import pin_take
from prefect_kling.ledger.verdicts import Verdict, remember_verdict, verdicts
from prefect_kling.storyboard.plan import PlannedShot
from prefect_kling.tasks import check_clip, create_video, download_video, wait_for_video
from prefect_kling.tasks.results import Generated, Submitted

__all__ = ["Shooting"]

CLOSES_THE_TILL = (InsufficientCredits, AuthenticationFailed)
"""After one of these, nothing more is bought in this run: the next create would be refused as well."""


@dataclass(frozen=True)
class _Taken:
    """A take in storage: its row, its clip, whether that was there already, and what is wrong with it."""

    order: Order
    purchase: int
    clip: Clip
    kept: bool
    wording: int
    faults: str


class Shooting:
    """One shot.

    Args:
        stage: of the run.
        shot: of the plan.
        clips: of the shots that it takes something from.
    """

    def __init__(self, stage: Stage, shot: PlannedShot, clips: Mapping[str, Clip]) -> None:
        self.stage, self.shot, self.clips = stage, shot, clips
        self.choice: Choice | None = None
        self.used: _Taken | None = None
        self.error: Exception | None = None
        self._takes: dict[int, asyncio.Task[_Taken]] = {}

    async def outcome(self) -> ShotOutcome:
        """The take that the film uses, as soon as it is known; failures are in the outcome, not raised."""
        try:
            # The same text in another object: Prefect would draw an arrow from the clip to whatever holds its own.
            facts = {need: (bytes.fromhex(clip.sha256).hex(), clip.seconds) for need, clip in self.clips.items()}
            self.choice = await self.stage.reckoner.choice(self.shot, facts)
            self.used = used = await self._first_that_will_do(self.choice)
        except Exception as error:  # noqa: BLE001 - a shot's failure must not cancel its siblings; it is in the outcome
            self.error = error
            outcome = ShotOutcome.failed(self.shot.id, error, await self._billed(self._number_of_failure()))
            get_run_logger().error("%s failed: %s", self.shot.id, outcome.error)
            tell(self.shot.id, "failed", outcome.error or "")
            return outcome
        bought = await self._billed(used.order.take)
        outcome = ShotOutcome.stored(self.shot.id, used.clip, bought, kept=used.kept, take=used.order.take)
        outcome = outcome.model_copy(update={"softened": used.wording, "faults": used.faults})
        if not used.kept:
            tell(self.shot.id, "stored", f"{used.clip.seconds:.2f} s, {outcome.usd:.2f} USD")
        return outcome

    async def purchase(self) -> Purchase | None:
        """The row of the take that the film uses, or of the one that failed in this run."""
        if self.used is None:
            return await self._billed(self._number_of_failure())
        try:
            return await self.stage.desk.ledger.get(self.used.purchase)
        except LedgerUnavailable as error:  # as in `_billed`
            get_run_logger().warning("%s", error)
            return None

    async def further(self) -> tuple[TakeOutcome, ...]:
        """What became of every other take; to be asked for once `outcome` is there. Nothing fails with them."""
        chosen = None if self.used is None else self.used.order.take
        others = [number for number in self._takes if number != chosen]
        # Of a shot that failed, the one take that there is is told by its outcome.
        if self.used is None and len(self._takes) == 1:
            return ()
        return tuple([await self._take_outcome(number) for number in others])

    async def end(self) -> None:
        """Stops the takes that still run."""
        for task in self._takes.values():
            task.cancel()
        await asyncio.gather(*self._takes.values(), return_exceptions=True)

    async def _first_that_will_do(self, choice: Choice) -> _Taken:
        there = await self.stage.takes(choice)
        pruned = await self._pruned(choice, there)
        for number in choice.wanted:
            if number not in pruned:
                self._begin(number, there)
        failures: dict[int, Exception] = {}
        for number in choice.candidates:
            if number not in self._takes and number not in there:
                if not all(_may_retake(error) for error in failures.values()):
                    continue
                self._say_retake(number, failures)
            try:
                taken = await self._good(choice, number, pruned.get(number, ""))
            except Exception as error:  # noqa: BLE001 - the next candidate may do; else it is raised below
                failures[number] = error
                if number in there and there[number].clip is not None and not isinstance(error, CheckFailed):
                    break  # other clips may be made of it: that it cannot be had now is no reason to buy them anew
                continue
            if number != choice.candidates[0]:
                # Else a rerun could use another one, and would buy anew what is made of this one.
                ledger, account = self.stage.desk.ledger, self.stage.desk.account
                await pin_take(ledger, account, choice.slate, number, self.stage.reckoner.pins_as, seen=choice.pin)
            return taken
        raise self._told(failures)

    async def _good(self, choice: Choice, number: int, faults: str) -> _Taken:
        """A take that passes its checks, or that the document wants all the same; `faults` is what is known of it."""
        if faults and not choice.told:
            raise CheckFailed(f"{self._named(number)} failed its checks: {faults}. It is pruned")
        self._begin(number)
        taken = await self._takes[number]
        if taken.faults and not choice.told:
            raise CheckFailed(
                f"{self._named(number)} failed its checks: {taken.faults}. It is kept at {taken.clip.path}"
            )
        return taken

    async def _pruned(self, choice: Choice, there: Mapping[int, Purchase]) -> dict[int, str]:
        """The takes whose storage was freed, with what their checks said; they are fetched again only where needed."""
        gone = {number: row.id for number, row in there.items() if row.state is State.PRUNED}
        spec, found = choice.look.spec, await verdicts(self.stage.desk.ledger, gone.values())
        return {number: found[row, spec].said if (row, spec) in found else "" for number, row in gone.items()}

    def _begin(self, number: int, there: Mapping[int, Purchase] | None = None) -> None:
        if number not in self._takes:
            self._takes[number] = asyncio.create_task(self._take(number, there))

    async def _take(self, number: int, there: Mapping[int, Purchase] | None) -> _Taken:
        """A take, in the shot's own words or the first softer ones that moderation lets pass.

        Args:
            number: of the take.
            there: the rows of the shot's takes, where they have just been read.
        """
        assert self.choice is not None  # noqa: S101 - set before the first take begins
        choice = self.choice
        if there is None:
            there = await self.stage.takes(choice, number)
        found = there.get(number)
        wording = 0 if found is None else choice.keys(number).index(found.order.key)
        while True:
            order = choice.order(number, wording)
            try:
                purchase, clip, kept = await self._made(order, found, wording)
                break
            except (InvalidRequest, GenerationFailed) as error:
                if not is_moderated(error) or wording + 1 not in choice.wordings:
                    raise
                wording, found = wording + 1, None
                get_run_logger().warning(
                    "%s was refused by the gateway's moderation (%s); it is tried again with prompt %d of soften: %s",
                    self._named(number),
                    said_of(error),
                    wording,
                    self.shot.softer[wording - 1].prompt,
                )
                tell(self._name(number), "softened", f"prompt {wording} of soften")
        faults = await self._faults(purchase, clip, number)
        return _Taken(order, purchase, clip, kept, wording, faults)

    async def _made(self, order: Order, found: Purchase | None, wording: int) -> tuple[int, Clip, bool]:
        """A take's row, its clip, and whether that was there already; its tasks are named after the shot."""
        name = self._name(order.take)
        if found is not None and found.state is State.STORED:
            tell(name, "kept", f"bought {found.created_at:%Y-%m-%d}")
            kept = Generated(purchase=found.id, task_id=str(found.task_id))
            return found.id, await self._brought_home(kept, f"{name} · kept"), True
        if found is not None and found.state is State.PRUNED:
            again = Generated(purchase=found.id, task_id=str(found.task_id))
            tell(name, "downloading")
            return found.id, await self._brought_home(again, f"{name} · download"), False
        if found is not None and found.state in (State.SUBMITTED, State.COMPLETED):
            submitted = Submitted(purchase=found.id, task_id=str(found.task_id))
            generated = await self._waited(submitted, name)
        else:
            async with self.stage.slots.turns:
                await self.stage.slots.queued()
                # One that somebody has begun to buy is joined here.
                bought = await self._bought(order, wording, name, here=found is not None)
                generated = bought if isinstance(bought, Generated) else await self._waited(bought, name)
        tell(name, "downloading")
        return generated.purchase, await self._brought_home(generated, f"{name} · download"), False

    async def _waited(self, submitted: Submitted, name: str) -> Generated:
        stage = self.stage
        with stage.slots.generating():
            # It is not asked about sooner anyway, and whatever calls back meanwhile is in the ledger.
            await stage.slots.filled(stage.desk.settings.poll_interval)
            called = ", which calls back" if stage.is_called else ""
            tell(name, "generating", f"task {submitted.task_id}{called}")
            return stage.kept(await named(wait_for_video, f"{name} · generate")(submitted, stage.studio))

    async def _brought_home(self, generated: Generated, name: str) -> Clip:
        await self.stage.slots.filled()
        async with self.stage.slots.downloads:
            return await named(download_video, name)(generated, self.stage.studio)

    async def _bought(self, order: Order, wording: int, name: str, *, here: bool) -> Submitted | Generated:
        """Buys a take; elsewhere it is made to its end, unless it has to be bought here after all."""
        stage = self.stage
        stage.check_till()
        sources = [await stage.source(self.shot, entry, self.clips) for entry in self.shot.inputs]
        urls = {entry.place: url for entry, (url, _) in zip(self.shot.inputs, sources, strict=True)}
        request = self.shot.filled(urls, wording=wording, loopback=stage.loopback)
        order, limits = replace(order, shot=self._held_for(order)), stage.prepared.limits
        origins = [origin for _, origin in sources if origin is not None]
        tell(name, "buying", shown(order.micro_usd))
        try:
            if stage.prepared.elsewhere is not None and not here:
                made = await named(make_elsewhere, f"{name} · elsewhere")(
                    stage.prepared.elsewhere, name, request.body(), order, limits, wait_for=origins
                )
                if made is not None:
                    return stage.kept(made)
                await self._check_till(order.take)
            with stage.slots.buying():
                return stage.kept(
                    await named(create_video, f"{name} · create")(
                        request.body(), stage.studio, order=order, limits=limits, wait_for=origins
                    )
                )
        except CLOSES_THE_TILL as error:
            stage.till_closed = error
            raise

    async def _check_till(self, number: int) -> None:
        """Raises what has closed the till, unless somebody has bought the take meanwhile: it is waited for then."""
        assert self.choice is not None  # noqa: S101 - as above
        row = (await self.stage.takes(self.choice, number)).get(number)
        again = self.stage.desk.settings.on_uncertain == "buy-again"
        if row is None or (again and row.state is State.UNCERTAIN):
            self.stage.check_till()

    async def _faults(self, purchase: int, clip: Clip, number: int) -> str:
        """What is wrong with a clip; looked at once, and remembered in the ledger."""
        assert self.choice is not None  # noqa: S101 - as above
        look, ledger = self.choice.look, self.stage.desk.ledger
        if look.nothing:
            return ""
        spec = look.spec
        verdict = (await verdicts(ledger, [purchase])).get((purchase, spec))
        if verdict is None:
            tell(self._name(number), "checking")
            function = imported(look.function) if look.function else None
            check = named(check_clip, f"{self._name(number)} · check")
            found = self.stage.kept(await check(clip, look.wanted, self.stage.studio, function=function))
            verdict = Verdict(not found.faults, "; ".join(found.faults))
            verdict = await remember_verdict(ledger, purchase, spec, verdict)
        return verdict.said

    def _say_retake(self, number: int, failures: Mapping[int, Exception]) -> None:
        why = "; ".join(said_of(error) for error in failures.values())
        get_run_logger().warning("%s is bought as take %d, as max_retakes allows: %s", self.shot.id, number, why)
        tell(self.shot.id, "retaking", f"take {number}")

    async def _take_outcome(self, number: int) -> TakeOutcome:
        try:
            taken = await self._takes[number]
        except Exception as error:  # noqa: BLE001 - it is in the outcome
            get_run_logger().error("%s take %d failed: %s", self.shot.id, number, said_of(error))
            usd, kind = usd_of(await self._billed(number)), type(error).__name__
            return TakeOutcome(take=number, usd=usd, error_type=kind, error=said_of(error))
        usd = usd_of(await self._billed(number))
        return TakeOutcome(take=number, usd=usd, clip=taken.clip, softened=taken.wording, faults=taken.faults)

    async def _billed(self, number: int | None) -> Purchase | None:
        if self.choice is None or number is None:
            return None
        try:
            found = (await self.stage.takes(self.choice, number)).get(number)
        except LedgerUnavailable as error:  # what became of a shot is known, and must not be lost for its bill
            get_run_logger().warning("%s", error)
            return None
        return self.stage.bought(self.choice.order(number), found)

    def _number_of_failure(self) -> int | None:
        """The take whose bill is the shot's, where it failed: the only one; several have bills of their own."""
        return next(iter(self._takes)) if len(self._takes) == 1 else None

    def _held_for(self, order: Order) -> str:
        """The shot that an order's money is held for: of shots that are one purchase, the first."""
        standing = self.stage.prepared.standings[order.shot]
        return order.shot if standing.shares is None or order.take in standing.to_buy else standing.shares

    def _told(self, failures: Mapping[int, Exception]) -> Exception:
        """The one failure to tell where no take will do; what waits for a decision before all others."""
        for kind in (PurchaseUncertain, CheckFailed, KlingError, Exception):
            found = [error for error in failures.values() if isinstance(error, kind)]
            if kind is CheckFailed and found:
                others = [said_of(error) for error in failures.values() if not isinstance(error, CheckFailed)]
                said = "; ".join([*map(said_of, found), *others])
                number = next(number for number, error in failures.items() if error is found[0])
                return CheckFailed(f"{said}. `take: {number}` in the document uses it all the same")
            if found:
                return found[0]
        raise AssertionError("a shot has at least one candidate")

    def _named(self, number: int) -> str:
        return f"{self.shot.id}, take {number},"

    def _name(self, number: int) -> str:
        """What a take's tasks are called after: the shot, and the take where it is not the first choice."""
        first = self.choice is None or number == self.choice.candidates[0]
        return self.shot.id if first else f"{self.shot.id} take {number}"


def _may_retake(error: Exception) -> bool:
    """Whether another take can help: the clip was not good, or there was none; moderation would refuse it as well."""
    if isinstance(error, GenerationFailed):
        return not is_moderated(error)
    return isinstance(error, CheckFailed)
