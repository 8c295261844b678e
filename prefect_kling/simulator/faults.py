"""Faults: a small language for what goes wrong and when, decided by seed.

A spec is a list of `fault=when`, joined by commas. `when` is a probability from 0 to 1, or `@n` for exactly the n-th
opportunity, counted from 1; a fault may be named several times: `lost-answer=@2,lost-answer=@5,429=0.1`.

On a create, one opportunity for each POST for those that are not billed, for each accepted task for those that are (of
several that strike at once the first in this order is seen):

| fault | what happens | billed? |
|---|---|---|
| `429` | status 429, upstream code 1302, `Retry-After: 1` | no |
| `500` `502` `503` `504` | that status; no task | no |
| `moderated` | status 400, upstream code 1301: the prompt does not pass Kling's risk control | no |
| `lost-answer` | the task is accepted, then the connection is dropped without an answer | yes |
| `hung-answer` | the task is accepted, then nothing is said until the caller goes away | yes |
| `html` | the task is accepted, but the answer is a proxy's HTML page with status 200 | yes |
| `accepted-500` … `accepted-504` | the task is accepted, but the answer is that status | yes |

On the generation, one opportunity for each accepted task:

| fault | what happens |
|---|---|
| `failed` | ends as `failed`, internal error; not billed |
| `moderation` | ends as `failed`, content risk control; not billed |
| `unknown-state` | polls give a state that no document names, for ever |
| `expired` | completes, but its result is already gone (410) |
| `black` | completes and is billed; its picture is black throughout |
| `frozen` | likewise; its first frame is shown throughout |
| `mute` | likewise; where it has sound, that is silence |
| `short` | likewise; half of it is missing |
| `corrupt` | likewise; past its middle it cannot be decoded, though its index is whole |
| `fade-out` | likewise; its last half second fades to black |

Moderation also strikes by what a prompt says (`prefect_kling.simulator.moderation`): with `forbiddenword` in it a
create is refused as by `moderated`, with `forbiddenpicture` its task fails as by `moderation`.

On a poll, a download, an upload: `poll-429`, `poll-500`, `poll-502`, `poll-503`, `poll-504`, `poll-html`;
`download-500`, `download-502`, `download-503`, `download-504`, `slow-download` (dribbles), `truncated-download` (the
connection ends halfway); `upload-500`, `upload-502`, `upload-503`, `upload-504`.

On the callback, one opportunity for each task with a `callback_url`: `callback-drop` (never sent), `callback-duplicate`
(sent three times), `callback-late` (sent `late_seconds` after the end), `callback-forged` (while the task still runs
somebody else posts that it has completed, with a URL of nothing; the true one follows).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FAULTS", "Fault", "Faults", "parse_faults", "strikes"]

_STATUSES = ("500", "502", "503", "504")

REFUSED_FAULTS = ("429", *_STATUSES, "moderated")
ACCEPTED_FAULTS = ("lost-answer", "hung-answer", "html", *(f"accepted-{status}" for status in _STATUSES))
SPOILING_FAULTS = ("black", "frozen", "mute", "short", "corrupt", "fade-out")
GENERATION_FAULTS = ("failed", "moderation", "unknown-state", "expired", *SPOILING_FAULTS)
POLL_FAULTS = ("poll-429", *(f"poll-{status}" for status in _STATUSES), "poll-html")
DOWNLOAD_FAULTS = (*(f"download-{status}" for status in _STATUSES), "truncated-download", "slow-download")
UPLOAD_FAULTS = tuple(f"upload-{status}" for status in _STATUSES)
CALLBACK_FAULTS = ("callback-drop", "callback-duplicate", "callback-late", "callback-forged")

FAULTS = (
    *REFUSED_FAULTS,
    *ACCEPTED_FAULTS,
    *GENERATION_FAULTS,
    *POLL_FAULTS,
    *DOWNLOAD_FAULTS,
    *UPLOAD_FAULTS,
    *CALLBACK_FAULTS,
)
"""Every name of the language."""


@dataclass(frozen=True)
class Fault:
    """One entry of a spec: a name, and either a probability or the opportunity it strikes at, counted from 1."""

    name: str
    probability: float = 0.0
    nth: int | None = None


def parse_faults(spec: str) -> tuple[Fault, ...]:
    """Reads a spec in the language above; an empty one means no faults.

    Raises:
        ValueError: an entry cannot be read; the text names it and what would be right.
    """
    return tuple(_entry(part.strip()) for part in spec.split(",") if part.strip())


def _entry(text: str) -> Fault:
    name, equals, when = (part.strip() for part in text.partition("="))
    if name not in FAULTS:
        raise ValueError(f"faults: {name!r} is unknown; there are {', '.join(FAULTS)}")
    if not equals:
        raise ValueError(f"faults: {name} needs a probability or @n, such as {name}=0.1 or {name}=@2")
    if nth := re.fullmatch(r"@([1-9]\d*)", when):
        return Fault(name, nth=int(nth[1]))
    if not re.fullmatch(r"(\d+(\.\d*)?|\.\d+)", when) or float(when) > 1:
        raise ValueError(f"faults: {text!r}: {when!r} is neither a probability from 0 to 1 nor @n with n from 1")
    return Fault(name, probability=float(when))


def strikes(faults: Iterable[Fault], name: str, opportunity: int, seed: int) -> bool:
    """Whether fault `name` strikes at its `opportunity`, counted from 1. Pure: the seed decides, not the past."""
    draw = hashlib.sha256(f"{seed}:{name}:{opportunity}".encode()).digest()
    chance = int.from_bytes(draw[:8], "big") / 2**64
    return any(
        fault.nth == opportunity if fault.nth is not None else chance < fault.probability
        for fault in faults
        if fault.name == name
    )


class Faults:
    """Counts opportunities and asks `strikes`; what struck is kept in `injected`, by name."""

    def __init__(self, spec: str, seed: int) -> None:
        self._faults = parse_faults(spec)
        self._seed = seed
        self._opportunities: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()

    def first(self, names: Iterable[str]) -> str | None:
        """Gives every name its opportunity and returns the first that strikes."""
        struck = None
        for name in names:
            self._opportunities[name] += 1
            if struck is None and strikes(self._faults, name, self._opportunities[name], self._seed):
                struck = name
        if struck is not None:
            self.injected[struck] += 1
        return struck

    def all(self, names: Iterable[str]) -> frozenset[str]:
        """Gives every name its opportunity and returns all that strike."""
        return frozenset(name for name in names if self.first((name,)))
