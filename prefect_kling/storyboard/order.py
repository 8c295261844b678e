"""In which order shots can be made, given which needs which: any order without a cycle will do. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

__all__ = ["cycles", "longest_chain", "ordered"]


def ordered(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Ids so that each comes after what it needs, in the mapping's order where there is a choice.

    What is on a cycle, or needs something that is, is left out. Needs that are no key of the mapping do not count.
    """
    position = {name: n for n, name in enumerate(needs)}
    missing = {name: {need for need in wanted if need in needs} for name, wanted in needs.items()}
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in missing.items():
        for need in wanted:
            users[need].append(name)
    ready = [(n, name) for name, n in position.items() if not missing[name]]
    done = []
    while ready:
        _, name = heapq.heappop(ready)
        done.append(name)
        for user in users[name]:
            missing[user].discard(name)
            if not missing[user]:
                heapq.heappush(ready, (position[user], user))
    return done


def cycles(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Cycles, each as `[a, b, a]` where a needs b and b needs a; at least one of those that hang together."""
    left = dict.fromkeys(needs)
    for name in ordered(needs):
        del left[name]
    found = []
    seen: set[str] = set()
    for start in left:
        walk: dict[str, int] = {}
        name = start
        while name not in seen:
            seen.add(name)
            walk[name] = len(walk)
            # What is left has something left that it needs, or it would not be left.
            name = next(need for need in needs[name] if need in left)
        if name in walk:
            found.append([*list(walk)[walk[name] :], name])
    return found


def longest_chain(needs: Mapping[str, Sequence[str]], seconds: Mapping[str, int]) -> tuple[str, ...]:
    """The chain that decides how long the whole takes: most shots one after another; among equals, most seconds.

    Shots are counted, as a generation's waiting time hardly depends on its length (gateway.md, "Typical time").
    """
    best: dict[str, tuple[int, int, str | None]] = {}
    for name in ordered(needs):
        before = max((need for need in needs[name] if need in best), key=lambda need: best[need][:2], default=None)
        count, length = best[before][:2] if before is not None else (0, 0)
        best[name] = (count + 1, length + seconds[name], before)
    last = max(best, key=lambda name: best[name][:2], default=None)
    chain: list[str] = []
    while last is not None:
        chain.append(last)
        last = best[last][2]
    return tuple(reversed(chain))
