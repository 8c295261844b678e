"""`prefect-kling automations`: makes Prefect's automations for what happens to runs, and brings them up to date."""

from __future__ import annotations

import asyncio
import json as jsonlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_kling.cli_studio import reachable_server, set_up_prefect
from prefect_kling.gateway.errors import KlingError
from prefect_kling.terminal import announce

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

    from prefect_kling.automations import Notifier

__all__ = ["automations"]


def automations(
    file: Path | None = None,
    /,
    *,
    notify: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make Prefect automations: pause schedules without credits, tell somebody, retry crashed runs once.

    Called again it changes what has changed, and nothing else. Deploy first: what is paused is what is deployed, and
    after another schedule is deployed, call it again.

    Parameters
    ----------
    file
        Of automations, as `prefect-kling init` writes one; the built-in one where it is not given.
    notify
        A saved block that tells somebody, as TYPE/NAME, such as `slack-webhook/films` or `webhook/films`. Where it is
        not given, whoever was told so far still is.
    dry_run
        Only say what would be done.
    json
        Print one JSON document to stdout.
    """
    set_up_prefect()
    done = asyncio.run(_automate(_read(file), notify, dry_run=dry_run))
    if json:
        print(jsonlib.dumps({"automations": done}, indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for
    else:
        for one in done:
            announce(f"{one['done']:<9} {one['name']}")
    if any(one["done"] == "left out" for one in done) and notify is None:
        announce("What is left out tells somebody: name a block with --notify TYPE/NAME")
    return 0


def _read(file: Path | None) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = (files("prefect_kling.deployments") / "automations.yaml").read_text("utf-8") if file is None else None
    try:
        return YAML(typ="safe").load(text if file is None else file.read_text("utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise KlingError(f"{file} cannot be read as YAML: {error}") from error


async def _automate(document: Any, notify: str | None, *, dry_run: bool) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    from prefect_kling.automations import automations_of, is_the_same

    if get_current_settings().api.url is None:
        raise KlingError("Automations live on a Prefect server; set PREFECT_API_URL to it")
    await reachable_server()
    async with get_client() as client:
        notifier = None if notify is None else await _notifier(client, notify)
        found = await client.read_automations()
        wanted, idle = automations_of(document, await _buying_deployments(client), notifier, found)
        there = {one.name: one for one in found}
        done = []
        for automation in wanted:
            known = there.get(automation.name)
            if known is None:
                what, known_id = "made", None if dry_run else await client.create_automation(automation)
            elif is_the_same(known, automation):
                what, known_id = "unchanged", known.id
            else:
                what, known_id = "changed", known.id
                if not dry_run:
                    await client.update_automation(known.id, _as_switched(automation, enabled=known.enabled))
            done.append({"name": automation.name, "done": what, "id": None if known_id is None else str(known_id)})
    return done + [{"name": name, "done": "left out", "id": None} for name in idle]


def _as_switched(automation: AutomationCore, *, enabled: bool) -> AutomationCore:
    return automation.model_copy(update={"enabled": enabled})


async def _buying_deployments(client: PrefectClient) -> list[UUID]:
    """Deployments of our flows with a schedule, but for the sweep, which buys nothing."""
    found, offset = [], 0
    while page := await client.read_deployments(limit=200, offset=offset):
        found += [
            deployment.id
            for deployment in page
            if deployment.schedules
            and (deployment.entrypoint or "").startswith("prefect_kling.flows.")
            and not (deployment.entrypoint or "").endswith(":sweep")
        ]
        offset += len(page)
    return sorted(found)


async def _notifier(client: PrefectClient, notify: str) -> Notifier:
    from prefect.exceptions import ObjectNotFound

    from prefect_kling.automations import Notifier

    slug, _, name = notify.partition("/")
    if not name:
        raise KlingError(f"--notify takes a saved block as TYPE/NAME, such as slack-webhook/films, not '{notify}'")
    try:
        block = await client.read_block_document_by_name(name, slug, include_secrets=False)
    except ObjectNotFound as error:
        raise KlingError(f"There is no block '{name}' of the type '{slug}'; save one in the Prefect UI") from error
    capabilities = block.block_schema.capabilities if block.block_schema is not None else []
    if "notify" in capabilities:
        return Notifier(block.id, "send-notification")
    if slug == "webhook":
        return Notifier(block.id, "call-webhook")
    raise KlingError(f"Blocks of the type '{slug}' do not tell anybody; take a notification block, or a webhook")
