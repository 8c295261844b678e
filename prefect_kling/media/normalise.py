"""One odd scene encoded as the film's other clips were, so that it can be spliced with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Fit
from prefect_kling.media.encoding import encode_command, encoded
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.picture import Colours, Images, faded, scene_picture
from prefect_kling.media.target import Target
from prefect_kling.media.timeline import Timeline
from prefect_kling.media.x264 import parameters

__all__ = ["normalise", "normalise_command"]


async def normalise(
    timeline: Timeline,
    number: int,
    target: Target,
    usual: MediaFacts,
    images: Images,
    out: Path,
    on_frames: Callable[[int], None],
    *,
    fit: Fit = "pad",
) -> None:
    """Encodes a scene's picture with the settings of another clip. Cancelling kills ffmpeg.

    Whether it came out alike has to be looked at: another x264 may take the same settings for something else.

    Args:
        timeline: the film.
        number: of the scene.
        target: the film's size and rate.
        usual: the clip that it is to be like, of H.264 with x264's settings in it.
        images: for its card and caption.
        out: the work file.
        on_frames: called with the number of frames encoded so far.
        fit: what is done with pictures of another shape.

    Raises:
        InvalidMedia: `usual` has no settings, or ffmpeg could not decode the clip.
        OSError: the film cannot be written.
    """
    command = normalise_command(timeline, number, target, usual, images, out, fit=fit)
    await encoded(command, timeline.scenes[number].frames / timeline.rate, on_frames)


def normalise_command(
    timeline: Timeline,
    number: int,
    target: Target,
    usual: MediaFacts,
    images: Images,
    out: Path,
    *,
    fit: Fit = "pad",
) -> list[str]:
    """The ffmpeg command of `normalise`; raises as it does."""
    settings, video, scene = parameters(usual.video.encoder, usual.video.level), usual.video, timeline.scenes[number]
    if settings is None:
        raise InvalidMedia(f"{usual.path} does not say how it was encoded")
    colours = Colours(*video.colour)
    picture = scene_picture(
        scene,
        number,
        0,
        scene.frames,
        target,
        images,
        fit=fit,
        colours=colours,
        pixel_format=video.pixel_format,
        aspect_stated=video.aspect_stated,
    )
    picture = faded(picture, timeline, scene.start, scene.frames)
    # The clips' clock, or their frames would lie on another one's ticks.
    options = {"x264-params": settings, "video_track_timescale": str(1 / video.time_base)}
    return encode_command(picture, target, out, options, pixel_format=video.pixel_format, colours=colours)
