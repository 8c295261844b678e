"""Telling whoever started a run, in the same process, how it goes: the command line draws its progress from this."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

__all__ = ["Progress", "Step", "tell", "watcher"]

Step = Literal[
    "planned",
    "waiting",
    "buying",
    "softened",
    "generating",
    "downloading",
    "checking",
    "retaking",
    "stored",
    "kept",
    "failed",
    "blocked",
    "joining",
    "rendering",
    "rendered",
    "not-begun",
]


@dataclass(frozen=True)
class Progress:
    """One thing that happened: to a shot, or to the film where `shot` is empty; `detail` is for people.

    The steps of a series happen to its rows, and `shot` is the title of a row's film.
    """

    shot: str
    step: Step
    detail: str = ""


watcher: ContextVar[Callable[[Progress], None] | None] = ContextVar("prefect_kling_watcher", default=None)
"""Called for each step of the runs started in this context; None where nobody looks."""


def tell(shot: str, step: Step, detail: str = "") -> None:
    """Reports a step to the watcher, if there is one."""
    watch = watcher.get()
    if watch is not None:
        watch(Progress(shot, step, detail))
