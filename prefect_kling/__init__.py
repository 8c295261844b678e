"""Storyboards in, finished films out, on Prefect: multi-shot video on the Kling Omni-Video gateway.

Names load when they are first asked for: the command line, probing children and the simulator use rooms of this package
that have nothing to do with Prefect, and importing Prefect takes longer than they need for their work.
"""

from typing import TYPE_CHECKING

from prefect_kling.first_use import on_first_use

if TYPE_CHECKING:
    from prefect_kling.blocks.credentials import KlingCredentials
    from prefect_kling.blocks.studio import KlingStudio
    from prefect_kling.clips import Clip
    from prefect_kling.gateway.client import KlingClient
    from prefect_kling.gateway.errors import KlingError
    from prefect_kling.gateway.prices import estimate_cost
    from prefect_kling.gateway.requests import OmniVideoRequest
    from prefect_kling.storyboard.document import Shot, Storyboard

__all__ = [
    "Clip",
    "KlingClient",
    "KlingCredentials",
    "KlingError",
    "KlingStudio",
    "OmniVideoRequest",
    "Shot",
    "Storyboard",
    "estimate_cost",
]

_HOMES = {
    "Clip": "prefect_kling.clips",
    "KlingClient": "prefect_kling.gateway.client",
    "KlingCredentials": "prefect_kling.blocks.credentials",
    "KlingError": "prefect_kling.gateway.errors",
    "KlingStudio": "prefect_kling.blocks.studio",
    "OmniVideoRequest": "prefect_kling.gateway.requests",
    "Shot": "prefect_kling.storyboard.document",
    "Storyboard": "prefect_kling.storyboard.document",
    "estimate_cost": "prefect_kling.gateway.prices",
}

__getattr__, __dir__ = on_first_use(__name__, _HOMES)
