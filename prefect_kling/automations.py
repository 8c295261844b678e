"""Prefect automations for what happens to runs: made of a file, with two actions of ours filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore
from pydantic import ValidationError

from prefect_kling.gateway.errors import KlingError

__all__ = ["Notifier", "automations_of", "is_the_same"]

PAUSE, NOTIFY = "pause-schedules", "notify"
_KEPT_BY_THE_SERVER: Final = {"id", "created", "updated", "enabled"}
"""What an automation's file does not say, and what whoever switched it off wants to keep."""


@dataclass(frozen=True)
class Notifier:
    """A block that tells people.

    Attributes:
        block: the id of the saved block.
        kind: how Prefect calls it: a notification block is sent a subject and a text, a webhook one payload.
    """

    block: UUID
    kind: Literal["send-notification", "call-webhook"]

    def action(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Prefect's action for one of ours."""
        subject, body = str(told.get("subject", "")), str(told.get("body", ""))
        if self.kind == "send-notification":
            return {"type": self.kind, "block_document_id": self.block, "subject": subject, "body": body}
        text = f"{subject}\n{body}".strip()
        # Said by the template itself, so that what an event holds cannot break out of the JSON.
        payload = '{"text": {% set text %}' + text + "{% endset %}{{ text | tojson }}}"
        return {"type": self.kind, "block_document_id": self.block, "payload": payload}


def automations_of(
    document: Any, deployments: Sequence[UUID], notifier: Notifier | None, there: Iterable[Automation] = ()
) -> tuple[list[AutomationCore], list[str]]:
    """The automations of a file.

    Args:
        document: the file as read.
        deployments: those that buy on a schedule.
        notifier: who is told; None for whom each has told so far, if anybody.
        there: the automations on the server.

    Returns:
        The automations, and the names of those that were left without anything to do.

    Raises:
        KlingError: the file does not hold automations, as Prefect takes them; the text says where.
    """
    entries = document.get("automations") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("name") for entry in entries):
        raise KlingError("The file has to hold `automations:`, a list in which each has a `name`")
    known = {automation.name: automation for automation in there}
    made: list[AutomationCore] = []
    idle: list[str] = []
    for entry in entries:
        said = entry.get("actions") or []
        who = notifier or _told_so_far(known.get(entry["name"]), said)
        actions = [action for told in said for action in _actions(told, deployments, who)]
        if not actions:
            idle.append(str(entry["name"]))
            continue
        try:
            made.append(AutomationCore.model_validate({**entry, "actions": actions}))
        except ValidationError as error:
            why = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise KlingError(f"The automation '{entry['name']}' is not as Prefect takes it: {why}") from error
    names = [automation.name for automation in made]
    if len(set(names)) < len(names):
        raise KlingError("Two automations of the file have one name; each is found again by its name")
    return made, idle


def _actions(told: Any, deployments: Iterable[UUID], notifier: Notifier | None) -> list[Any]:
    match told:
        case {"type": "pause-schedules"}:
            return [{"type": "pause-deployment", "source": "selected", "deployment_id": one} for one in deployments]
        case {"type": "notify"}:
            return [] if notifier is None else [notifier.action(told)]
        case _:
            return [told]


def _told_so_far(there: Automation | None, said: Iterable[Any]) -> Notifier | None:
    """Whom an automation on the server tells, but for those that its file names itself."""
    own = {str(action.get("block_document_id")) for action in said if isinstance(action, dict)}
    for action in () if there is None else there.actions:
        if isinstance(action, SendNotification | CallWebhook) and str(action.block_document_id) not in own:
            return Notifier(action.block_document_id, action.type)
    return None


def is_the_same(there: Automation, wanted: AutomationCore) -> bool:
    """Whether an automation on the server is what is wanted, whether somebody has switched it off or not."""
    return _said(there) == _said(wanted)


def _said(automation: AutomationCore) -> dict[str, Any]:
    said = automation.model_dump(mode="json", exclude=_KEPT_BY_THE_SERVER)
    trigger = said.get("trigger", {})
    # Sets, in whatever order.
    return {**said, "trigger": {name: _sorted(value) for name, value in trigger.items() if name != "id"}}


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
