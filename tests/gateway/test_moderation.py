"""Moderation told from every other refusal, also by an error's words alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from prefect_kling.gateway.answers import Task, error_for
from prefect_kling.gateway.errors import GatewayUnavailable, GenerationFailed, InvalidRequest, KlingError, RateLimited
from prefect_kling.gateway.moderation import is_moderated
from prefect_kling.gateway.waiting import failure_of

MODERATED = [
    "Failure to pass the risk control system",
    "upstream error 1301: the prompt was refused",
    "The gateway refuses the request (HTTP 400, code 1301): bad request",
    "The gateway made no clip: no reason given (code 1301). Task t1; failed tasks are not billed.",
    '{"code":1301,"message":"no"}',
    "Trigger the content security policy of the platform",
    "Content moderation: try another prompt",
    "your image was moderated",
    "This prompt violates our content policy",
    "This prompt contains words that violate the platform's usage guidelines.",
    "the request violates community guidelines",
    "the prompt or an input was found sensitive",
    "The input contains sensitive information",
    "prompt contains sensitive words",
    "Sensitive content in image_list.0",
    "rejected by the safety system",
    "inappropriate content detected",
    "NSFW image",
    "提示词包含敏感内容",
]

OTHER = [
    "invalid parameters",
    "internal error",
    "internal error while generating; nothing was billed",
    "prompt is too long",
    "prompt: at most 2500 characters are taken",
    "field names are case sensitive",
    "model is case-sensitive content",
    "image_list.0.image_url: it is 1301x720 pixels; its sides may differ by 1:2.5 at most",
    "video is 1301 ms long",
    "Task 4f1301ab; failed tasks are not billed.",
    "error 13015",
    "code 1303: too many tasks",
    "trigger strategy of the platform (code 1300)",
    "duration violates the limit of 10 s",
    "the prompt is not in moderately plain text",
    "content type has to be application/json",
    "rate limit policy",
    "",
]


@pytest.mark.parametrize("kind", [InvalidRequest, GenerationFailed])
@pytest.mark.parametrize("message", MODERATED)
def test_moderation_is_told_by_its_words_alone(kind: type[KlingError], message: str) -> None:
    assert is_moderated(kind(message))


@pytest.mark.parametrize("kind", [InvalidRequest, GenerationFailed])
@pytest.mark.parametrize("message", OTHER)
def test_any_other_refusal_is_none(kind: type[KlingError], message: str) -> None:
    assert not is_moderated(kind(message))


@pytest.mark.parametrize("code", [1301, "1301"])
def test_the_code_is_enough(code: int | str) -> None:
    assert is_moderated(InvalidRequest("no message", code=code))
    assert is_moderated(GenerationFailed("no reason given", code=code))
    assert not is_moderated(GenerationFailed("no reason given", code=500))


@pytest.mark.parametrize("kind", [RateLimited, GatewayUnavailable])
def test_only_refusals_and_failures_can_be_moderation(kind: type[KlingError]) -> None:
    assert not is_moderated(kind("content policy service timed out", code=1301))


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 1301, "msg": "no"},
        {"code": 400, "msg": "upstream error 1301: no"},
        {"error": {"message": "Failure to pass the risk control system"}},
    ],
)
def test_what_the_gateway_answers_to_a_create_is_told_also_after_the_ledger_kept_it(answer: dict[str, object]) -> None:
    error = error_for(400, {}, json.dumps(answer), now=datetime(2026, 11, 1, tzinfo=UTC))
    assert isinstance(error, InvalidRequest)
    assert is_moderated(error)
    assert is_moderated(InvalidRequest(str(error)))


@pytest.mark.parametrize(("code", "message"), [("1301", None), (None, "Failure to pass the risk control system")])
def test_what_a_failed_task_says_is_told_also_after_the_ledger_kept_it(code: str | None, message: str | None) -> None:
    error = failure_of(Task("t1", "failed", fail_code=code, fail_message=message))
    assert is_moderated(error)
    assert is_moderated(GenerationFailed(str(error)))
