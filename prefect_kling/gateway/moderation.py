"""Was it the content that was refused? Then other words can help, where the same words never will. Pure.

Kling's code for content is 1301, whether it refuses a create with status 400 or fails a task; its words then are
"Failure to pass the risk control system" (Kling's documentation of error codes; messages that third parties reported).
The gateway may forward the code, the words or both, and neither is promised (gateway.md, "Answers"): so either decides.
"""

from __future__ import annotations

import re
from typing import Final

from prefect_kling.gateway.errors import GenerationFailed, InvalidRequest, KlingError

__all__ = ["is_moderated"]

_CONTENT: Final = "1301"
# A bare number could be a size, a time or a part of a task's id.
_CODE_IN_TEXT: Final = re.compile(rf"\b(?:error|code)\W{{1,4}}{_CONTENT}(?![\w.])", re.IGNORECASE)

_GUIDELINES: Final = r"(?:polic(?:y|ies)|guidelines?|standards|terms|rules)"
_WORDS: Final = re.compile(
    "|".join(
        (
            r"\brisk[ -]?control",
            r"\bmoderat(?:ed|ion)\b",
            rf"\b(?:content|safety|security|usage|community)[ -](?:security[ -])?{_GUIDELINES}",
            rf"\bviolat\w+ (?:\w+[' ]+){{0,4}}?(?:content|{_GUIDELINES})\b",
            r"\bcontent (?:review|audit|check|filter|safety)",
            r"\bsafety (?:system|filter|check|review)",
            # Not "case-sensitive": an input is found, deemed or flagged as it, or holds something of that kind.
            r"\b(?:is|was|were|as|be|found|deemed|contains?|potentially) sensitive\b",
            r"(?<![-\w])sensitive (?:content|information|words?|terms?|materials?|topics?)\b",
            r"\b(?:inappropriate|prohibited|unsafe|harmful|explicit) (?:content|words?|prompts?|materials?)\b",
            r"\bnsfw\b",
            "风控|敏感|违规",  # Kling's own words where its answer is not translated
        )
    ),
    re.IGNORECASE,
)


def is_moderated(error: KlingError) -> bool:
    """Whether a create or a task was refused for what it shows or asks for, so that softer words may pass.

    Also for an error that is no more than its class and its message, as the ledger keeps them. Neither kind of refusal
    is billed. Where the message is silent about the reason this says no, which leaves the decision to people.

    Args:
        error: what a create or a wait raised; only `InvalidRequest` and `GenerationFailed` can be moderation.
    """
    if not isinstance(error, InvalidRequest | GenerationFailed):
        return False
    said = str(error)
    return str(error.code) == _CONTENT or bool(_CODE_IN_TEXT.search(said) or _WORDS.search(said))
