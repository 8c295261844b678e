"""Flows to deploy or to call: one video, a whole storyboard, and finishing what nobody waits for."""

from prefect_kling.flows.storyboard import render_storyboard
from prefect_kling.flows.sweeping import sweep
from prefect_kling.flows.video import generate_video

__all__ = ["generate_video", "render_storyboard", "sweep"]
