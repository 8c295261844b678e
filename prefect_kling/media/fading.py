"""Where does the end of a clip go black? Decided by how bright its last frames are. Pure.

A frame that is black, or on its way there, is no frame to go on from. One that is merely dark is: what is uncertain
counts as the scene, because a frame skipped in vain is a jump that a viewer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

__all__ = ["BLACK", "FADING", "last_before_black"]

BLACK = 0.01
"""Mean luma, 0 to 1, up to which a frame counts as black; coded black is off by half of that at most."""

FADING = 0.2
"""Mean luma, as a share of the scene's, up to which a fall that lasts to the clip's end is a fade cut short."""

# A scene this dark cannot be told from black, and one has to be so many times as bright as its black end.
DIMMEST, TIMES = 0.02, 4
# A fade loses so much of the scene's luma with each frame: half of what a linear one of two seconds does.
STEP = 0.01
# Films shot on twos and threes stand still between the steps.
STANDING = 3
# From here on the scene counts as undimmed; fades that ease in lose the first frames' worth of light invisibly.
UNDIMMED = 0.985
# A fall that is shorter and does not end in black is a cut into a dark shot.
SHORTEST = 6


def last_before_black(lumas: Sequence[float], window: int) -> int:
    """Index of the last frame before a clip's end cuts or fades to black; of its very last one where it does not.

    Args:
        lumas: mean luma of each of the clip's last frames, 0 to 1, in the order they are shown.
        window: how many frames before the black may belong to the fade.
    """
    last = len(lumas) - 1
    black = sum(1 for _ in takewhile(lambda luma: luma <= BLACK, reversed(lumas)))
    lit = last - black
    if lit < 0:
        return last
    start = max(lit - window, 0)
    scene = max(lumas[start : lit + 1])
    if black:
        hidden_in_the_dark = scene < DIMMEST or lumas[last] * TIMES > scene
        return last if hidden_in_the_dark else _top_of_the_fall(lumas, lit + 1, start, scene)
    if lumas[last] > FADING * scene:
        return last
    top = _top_of_the_fall(lumas, last, start, scene)
    return top if last - top >= SHORTEST else last


def _top_of_the_fall(lumas: Sequence[float], at: int, start: int, scene: float) -> int:
    """Back from frame `at` for as long as each frame is clearly brighter than the one after it."""
    while lumas[at] < UNDIMMED * scene:
        steps = range(1, min(STANDING, at - start) + 1)
        before = next((at - n for n in steps if lumas[at - n] - lumas[at] > STEP * scene * n), None)
        if before is None:
            break
        at = before
    return at
