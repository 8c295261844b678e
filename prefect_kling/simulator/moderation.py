"""A risk control of two words: a test can have a prompt refused by what it says, and have it pass in softer words.

A prompt with `forbiddenword` in it is refused on create, as the fault `moderated` is; one with `forbiddenpicture` is
accepted and ends as `failed`, as by the fault `moderation`: its words pass, its picture does not. Neither is billed.
"""

from __future__ import annotations

from typing import Final

from prefect_kling.gateway.requests import OmniVideoRequest

__all__ = ["PROMPT_REFUSED", "forbidden_picture", "forbidden_word"]

# Kling's code for content, and the words it says then; with status 400 where it refuses a create.
PROMPT_REFUSED: Final = "upstream error 1301: Failure to pass the risk control system: the prompt was found sensitive"

_WORD: Final = "forbiddenword"
_PICTURE: Final = "forbiddenpicture"


def forbidden_word(request: OmniVideoRequest) -> bool:
    """Whether a request is refused for what its prompt says."""
    return _says(request, _WORD)


def forbidden_picture(request: OmniVideoRequest) -> bool:
    """Whether a request's clip is refused once it can be seen."""
    return _says(request, _PICTURE)


def _says(request: OmniVideoRequest, word: str) -> bool:
    prompts = [request.prompt or "", *(part.prompt for part in request.multi_prompt or ())]
    return any(word in prompt.lower() for prompt in prompts)
