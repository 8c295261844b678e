"""Automations as they are made of the shipped file, and compared with what is there."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import jinja2
import pytest
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import Automation
from ruamel.yaml import YAML

from prefect_kling.automations import Notifier, automations_of, is_the_same
from prefect_kling.gateway.errors import KlingError

ROOT = Path(__file__).parents[2]
DAILY, BLOCK = uuid.uuid4(), uuid.uuid4()
SLACK, WEBHOOK = Notifier(BLOCK, "send-notification"), Notifier(BLOCK, "call-webhook")


@pytest.fixture(scope="module")
def shipped() -> Any:
    return YAML(typ="safe").load((ROOT / "deployments" / "automations.yaml").read_text("utf-8"))


def test_with_somebody_to_tell_all_are_made(shipped: Any) -> None:
    made, idle = automations_of(shipped, [DAILY], SLACK)
    assert idle == []
    acting = {one.name: [action.type for action in one.actions] for one in made}
    assert acting == {
        "kling: credits exhausted": ["pause-deployment", "send-notification"],
        "kling: needs a decision": ["send-notification"],
        "kling: shot failed": ["send-notification"],
        "kling: budget reached": ["send-notification"],
        "kling: film ready": ["send-notification"],
        "kling: a run failed": ["send-notification"],
        "kling: a run has gone silent": ["change-flow-run-state"],
        "kling: retry a crashed run once": ["change-flow-run-state"],
    }


def test_what_has_nothing_to_do_is_left_out(shipped: Any) -> None:
    made, idle = automations_of(shipped, [], None)
    assert [one.name for one in made] == ["kling: a run has gone silent", "kling: retry a crashed run once"]
    assert len(idle) == 6


@pytest.mark.parametrize("notifier", [SLACK, WEBHOOK], ids=lambda notifier: notifier.kind)
def test_where_nobody_is_named_each_tells_whom_it_told(shipped: Any, notifier: Notifier) -> None:
    before, _ = automations_of(shipped, [DAILY], notifier)
    there = [Automation(id=uuid.uuid4(), **automation.model_dump()) for automation in before]
    made, idle = automations_of(shipped, [DAILY], None, there)
    assert idle == []
    assert all(is_the_same(known, automation) for known, automation in zip(there, made, strict=True))

    # What they say is still the file's, and another one named takes its place.
    reworded = {"automations": [{**entry, "description": "Other."} for entry in shipped["automations"]]}
    assert {one.description for one in automations_of(reworded, [DAILY], None, there)[0]} == {"Other."}
    other = Notifier(uuid.uuid4(), "call-webhook")
    assert automations_of(shipped, [DAILY], other, there)[0] == automations_of(shipped, [DAILY], other)[0]

    # One that told nobody tells nobody.
    silent = [automation for automation in there if automation.name == "kling: a run has gone silent"]
    assert len(automations_of(shipped, [DAILY], None, silent)[1]) == 5


def test_whom_a_file_tells_itself_is_nobody_that_was_named_before() -> None:
    own = {"type": "send-notification", "block_document_id": str(uuid.uuid4()), "subject": "s", "body": "b"}
    trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
    document = [{"name": "x", "trigger": trigger, "actions": [own, {"type": "notify"}]}]
    for notifier, said in ((None, 1), (SLACK, 2)):
        made, _ = automations_of(document, [], notifier)
        there = [Automation(id=uuid.uuid4(), **automation.model_dump()) for automation in made]
        assert len(there[0].actions) == said
        assert is_the_same(there[0], automations_of(document, [], None, there)[0][0])


def test_each_deployment_is_paused(shipped: Any) -> None:
    made, _ = automations_of(shipped, [DAILY, BLOCK], None)
    assert [getattr(action, "deployment_id", None) for action in made[0].actions] == [DAILY, BLOCK]


def test_a_webhooks_payload_is_json_whatever_an_event_holds(shipped: Any) -> None:
    made, _ = automations_of(shipped, [], WEBHOOK)
    (action,) = next(one for one in made if one.name == "kling: shot failed").actions
    facts = {"storyboard": 'A "film"', "shot": "dawn", "edition": "main", "usd": 1.5, "error": 'no\n"way"\\'}
    assert isinstance(action, CallWebhook)
    payload = jinja2.Environment(autoescape=False).from_string(action.payload).render(event={"payload": facts})
    said = json.loads(payload)["text"]
    assert said.startswith('Kling: A "film", shot dawn failed\n')
    assert 'no\n"way"\\' in said


def test_one_that_is_there_is_the_same_even_if_switched_off(shipped: Any) -> None:
    made, _ = automations_of(shipped, [DAILY], SLACK)
    for automation in made:
        there = Automation(id=uuid.uuid4(), **automation.model_dump())
        assert is_the_same(there, automation)
        assert is_the_same(there.model_copy(update={"enabled": False}), automation)
        assert not is_the_same(there.model_copy(update={"description": "other"}), automation)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "automations:"),
        ({"automations": {}}, "automations:"),
        ([{"trigger": {}}], "`name`"),
        ([{"name": "x", "trigger": {"type": "event"}, "actions": [{"type": "no-such"}]}], "'x'"),
        (
            [
                {"name": "x", "trigger": {"type": "event", "posture": "Reactive"}, "actions": [{"type": "do-nothing"}]},
                {"name": "x", "trigger": {"type": "event", "posture": "Reactive"}, "actions": [{"type": "do-nothing"}]},
            ],
            "one name",
        ),
    ],
)
def test_what_is_no_automation_is_refused_by_name(document: Any, said: str) -> None:
    with pytest.raises(KlingError, match=said):
        automations_of(document, [], None)
