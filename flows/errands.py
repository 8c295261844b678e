"""What a film's run asks of a run of `generate-video` on another machine: one take, bought in the film's name.

The key of a take is made of files and clips, not of the addresses in its request, so whoever buys it has to be told the
order. With it comes what shows that both machines mean the same account, ledger and storage: by two ledgers a take
would be paid for twice.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Self
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict

from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.clips import without_password
from prefect_kling.flows.runs import run_id
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.purchases import Account, Order

__all__ = ["Errand"]


class Errand(BaseModel):
    """One take that is wanted elsewhere; travels as a parameter of its run, so that it holds no secret.

    Attributes:
        order: what the ledger writes down; its `run` is the film's.
        budget: USD that the film's run may spend, in place of the studio's.
        account: that pays.
        ledger: the mark of the ledger.
        storage: where clips are kept.
    """

    model_config = ConfigDict(frozen=True)

    order: Order
    budget: Decimal | None = None
    account: Account
    ledger: str
    storage: str

    @property
    def name(self) -> str:
        """What its run is called: the film and the shot, and the take where it is not the first."""
        take = f" take {self.order.take}" if self.order.take > 1 else ""
        return f"{self.order.storyboard} · {self.order.shot}{take}"

    @classmethod
    def of(cls, desk: Desk, order: Order, budget: Decimal | None) -> Self:
        """An errand from this machine."""
        return cls(
            order=order,
            budget=budget,
            account=desk.account,
            ledger=ledger_mark(desk.ledger.id),
            storage=without_password(desk.storage().location("")),
        )

    async def begin(self, desk: Desk) -> None:
        """Names the run that this is called in, and makes sure that it can be run here and is still wanted.

        Raises:
            InvalidRequest: it cannot, or is not.
        """
        here = self.of(desk, self.order, self.budget)
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
            state = (await client.read_flow_run(UUID(self.order.run))).state
        if state is not None and (state.is_final() or state.type is StateType.CANCELLING):
            raise InvalidRequest(
                f"shot '{self.order.shot}' was not bought: the film's run is {state.name}. Its retry goes on"
            )


def _named(account: Account) -> str:
    return f"'{account.name}' at {without_password(account.base_url)}"
