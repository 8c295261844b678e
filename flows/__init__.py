"""Flows to deploy or to call: one video, a storyboard, a series of them, and finishing what nobody waits for."""

from prefect_kling.flows.series import render_series
from prefect_kling.flows.storyboard import render_storyboard
from prefect_kling.flows.sweeping import sweep
from prefect_kling.flows.video import generate_video

__all__ = ["generate_video", "render_series", "render_storyboard", "sweep"]
