"""What a film's run asks of a run of `generate-video` on another machine: one take, bought in the film's name.

The key of a take is made of files and clips, not of the addresses in its request, so whoever buys it has to be told the
order, and on what terms. With it comes what shows that both machines mean the same account, ledger and storage, by two
ledgers a take would be paid for twice, and that the take is still wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict

from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.clips import without_password
from prefect_kling.flows.runs import run_id
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.buying import OnUncertain, as_before
from prefect_kling.ledger.database import chunks
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import State

__all__ = ["Errand", "newest"]


class Errand(BaseModel):
    """One take that is wanted elsewhere; travels as a parameter of its run, so that it holds no secret.

    Attributes:
        order: what the ledger writes down; its `run` is the film's.
        limits: budgets and slots of the film's run, in place of the worker's.
        on_uncertain: likewise.
        account: that pays.
        ledger: the mark of the ledger.
        storage: where clips are kept.
        before: the newest row that the take's key had when it was asked for.
        attempt: of the film's run that asks.
    """

    model_config = ConfigDict(frozen=True)

    order: Order
    limits: Limits
    on_uncertain: OnUncertain
    account: Account
    ledger: str
    storage: str
    before: int = 0
    attempt: int = 1

    @property
    def name(self) -> str:
        """What its run is called: the film and the shot, and the take where it is not the first."""
        take = f" take {self.order.take}" if self.order.take > 1 else ""
        return f"{self.order.storyboard} · {self.order.shot}{take}"

    @classmethod
    def of(cls, desk: Desk, order: Order, limits: Limits, *, before: int = 0, attempt: int = 1) -> Self:
        """An errand from this machine."""
        return cls(
            order=order,
            limits=limits,
            on_uncertain=desk.settings.on_uncertain,
            account=desk.account,
            ledger=ledger_mark(desk.ledger.id),
            storage=without_password(desk.storage().location("")),
            before=before,
            attempt=attempt,
        )

    async def begin(self, desk: Desk) -> None:
        """Names the run that this is called in, and makes sure that it can be run here and is still wanted.

        Raises:
            InvalidRequest: it cannot, or is not.
            KlingError: the film's run has bought it meanwhile, and this is what came of it.
        """
        here = self.of(desk, self.order, self.limits)
        for what, theirs, ours in (
            ("pays from the account", _named(self.account), _named(here.account)),
            ("uses the ledger", self.ledger, here.ledger),
            ("keeps clips at", self.storage, here.storage),
        ):
            if theirs != ours:
                raise InvalidRequest(
                    f"shot '{self.order.shot}' was not bought: the film's run {what} {theirs}, this worker {ours}. "
                    "Give both the same studio: a saved block with ledger and storage URLs that every machine can "
                    "reach, or the same environment; see docs/machines.md"
                )
        async with get_client() as client:
            await client.update_flow_run(UUID(run_id()), name=self.name)
            film = await client.read_flow_run(UUID(self.order.run))
        if film.state is not None and (film.state.is_final() or film.state.type is StateType.CANCELLING):
            raise InvalidRequest(
                f"shot '{self.order.shot}' was not bought: the film's run is {film.state.name}. Its retry goes on"
            )
        if film.run_count > self.attempt:
            raise InvalidRequest(
                f"shot '{self.order.shot}' was not bought: the film's run was begun again since, and asks anew for "
                "what it wants"
            )
        row = (await newest(desk, [self.order])).get(self.order.key)
        if row is not None and row.id > self.before and row.state in (State.FAILED, State.REFUSED):
            raise as_before(row)  # the film's run went on by itself, and has done with this take


async def newest(desk: Desk, orders: Iterable[Order]) -> dict[str, Purchase]:
    """The newest row of each order's key, ended ones included; all orders are of one edition."""
    wanted, found = list(orders), dict[str, Purchase]()
    for keys in chunks([order.key for order in wanted]):
        rows = await desk.ledger.of_account(
            desk.account, purchases.c.edition == wanted[0].edition, purchases.c.key.in_(keys)
        )
        for row in rows:
            if row.order.key not in found or found[row.order.key].id < row.id:
                found[row.order.key] = row
    return found


def _named(account: Account) -> str:
    return f"'{account.name}' at {without_password(account.base_url)}"
