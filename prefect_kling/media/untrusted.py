"""Asks a confined child process about files nobody has vouched for; the package `confined` is that child."""

from __future__ import annotations

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
from prefect_kling.media.processes import Ended, run

__all__ = ["ProbeLimits", "ask"]

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
    """

    seconds: float = 30.0
    cpu_seconds: int = 20
    memory: int = 768 * 1024 * 1024
    file_bytes: int = 2 * 1024 * 1024 * 1024
    pixels: int = 9_000_000
    duration: int = 1_800
    frame_rate: int = 240
    packets: int = 250_000


async def ask(
    job: Literal["probe", "last-frame", "lumas", "frame", "fit", "stills", "words"],
    clips: Sequence[Path],
    limits: ProbeLimits,
    *,
    out: Path | None = None,
    **known: object,
) -> list[dict[str, Any]]:
    """What the child found in each clip, in their order.

    Args:
        job: what to do, see the package `confined`.
        clips: the files.
        limits: what each may cost.
        out: where an image goes, for those jobs that make one.
        known: what else the job needs to know, JSON-native.

    All clips share one child, as starting one costs more than probing. Where it dies, those it had not answered for
    are asked about once more, each in a child of its own: so the guilty one is known, and the others are not lost.

    Raises:
        InvalidMedia: clips are broken, hostile or too costly; the text names each of them and says why.
        OSError: `out` cannot be written.
    """
    answers, ended = await _ask_once(job, clips, limits, out, known)
    if len(clips) > 1:
        for number, clip in enumerate(clips):
            if number not in answers:
                alone, ended = await _ask_once(job, [clip], limits, out, known)
                answers[number] = alone.get(0) or {"refused": _last_words(ended)}
    elif clips and 0 not in answers:
        answers[0] = {"refused": _last_words(ended)}
    refusals = {f"{clip} {answers[n]['refused']}": None for n, clip in enumerate(clips) if "refused" in answers[n]}
    if refusals:
        raise InvalidMedia("; ".join(refusals) + ".")
    for answer in answers.values():
        if "unwritable" in answer:
            raise OSError(answer["unwritable"], os.strerror(answer["unwritable"]), str(out))
    return [answers[number]["found"] for number in range(len(clips))]


async def _ask_once(
    job: str, clips: Sequence[Path], limits: ProbeLimits, out: Path | None, known: Mapping[str, object]
) -> tuple[dict[int, dict[str, Any]], Ended]:
    request = {
        **known,
        "job": job,
        "clips": [{"path": str(clip.absolute())} for clip in clips],
        "limits": dataclasses.asdict(limits),
        "out": str(out) if out else None,
    }
    lines: list[str] = []
    # -I: neither the current directory nor PYTHON* variables decide what the child imports.
    ended = await run(
        [sys.executable, "-I", *CHILD],
        timeout=STARTING + limits.seconds * len(clips),
        given=json.dumps(request).encode(),
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
