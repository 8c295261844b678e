"""Asks a confined child process about files nobody has vouched for; the package `confined` is that child."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cancelling import until_ended
from prefect_kling.media.processes import Ended, run

__all__ = ["ProbeLimits", "ask", "ask_each"]

Job = Literal["probe", "last-frame", "lumas", "frame", "fit", "stills", "thumbnail", "words", "sound", "track"]
CHILD = ("-m", "prefect_kling.media.confined")
STARTING = 15.0  # seconds that a loaded machine may take to start Python and import av


@dataclass(frozen=True)
class ProbeLimits:
    """What one clip may cost to look at; more is `InvalidMedia`.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time.
        memory: bytes of address space of the whole child, of which Python and av take about 125 MB.
        file_bytes: size of the file.
        pixels: width times height, coded and shown.
        duration: seconds of picture.
        frame_rate: frames a second.
        packets: of picture and sound together.
        output_bytes: size of a file that is made of it.
    """

    seconds: float = 30.0
    cpu_seconds: int = 20
    memory: int = 768 * 1024 * 1024
    file_bytes: int = 2 * 1024 * 1024 * 1024
    pixels: int = 9_000_000
    duration: int = 1_800
    frame_rate: int = 240
    packets: int = 250_000
    output_bytes: int = 256 * 1024 * 1024


async def ask(
    job: Job,
    clips: Sequence[Path],
    limits: ProbeLimits,
    *,
    out: Path | None = None,
    each: Sequence[Mapping[str, object]] = (),
    children: int = 1,
    **known: object,
) -> list[dict[str, Any]]:
    """What the child found in each clip, in their order.

    Args:
        job: what to do, see the package `confined`.
        clips: the files.
        limits: what each may cost.
        out: where what is made goes, for those jobs that make something.
        each: what the job needs to know about each clip, JSON-native.
        children: how many share the clips.
        known: what else the job needs to know, JSON-native.

    All clips share one child, or few, as starting one costs more than probing. Where it dies, those it had not
    answered for are asked about once more, each in a child of its own: so the guilty one is known, and the others are
    not lost.

    Raises:
        InvalidMedia: clips are broken, hostile or too costly; the text names each of them and says why.
        OSError: `out` cannot be written.
    """
    answers = await ask_each(job, clips, limits, out=out, each=each, children=children, **known)
    refusals = {
        f"{clip} {answer}": None for clip, answer in zip(clips, answers, strict=True) if isinstance(answer, str)
    }
    if refusals:
        raise InvalidMedia("; ".join(refusals) + ".")
    return [answer for answer in answers if not isinstance(answer, str)]


async def ask_each(
    job: Job,
    clips: Sequence[Path],
    limits: ProbeLimits,
    *,
    out: Path | None = None,
    each: Sequence[Mapping[str, object]] = (),
    children: int = 1,
    **known: object,
) -> list[dict[str, Any] | str]:
    """The same, for whom one broken clip is no reason to leave the others: in its place stands why, in words.

    Raises:
        OSError: `out` cannot be written.
    """
    request = {**known, "job": job, "limits": dataclasses.asdict(limits), "out": str(out) if out else None}
    asked = [{**(each[n] if each else {}), "path": str(clip.absolute())} for n, clip in enumerate(clips)]
    answers, ended = await _ask_some(request, asked, limits, children)
    if len(clips) > 1:
        for number, clip in enumerate(asked):
            if number not in answers:
                alone, ended = await _ask_once(request, [clip], limits)
                answers[number] = alone.get(0) or {"refused": _last_words(ended)}
    elif clips and 0 not in answers:
        answers[0] = {"refused": _last_words(ended)}
    for answer in answers.values():
        if "unwritable" in answer:
            raise OSError(answer["unwritable"], os.strerror(answer["unwritable"]), str(out))
    return [found["refused"] if "refused" in found else found["found"] for _, found in sorted(answers.items())]


async def _ask_some(
    request: Mapping[str, object], asked: Sequence[Mapping[str, object]], limits: ProbeLimits, children: int
) -> tuple[dict[int, dict[str, Any]], Ended]:
    """Deals the clips out to children; the answers by the clips' numbers, and how the last child ended."""
    tasks = [asyncio.ensure_future(_ask_once(request, asked[n::children], limits)) for n in range(children)]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await until_ended(asyncio.gather(*tasks, return_exceptions=True))
    found = {number * children + n: answer for n, (part, _) in enumerate(results) for number, answer in part.items()}
    return found, results[-1][1]


async def _ask_once(
    request: Mapping[str, object], asked: Sequence[Mapping[str, object]], limits: ProbeLimits
) -> tuple[dict[int, dict[str, Any]], Ended]:
    lines: list[str] = []
    # -I: neither the current directory nor PYTHON* variables decide what the child imports.
    ended = await run(
        [sys.executable, "-I", *CHILD],
        timeout=STARTING + limits.seconds * len(asked),
        given=json.dumps({**request, "clips": asked}).encode(),
        on_line=lines.append,
    )
    return dict(filter(None, map(_answer, lines))), ended


def _answer(line: str) -> tuple[int, dict[str, Any]] | None:
    """One line of the child, or None: hostile bytes that took it over could make it say anything."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    match answer:
        case (
            {"clip": int(number), "found": dict()}
            | {"clip": int(number), "refused": str()}
            | {"clip": int(number), "unwritable": int()}
        ):
            return number, answer
    return None


def _last_words(ended: Ended) -> str:
    if ended.timed_out or -ended.status in (signal.SIGALRM, signal.SIGXCPU):  # the child's own clocks
        return "takes too long to read"
    last = ended.stderr.strip().splitlines()[-1:]
    return " ".join(["cannot be read: the process that tried", ended.why, *(f"({line})" for line in last)])
