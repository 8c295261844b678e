"""The Prefect events of a run, so that automations can act on a finished shot, a film, or trouble with money.

Resources carry labels that a trigger can match (`kling.storyboard`, `kling.shot`, `kling.edition`, `kling.account`);
payloads hold what an action may want to use, and as `run` the address of the run's page. Tokens show their first 8
characters, and no event holds a signed URL.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from prefect.events import emit_event

from prefect_kling.clips import without_password
from prefect_kling.flows.outcome import ShotOutcome
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.runs import run_page
from prefect_kling.gateway.errors import BudgetExceeded, InsufficientCredits, PurchaseUncertain
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.tasks.results import Film

__all__ = ["Announcer", "money_trouble"]

MOST_SAID: Final = 1000
_OF_MONEY: Final = {InsufficientCredits: "kling.credits.exhausted", BudgetExceeded: "kling.budget.reached"}


class Announcer:
    """Tells of one run of a storyboard.

    Args:
        prepared: what is rendered.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._account = prepared.reckoner.desk.account.name
        self._storage = prepared.reckoner.desk.storage()
        self._labels = {
            "kling.storyboard": prepared.document.storyboard.title,
            "kling.edition": prepared.reckoner.edition,
            "kling.account": self._account,
        }
        self._facts = {"storyboard": prepared.document.storyboard.title, "edition": prepared.reckoner.edition}
        self._told: set[str] = set()

    def shot(self, outcome: ShotOutcome, purchase: Purchase | None, error: Exception | None = None) -> None:
        """Tells what became of a shot in this run; nothing of one whose clip was there already.

        Args:
            outcome: of the shot.
            purchase: the row of its take, where there is one.
            error: what stopped it.
        """
        short = "none" if purchase is None else purchase.short
        facts = {"shot": outcome.id, "take": outcome.take, "usd": float(outcome.usd), "task_id": outcome.task_id}
        if outcome.status == "stored" and outcome.clip is not None:
            clip = outcome.clip
            facts |= {"clip": without_password(clip.path), "sha256": clip.sha256, "seconds": clip.seconds}
            self._emit("kling.shot.completed", short, outcome.id, facts)
        elif outcome.status == "failed":
            facts |= {"error_type": outcome.error_type, "error": (outcome.error or "")[:MOST_SAID]}
            self._emit("kling.shot.failed", short, outcome.id, facts)
            if isinstance(error, PurchaseUncertain):
                self._emit("kling.purchase.uncertain", short, outcome.id, facts)
            if error is not None and type(error).__name__ not in self._told:
                self._told.add(type(error).__name__)
                money_trouble(self._account, error)

    def film(self, film: Film, usd: Decimal) -> None:
        """Tells of a film that was joined in this run; `usd` is what the run bought."""
        labels = {"prefect.resource.id": f"kling.film.{film.sha256[:16]}", **self._labels}
        link = without_password(self._storage.link(film.path))
        facts: dict[str, Any] = {"film": without_password(film.path), "link": link, **self._facts}
        facts |= {"sha256": film.sha256, "seconds": film.seconds, "usd": float(usd), "run": run_page()}
        emit_event("kling.film.rendered", resource=labels, payload=facts)

    def _emit(self, event: str, short: str, shot: str, facts: dict[str, Any]) -> None:
        resource = {
            "prefect.resource.id": f"kling.shot.{short}",
            "prefect.resource.name": shot,
            "kling.shot": shot,
            **self._labels,
        }
        emit_event(event, resource=resource, payload={**facts, **self._facts, "run": run_page()})


def money_trouble(account: str, error: Exception) -> None:
    """Tells that an account cannot pay, or that a budget does not let it, where that is what went wrong."""
    event = next((name for kind, name in _OF_MONEY.items() if isinstance(error, kind)), None)
    if event is not None:
        resource = {"prefect.resource.id": f"kling.account.{account}", "kling.account": account}
        facts = {"account": account, "error": str(error)[:MOST_SAID], "run": run_page()}
        emit_event(event, resource=resource, payload=facts)
