"""What is to be rendered: a request with its fetched inputs, turned into an order in frames and pixels. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect_kling.gateway.limits import CLIP_SIZES
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.inputs import FetchedInputs

__all__ = ["ClipOrder", "ScriptedShot", "frame_size", "order_for"]

DEFAULT_MEDIA = MediaSpec()


@dataclass(frozen=True)
class ScriptedShot:
    """One shot within a clip: what it shows, and for how many seconds."""

    prompt: str
    seconds: int


@dataclass(frozen=True)
class ClipOrder:
    """One clip to render.

    Attributes:
        identity: what makes it differ from every other clip; decides every random choice.
        task_id: for the barcode.
        shots: one, or several with `multi_shot`.
        size: pixels; None follows the first frame or the input video.
        sound: a track of sound is wanted.
        media: how the file is made.
        references: plain reference images.
        elements: ids of `element_list`.
        first_frame, end_frame: images it starts and ends on.
        base: a video it is an edit of; then the video decides frames and size.
        feature: a video it is the next shot of.
        keep_sound: a base's or feature's sound is kept.
        barcode: task, shot and frame number are stamped into the picture.
        shrink: divides the sides.
    """

    identity: str
    task_id: str
    shots: tuple[ScriptedShot, ...]
    size: tuple[int, int] | None
    sound: bool = False
    media: MediaSpec = DEFAULT_MEDIA
    references: tuple[Path, ...] = ()
    elements: tuple[int, ...] = ()
    first_frame: Path | None = None
    end_frame: Path | None = None
    base: Path | None = None
    feature: Path | None = None
    keep_sound: bool = False
    barcode: bool = False
    shrink: int = 1
    mode: str = "std"


def frame_size(aspect_ratio: str, mode: str, shrink: int = 1) -> tuple[int, int]:
    """Pixels of a clip, both sides even."""
    width, height = CLIP_SIZES[aspect_ratio, mode]
    return width // shrink // 2 * 2, height // shrink // 2 * 2


def order_for(
    request: OmniVideoRequest,
    inputs: FetchedInputs,
    *,
    media: MediaSpec,
    identity: str,
    task_id: str,
    barcode: bool,
    shrink: int,
) -> ClipOrder:
    """Turns a valid request and its files into an order."""
    typed = list(zip(request.image_list or (), inputs.images, strict=True))

    def framed(kind: str) -> Path | None:
        return next((path for image, path in typed if image.type == kind), None)

    size = media.pixels
    if size is None and request.aspect_ratio is not None and framed("first_frame") is None:
        size = frame_size(request.aspect_ratio, request.mode, shrink)
    return ClipOrder(
        identity=identity,
        task_id=task_id,
        shots=_shots(request),
        size=size,
        sound=request.sound == "on",
        media=media,
        references=tuple(path for image, path in typed if image.type is None),
        elements=tuple(element.element_id for element in request.element_list or ()),
        first_frame=framed("first_frame"),
        end_frame=framed("end_frame"),
        base=inputs.video if request.base_video else None,
        feature=inputs.video if request.feature_video else None,
        keep_sound=any(video.keep_original_sound == "yes" for video in request.video_list or ()),
        barcode=barcode,
        shrink=shrink,
        mode=request.mode,
    )


def _shots(request: OmniVideoRequest) -> tuple[ScriptedShot, ...]:
    seconds = request.seconds or 0
    if request.multi_shot and request.multi_prompt and request.shot_type == "customize":
        return tuple(ScriptedShot(part.prompt, int(part.duration)) for part in request.multi_prompt)
    prompt = request.prompt or ""
    if request.multi_shot and seconds >= 4:
        # "intelligence" leaves the cutting to the model; two halves are a cut that a test can find.
        return ScriptedShot(prompt, seconds - seconds // 2), ScriptedShot(prompt, seconds // 2)
    return (ScriptedShot(prompt, seconds),)
