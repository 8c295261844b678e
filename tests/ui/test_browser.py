"""Prefect's UI in a real browser: blocks, the form, a run that moves, its approval, its film, a cancelled run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

KeepPicture = Callable[..., Awaitable[None]]
House = Any
"""See the conftest."""
KEY = "sk-browser-93b1f0d2"
GENERATION_SECONDS = 60
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


async def test_from_an_empty_server_to_a_film_without_leaving_the_browser(
    house: House, keep_picture: KeepPicture
) -> None:
    before = house.creates()
    async with house.page() as page:
        await _save_blocks(house, page, keep_picture)
        run = await _start(house, page, keep_picture)
        await _watch(house, page, run, keep_picture)
        await _approve(house, page, run, keep_picture)
        await _see_the_film(house, page, run, keep_picture)
    assert house.creates() == before + 2
    # The key was typed in once; nothing shows it again.
    assert len(house.told) > 20
    assert not [url for url, body in house.told if KEY in body]


async def _save_blocks(house: House, page: Page, keep_picture: KeepPicture) -> None:
    await page.goto(f"{house.url}/v2/blocks/catalog/kling-credentials")
    await expect(page.get_by_text("The key of an account at the Kling Omni-Video gateway")).to_be_visible()
    await expect(page.get_by_text("from prefect_kling import KlingCredentials")).to_be_visible()
    await page.get_by_role("link", name="Create").click()
    await page.get_by_label("Name", exact=True).fill("main")
    key = page.get_by_label("API key", exact=True)
    await expect(key).to_have_attribute("type", "password")
    await key.fill(KEY)
    await page.get_by_label("Base URL").fill(house.gateway.base_url)
    await _save(page, "KlingCredentials.load")
    await keep_picture(page, "credentials")

    await page.goto(f"{house.url}/v2/blocks/catalog/kling-studio/create")
    await page.get_by_label("Name", exact=True).fill("house")
    await _choose(page, page.get_by_role("button", name="Select a block"), "main")
    await page.get_by_label("Storage URL (Optional)", exact=True).fill(str(house.storage))
    await page.get_by_label("Public storage URL").fill(house.films)
    await page.get_by_label("Poll interval").fill("0.5")
    await _save(page, "KlingStudio.load")
    await keep_picture(page, "studio")


async def _save(page: Page, example: str) -> None:
    # The form asks whether the name is taken, and does not hear a click meanwhile.
    await page.wait_for_load_state("networkidle")
    await page.get_by_role("button", name="Save").click()
    await expect(page).to_have_url(re.compile("/v2/blocks/block/"))
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)
    await expect(page.get_by_text(example)).to_be_visible()
    assert KEY not in await page.content()


async def _start(house: House, page: Page, keep_picture: KeepPicture) -> str:
    await page.goto(f"{house.url}/v2/deployments/deployment/{house.deployment}/run")
    await page.get_by_role("tab", name="Storyboard").click()
    await page.get_by_label("Title", exact=True).first.fill("Lighthouse")
    shots = page.locator("label", has_text=re.compile("^Shots$")).locator(
        "xpath=ancestor::div[contains(@class,'group')][1]"
    )
    for number, (name, prompt) in enumerate(
        [("dawn", "A lighthouse on a cliff at dawn"), ("coast", "The harbour town at sunset")]
    ):
        # The list's own button is below those of the lists in its shots.
        await shots.get_by_role("button", name="Add item").last.click()
        await page.get_by_label("Id", exact=True).nth(number).fill(name)
        await page.get_by_label("Prompt (Optional)", exact=True).nth(number).fill(prompt)
    await _choose(page, page.get_by_role("button", name="Select a block"), "house")
    await _choose(page, page.get_by_label("approve"), "cut")
    await page.get_by_role("heading", name="Parameters").scroll_into_view_if_needed()
    await expect(page.get_by_role("option")).to_have_count(0)
    await keep_picture(page, "form")
    async with page.expect_response("**/create_flow_run") as answer:
        await page.get_by_role("button", name="Submit").click()
    return str((await (await answer.value).json())["id"])


async def _watch(house: House, page: Page, run: str, keep_picture: KeepPicture) -> None:
    for task in ("dawn · generate", "coast · generate"):
        await house.until(run, "Queued", task)
    house.clock.advance(GENERATION_SECONDS / 2)
    for task in ("dawn · generate", "coast · generate"):
        await house.until(run, "Generating", task)
    await page.goto(f"{house.url}/v2/runs/flow-run/{run}")
    await page.get_by_role("tab", name="Task Runs").click()
    await expect(page.get_by_text("dawn · generate").first).to_be_visible()
    await expect(page.get_by_text("Generating", exact=True)).to_have_count(2)
    # Named after its film, although the form had proposed a name.
    await expect(page.get_by_text(re.compile(r"^Lighthouse · \d{4}-\d\d-\d\d$")).first).to_be_visible()
    await keep_picture(page, "run", readme=True)
    await house.until(run, "Paused", generated=True)
    await expect(page.get_by_text("Paused").first).to_be_visible()


async def _approve(house: House, page: Page, run: str, keep_picture: KeepPicture) -> None:
    await page.get_by_role("button", name="Open menu").click()
    await page.get_by_role("menuitem", name="Resume").click()
    form = page.get_by_role("dialog")
    await expect(form.get_by_role("heading", name="Lighthouse, review 1")).to_be_visible()
    await expect(form.get_by_text("dawn, take 1")).to_be_visible()
    await _all_are_drawn(form.locator("img"), 2)
    await keep_picture(page, "review", readme=True)
    await _choose(page, form.get_by_label("Decision"), "approve")
    await form.get_by_role("button", name="Resume").click()
    await expect(form).to_be_hidden()


async def _see_the_film(house: House, page: Page, run: str, keep_picture: KeepPicture) -> None:
    await expect(page.get_by_text("Rendered").first).to_be_visible()
    await page.get_by_role("tab", name="Artifacts").click()
    for name in ("progress", "shots", "sheet", "preview", "film"):
        await expect(page.get_by_role("link", name=f"{name}-lighthouse")).to_be_visible()
    await keep_picture(page, "rendered")

    artifacts = await house.api("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    shown = {one["key"]: f"{house.url}/v2/artifacts/artifact/{one['id']}" for one in artifacts}
    await page.goto(shown["shots-lighthouse"])
    for text in ("dawn", "coast", "Stored"):
        await expect(page.get_by_role("cell", name=text).first).to_be_visible()
    await _all_are_drawn(page.get_by_role("table").locator("img"), 2)
    await keep_picture(page, "shots")
    for name in ("sheet-lighthouse", "preview-lighthouse"):
        await page.goto(shown[name])
        await _all_are_drawn(page.locator("img[src^=data]"), 1)
    await page.goto(shown["film-lighthouse"])
    link = page.get_by_role("link", name="Lighthouse", exact=True)
    address = await link.get_attribute("href")
    assert address is not None
    assert address.startswith(house.films)
    film = await page.request.get(address)
    assert (await film.body())[4:8] == b"ftyp"


async def _choose(page: Page, list_: Locator, name: str) -> None:
    await list_.click()
    # Not by a click: the list closes under it, and a click is repeated until its element has stayed.
    await page.get_by_role("option", name=name, exact=True).dispatch_event("click")
    await expect(page.get_by_role("option")).to_have_count(0)
    await expect(list_.or_(page.get_by_role("button", name=name, exact=True)).first).to_contain_text(name)


async def _all_are_drawn(pictures: Locator, count: int) -> None:
    await expect(pictures).to_have_count(count)
    for number in range(count):
        await expect(pictures.nth(number)).to_have_js_property("complete", True)
        assert await pictures.nth(number).evaluate("image => image.naturalWidth") > 0


BOARD = {
    "title": "Interrupted",
    "defaults": {"duration": 3},
    "shots": [
        {"id": "dawn", "prompt": "A lighthouse at dawn"},
        {"id": "storm", "prompt": "A storm at night", "base": "dawn"},
        {"id": "calm", "prompt": "The sea is calm again", "base": "storm"},
    ],
}


async def test_a_run_that_is_cancelled_on_its_page_goes_on_where_it_was(
    house: House, keep_picture: KeepPicture
) -> None:
    before = house.creates()
    said = {"parameters": {"storyboard": BOARD}}
    run = (await house.api("POST", f"/deployments/{house.deployment}/create_flow_run", said))["id"]
    async with house.page() as page:
        await house.until(run, "Queued", "dawn · generate")
        house.clock.advance(GENERATION_SECONDS)
        await house.until(run, "Queued", "storm · generate")
        house.clock.advance(GENERATION_SECONDS / 2)
        await house.until(run, "Generating", "storm · generate")
        await page.goto(f"{house.url}/v2/runs/flow-run/{run}")
        await _press(page, "Cancel")
        await house.until(run, "Cancelled")
        await expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()
        await keep_picture(page, "cancelled")
        assert house.creates() == before + 2

        await _press(page, "Retry")
        # What was there and what was under way is paid for once.
        await house.until(run, "Generating", "storm · generate")
        assert house.creates() == before + 2
        await house.until(run, "Rendered", generated=True)
        await expect(page.get_by_text("Rendered").first).to_be_visible()
    assert house.creates() == before + 3


async def _press(page: Page, what: str) -> None:
    """Something in a run's menu, and that it is meant."""
    await page.get_by_role("button", name="Open menu").click()
    await page.get_by_role("menuitem", name=what, exact=True).click()
    await page.get_by_role("alertdialog").or_(page.get_by_role("dialog")).get_by_role("button", name=what).last.click()
