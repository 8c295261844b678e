"""Whether coded pictures that we made ourselves can be spliced: asked of what came out, not of what was meant. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.plan import plan_join
from prefect_kling.media.target import target_of
from prefect_kling.media.timeline import lay_out

__all__ = ["unlike"]


def unlike(pictures: Sequence[MediaFacts]) -> str:
    """Why pictures cannot be spliced as they are; empty where they can."""
    # One of very few frames reorders none of them, and splicing evens that out.
    even = [replace(picture, video=replace(picture.video, delay=0)) for picture in pictures]
    cut = Cut()
    target = target_of(even, cut)
    timeline = lay_out([CutClip(picture.path, "") for picture in pictures], even, cut, target.frame_rate)
    plan = plan_join(timeline, cut, target)
    return "" if plan.method == "copy" else plan.reason
