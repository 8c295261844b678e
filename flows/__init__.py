"""Flows to deploy or to call: one video, or a whole storyboard."""

from prefect_kling.flows.storyboard import render_storyboard
from prefect_kling.flows.video import generate_video

__all__ = ["generate_video", "render_storyboard"]
