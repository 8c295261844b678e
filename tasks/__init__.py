"""Prefect tasks for one step each: buy, wait, download, check, take a frame, host a file, join."""

from prefect_kling.tasks.check import check_clip
from prefect_kling.tasks.create import create_video
from prefect_kling.tasks.download import download_video
from prefect_kling.tasks.frame import extract_last_frame
from prefect_kling.tasks.host import host_file
from prefect_kling.tasks.join import join_clips
from prefect_kling.tasks.wait import wait_for_video

__all__ = [
    "check_clip",
    "create_video",
    "download_video",
    "extract_last_frame",
    "host_file",
    "join_clips",
    "wait_for_video",
]
