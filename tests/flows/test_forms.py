"""Prefect's Custom-run forms: what they show, and what the API refuses before there is a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import generate_video, render_series, render_storyboard, sweep

FLOWS: list[Flow[..., Any]] = [render_storyboard, render_series, generate_video, sweep]
SHOT = {"id": "dawn", "prompt": "A lighthouse at dawn"}
BOARD = {"title": "Lighthouse", "shots": [SHOT]}
REQUEST = {"model": "kling-v3-omni", "prompt": "A lighthouse", "aspect_ratio": "16:9", "duration": "5"}
PATH = "/srv/kling/storyboard.yaml"


def form(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump_for_openapi()


def fields(flow: Flow[..., Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything that the form may show: a flow's parameters, and the fields of what they are made of."""
    schema = form(flow)
    for name, found in schema["properties"].items():
        yield name, found
    for kind, definition in schema["definitions"].items():
        for name, found in definition.get("properties", {}).items():
            yield f"{kind}.{name}", found


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_each_field_of_a_form_says_what_it_is(flow: Flow[..., Any]) -> None:
    for name, found in fields(flow):
        description = found.get("description", "")
        assert description.endswith("."), name
        # The form shows markdown as it is written.
        assert "`" not in description, name


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_nothing_but_a_budget_is_a_choice_of_something_or_nothing(flow: Flow[..., Any]) -> None:
    noisy = {
        name
        for name, found in fields(flow)
        if "block_type_slug" not in found and any(one.get("type") == "null" for one in found.get("anyOf", ()))
    }
    assert noisy <= {"budget"}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_studio_is_picked_and_no_secret_is_a_parameter(flow: Flow[..., Any]) -> None:
    found = form(flow)["properties"]
    assert found["studio"]["block_type_slug"] == "kling-studio"
    assert not [name for name, field in found.items() if field.get("format") == "password"]


def test_a_path_is_asked_for_first() -> None:
    for flow in (render_storyboard, render_series):
        first, second = form(flow)["properties"]["storyboard"]["anyOf"]
        assert (first["title"], second["$ref"]) == ("Path or URL", "#/definitions/Storyboard")


def test_a_shot_is_flat() -> None:
    """The form shows a union of models badly where a field tells them apart, and knows no other nesting well."""
    for name, found in fields(render_storyboard):
        assert "discriminator" not in found, name
        assert "oneOf" not in found, name


class Deployed:
    """A deployment of a flow, as `prefect deploy` makes it, and what its form sends."""

    def __init__(self, flow: Flow[..., Any]) -> None:
        self._flow = flow

    async def __aenter__(self) -> Self:
        self._client = await get_client().__aenter__()
        self._id = await self._client.create_deployment(
            flow_id=await self._client.create_flow(self._flow),
            name=f"form-{uuid4()}",
            parameter_openapi_schema=form(self._flow),
            enforce_parameter_schema=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.delete_deployment(self._id)
        await self._client.__aexit__(None, None, None)

    async def refusal(self, parameters: dict[str, Any]) -> str:
        """Why the server makes no run of these; empty where it makes one."""
        try:
            await self._client.create_flow_run_from_deployment(self._id, parameters=parameters)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 409:
                raise
            return str(error.response.json()["detail"])
        return ""

    async def runs(self) -> int:
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[self._id]))
        return len(await self._client.read_flow_runs(flow_run_filter=mine))


def shot(**changed: Any) -> dict[str, Any]:
    return {"storyboard": {**BOARD, "shots": [{**SHOT, **changed}]}}


