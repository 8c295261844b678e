"""About how long the shots of a plan take, if as many are made at once as the account allows. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prefect_kling.storyboard.cutting import stretches
from prefect_kling.storyboard.plan import Plan

__all__ = ["Expected", "expected_seconds"]

MEDIAN_SECONDS: Final = 142.0
SLOW_SECONDS: Final = 486.0
"""What half, and a tenth, of all generations take longer than (gateway.md, "Typical time": p50 and p90)."""
ARRIVAL_SECONDS: Final = 10.0
"""Assumed from the end of a generation until its clip is stored: one poll, then a few MB of download."""
JOIN_SECONDS: Final = 5.0
JOIN_SECONDS_PER_SECOND: Final = 0.02
ENCODE_SECONDS_PER_SECOND: Final = 0.7
"""Assumed for the film: of clips that fit each other, 100 s are joined in some 2 s; starting takes a few more. With
transitions 100 s of 720p took 73 s on two cores, as all of the picture is encoded.
"""


@dataclass(frozen=True)
class Expected:
    """An estimate.

    Attributes:
        seconds: if every generation takes the median.
        slow_seconds: if every one of them is slow.
    """

    seconds: float
    slow_seconds: float

    def __str__(self) -> str:
        return f"about {_rounded(self.seconds)}, {_rounded(self.slow_seconds)} if slow"


def expected_seconds(
    plan: Plan,
    to_make: Mapping[str, int],
    in_flight: int,
    generation_seconds: float = MEDIAN_SECONDS,
    slow_seconds: float = SLOW_SECONDS,
) -> Expected:
    """About how long a run takes from its first purchase to the film.

    Whatever is ready is generated as soon as a slot is free, in the order in which it became ready; a shot is ready
    once a clip of each shot that it takes from is there. It is an estimate: how long the gateway takes depends on its
    load, retakes come on top, and what is running already counts as if it had just begun.

    Args:
        plan: of the document.
        to_make: by shot, how many generations are still to be bought or waited for; shots not in it take no time.
        in_flight: how many generations run at once, at least 1.
        generation_seconds: what one takes.
        slow_seconds: what one takes on a bad day.
    """
    # Whether the film is encoded depends on the clips as well; what surely is has a transition.
    encoded = any(part.before for part in stretches(plan.cut, plan.shot_cuts))
    each = ENCODE_SECONDS_PER_SECOND if encoded else JOIN_SECONDS_PER_SECOND
    join = JOIN_SECONDS + each * float(plan.film_seconds)
    return Expected(
        join + _last_clip(plan, to_make, in_flight, generation_seconds),
        join + _last_clip(plan, to_make, in_flight, slow_seconds),
    )


def _last_clip(plan: Plan, to_make: Mapping[str, int], in_flight: int, each: float) -> float:
    """When the last clip is stored, in seconds from the start."""
    missing = {shot.id: len(shot.needs) for shot in plan.order}
    begin = dict.fromkeys(missing, 0.0)
    users: dict[str, list[int]] = {shot.id: [] for shot in plan.order}
    for n, shot in enumerate(plan.order):
        for need in shot.needs:
            users[need].append(n)
    # Nothing becomes ready before what made it so, so that shots leave this heap in the order of time.
    ready = [(0.0, n) for n, shot in enumerate(plan.order) if not shot.needs]
    free = [0.0] * max(1, min(in_flight, sum(to_make.values())))
    last = 0.0
    while ready:
        now, n = heapq.heappop(ready)
        shot = plan.order[n]
        # Further takes are generated beside the first one, which is all that other shots wait for.
        ends = []
        for _ in range(to_make.get(shot.id, 0)):
            ends.append(max(now, free[0]) + each)
            heapq.heapreplace(free, ends[-1])
        clips = [end + ARRIVAL_SECONDS for end in ends] or [now]
        last = max(last, *clips)
        for user in users[shot.id]:
            name = plan.order[user].id
            begin[name] = max(begin[name], clips[0])
            missing[name] -= 1
            if not missing[name]:
                heapq.heappush(ready, (begin[name], user))
    return last


def _rounded(seconds: float) -> str:
    """A length of time in words, no finer than an estimate is."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
