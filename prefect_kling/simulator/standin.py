"""Stand-ins for media at public URLs, which the simulator never contacts: pictures made from the URL's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.order import ClipOrder, ScriptedShot
from prefect_kling.simulator.render import render
from prefect_kling.simulator.scene import read_scene
from prefect_kling.simulator.scenery import paint

__all__ = ["stand_in_image", "stand_in_video"]

SIZE = (1280, 720)
SECONDS = 5
# Nobody looks at a stand-in, and a create waits for it.
QUICK = MediaSpec(options="ref=1:subme=0:me=dia:trellis=0:bframes=0")


def stand_in_image(url: str, path: Path) -> None:
    """Writes a PNG in the place of the image at `url`; words in the URL show, as words in a prompt do."""
    rgb = paint(read_scene(url, url), SIZE).rgb
    Image.fromarray((rgb * 255).astype(np.uint8)).save(path, format="PNG")


def stand_in_video(url: str, path: Path) -> None:
    """Writes a clip of 5 s in the place of the video at `url`."""
    shots = (ScriptedShot(url.rpartition("/")[2] or url, SECONDS),)
    render(ClipOrder(identity=url, task_id=url, shots=shots, size=SIZE, media=QUICK), path)