REFUSED: list[tuple[Flow[..., Any], list[tuple[dict[str, Any], str]]]] = [
    (
        render_storyboard,
        [
            ({}, "'storyboard' is a required property"),
            ({"storyboard": ""}, "'storyboard'"),
            ({"storyboard": {}}, "'storyboard'"),
            ({"storyboard": {**BOARD, "shots": []}}, "'storyboard.shots'"),
            (shot(promt="misspelt"), "'promt' was unexpected"),
            (shot(mode="4k"), "'storyboard.shots[0].mode'"),
            (shot(duration="long"), "'storyboard.shots[0].duration'"),
            (shot(duration=16), "16 is greater than the maximum of 15"),
            (shot(id="a shot"), "'storyboard.shots[0].id'"),
            ({"storyboard": PATH, "budget": -1}, "'budget'"),
            ({"storyboard": PATH, "budget": 0}, "'budget'"),
            ({"storyboard": PATH, "retake": "dawn"}, "'retake'"),
            ({"storyboard": PATH, "approve": "all"}, "'approve'"),
            ({"storyboard": PATH, "studio": "house"}, "'studio'"),
            ({"storyboard": PATH, "variables": {"product": 7}}, "'variables.product'"),
        ],
    ),
    (
        render_series,
        [
            ({"storyboard": PATH}, "'rows' is a required property"),
            ({"storyboard": PATH, "rows": []}, "'rows'"),
            ({"storyboard": PATH, "rows": "rows.csv", "at_once": 0}, "'at_once'"),
        ],
    ),
    (
        generate_video,
        [
            ({"request": {**REQUEST, "duration": 5}}, "'request.duration'"),
            ({"request": {**REQUEST, "duration": "5.5"}}, "'request.duration'"),
            ({"request": {**REQUEST, "duration": "99"}}, "'request.duration'"),
            ({"request": {**REQUEST, "duration": "2"}}, "'request.duration'"),
            ({"request": {**REQUEST, "model": "kling-v9"}}, "'request.model'"),
            ({"request": {**REQUEST, "negative_prompt": "rain"}}, "'negative_prompt' was unexpected"),
        ],
    ),
]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("flow", "table"), REFUSED, ids=lambda given: getattr(given, "name", ""))
async def test_what_a_form_may_not_say_is_refused_before_there_is_a_run(
    flow: Flow[..., Any], table: list[tuple[dict[str, Any], str]]
) -> None:
    async with Deployed(flow) as deployed:
        for parameters, why in table:
            assert why in await deployed.refusal(parameters), parameters
        assert await deployed.runs() == 0


@pytest.mark.usefixtures("prefect_server")
async def test_what_a_form_may_say_makes_a_run() -> None:
    studio = KlingStudio(credentials=KlingCredentials(api_key="sk-forms-20a7b1"))
    block = {"$ref": {"block_document_id": str(await studio.asave("forms", overwrite=True))}}
    allowed: list[tuple[Flow[..., Any], list[dict[str, Any]]]] = [
        (
            render_storyboard,
            [
                {"storyboard": PATH},
                {"storyboard": BOARD, "studio": block, "budget": 0.5, "retake": ["dawn"]},
                # What the form itself says where nobody has touched it.
                {"storyboard": PATH, "studio": None, "variables": {}, "edition": "", "retake": [], "budget": None},
            ],
        ),
        (render_series, [{"storyboard": PATH, "rows": [{"product": "tea"}], "at_once": 1}]),
        (
            generate_video,
            [
                {"request": REQUEST, "studio": block},
                {"request": {**REQUEST, "duration": "15"}},
                {"request": {**REQUEST, "multi_shot": None}},
                {"request": {name: said for name, said in REQUEST.items() if name != "duration"}},
            ],
        ),
        (sweep, [{}]),
    ]
    for flow, table in allowed:
        async with Deployed(flow) as deployed:
            assert [await deployed.refusal(parameters) for parameters in table] == [""] * len(table)
            assert await deployed.runs() == len(table)


def test_none_is_still_nothing_said() -> None:
    """Older callers say None where the form has an empty value."""
    unsaid = dict.fromkeys(("variables", "edition", "retake", "only", "budget"))
    said = render_storyboard.validate_parameters({"storyboard": PATH, **unsaid})
    assert {name: said[name] for name in unsaid} == unsaid
