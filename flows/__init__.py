"""Flows to deploy or to call: one video, a storyboard, a series of them, and finishing what nobody waits for.

Names load when they are first asked for, as those of `prefect_kling` do: Prefect takes a while to describe each flow's
parameters, and a command needs one flow at most.
"""

from typing import TYPE_CHECKING

from prefect_kling.first_use import on_first_use

if TYPE_CHECKING:
    from prefect_kling.flows.series import render_series
    from prefect_kling.flows.storyboard import render_storyboard
    from prefect_kling.flows.sweeping import sweep
    from prefect_kling.flows.video import generate_video

__all__ = ["generate_video", "render_series", "render_storyboard", "sweep"]

_HOMES = {
    "generate_video": "prefect_kling.flows.video",
    "render_series": "prefect_kling.flows.series",
    "render_storyboard": "prefect_kling.flows.storyboard",
    "sweep": "prefect_kling.flows.sweeping",
}

__getattr__, __dir__ = on_first_use(__name__, _HOMES)
