"""What is checked of an input once it is there: a clip may turn out as the gateway does not take it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from prefect_kling import Clip, Storyboard
from prefect_kling.flows.stage import check_clip_as_input
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.storyboard.plan import PlannedShot, plan
from prefect_kling.storyboard.reader import document_of

CLIP = Clip(
    path="/srv/films/a.mp4",
    sha256="ab" * 32,
    bytes=1_234_567,
    seconds=5.04,
    frames=121,
    width=1280,
    height=720,
    task_id="t-1",
    url="https://gateway.test/t-1.mp4",
    url_expires_at=datetime(2026, 11, 29, tzinfo=UTC),
)


def shot(field: str, model: str) -> PlannedShot:
    shots = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y", field: "a"}]
    board = {"title": "T", "defaults": {"model": model}, "shots": shots}
    return plan(document_of(Storyboard.model_validate(board))).shots[1]


@pytest.mark.parametrize(
    ("field", "model", "change", "said"),
    [
        ("base", "kling-v3-omni", {}, None),
        ("base", "kling-v3-omni", {"seconds": 12.0, "frames": 288}, "it is 12.00 s long; as base, 3 to 10 s"),
        ("feature", "kling-v3-omni", {"seconds": 12.0, "frames": 288}, None),
        ("feature", "kling-video-o1", {"seconds": 12.0, "frames": 288}, "as feature, 3 to 10 s"),
        # The model follows a first frame's shape, which may be flatter than what it takes back.
        ("base", "kling-v3-omni", {"height": 512}, "it is 1280x512 pixels"),
        ("base", "kling-v3-omni", {"frames": 60}, "frames a second"),
        ("base", "kling-v3-omni", {"bytes": 201 * 1024 * 1024}, "201 MB"),
    ],
)
def test_a_clip_is_refused_before_the_gateway_does(
    field: str, model: str, change: dict[str, Any], said: str | None
) -> None:
    planned = shot(field, model)
    (entry,) = planned.inputs
    clip = CLIP.model_copy(update=change)
    if said is None:
        check_clip_as_input(planned, entry, clip)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_clip_as_input(planned, entry, clip)
    assert said in str(caught.value)
    assert "shot 'b' was not sent, and nothing was bought: the clip of 'a'" in str(caught.value)
