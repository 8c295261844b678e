"""What a user writes about the cut: transitions, sound, words and edges of the film.

Flat, with empty values in place of optional ones, for the reasons that `document` gives. What becomes of it is
`cutting`'s business; what has to fit the shots' lengths, `cut_rules`'.
"""

# No `from __future__ import annotations` here: Prefect reads these annotations to draw its form.
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from prefect_kling.media.transitions import KINDS
from prefect_kling.storyboard.values import Address, Written, in_one_word, number

__all__ = ["AS_IS", "BY_ITSELF", "Cut", "Kind", "KindOrNone", "Music", "Trim", "width_and_height"]

AS_IS = 0
"""The loudness that leaves the level as it is."""
BY_ITSELF = -1
"""The place of a poster that is chosen by itself."""
LOUDEST = -6
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096
MAX_PIXELS = 9_000_000
LONGEST_TRANSITION = 5
LONGEST_FILM = 36_000

if TYPE_CHECKING:
    # The kinds are a table, which a type checker cannot read; the models do.
    Kind = str
    KindOrNone = str
else:
    Kind = Literal[KINDS]
    KindOrNone = Literal[("", *KINDS)]


def width_and_height(size: str) -> tuple[int, int]:
    """Pixels of a size such as 1080x1920."""
    width, _, height = size.partition("x")
    return int(width), int(height)


def _size(value: str) -> str:
    if value:
        sides = width_and_height(value)
        if any(side % 2 for side in sides):
            raise PydanticCustomError("size", "width and height have to be even, as video stores colour for two by two")
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides):
            raise PydanticCustomError("size", f"width and height take {SMALLEST_SIDE} to {LARGEST_SIDE} pixels each")
        if sides[0] * sides[1] > MAX_PIXELS:
            raise PydanticCustomError("size", f"a picture may have {MAX_PIXELS:,} pixels at most")
    return value


def _loudness(value: float) -> float:
    if LOUDEST < value < AS_IS:
        raise PydanticCustomError("loudness", f"takes -36 to {LOUDEST} LUFS, or 0 to leave the level as it is")
    return value


def _poster_at(value: float) -> float:
    if BY_ITSELF < value < 0:
        raise PydanticCustomError("poster_at", "takes seconds from the film's start, or -1 to have it chosen by itself")
    return value


def _heard(value: Any) -> Any:
    words = {True: "clips", False: "none", "true": "clips", "false": "none"}
    return words.get(value, value) if in_one_word(value) else value


def _in_full(value: Any) -> Any:
    # `music: bed.mp3` is what people write first.
    return {"file": value} if isinstance(value, str) else value


def _in_and_out(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) not in (0, 2):
        raise PydanticCustomError("trim", "takes two numbers of seconds, [in, out]; out 0 means to the clip's end")
    return value


Trim = Annotated[
    list[Annotated[float, Field(ge=0, le=LONGEST_FILM), BeforeValidator(number)]],
    Field(max_length=2),
    BeforeValidator(_in_and_out),
]
"""From where to where a clip is shown, in seconds; empty for all of it, a second 0 for its end."""


class Music(Written):
    """A bed under the whole film; `music: bed.mp3` alone means its file."""

    file: Address = Field(
        default="", description="A sound file beside the document, or any file with sound in it. Empty: no music."
    )
    gain: Annotated[float, Field(ge=-60, le=12), BeforeValidator(number)] = Field(
        default=-12, description="dB that it is turned up by, negative for down, before the film's loudness is set."
    )
    loop: bool = Field(default=True, description="Whether it starts again where it is shorter than the film.")
    fade: Annotated[float, Field(ge=0, le=30), BeforeValidator(number)] = Field(
        default=2, description="Seconds over which it comes at the film's start and goes at its end."
    )
    ducking: bool = Field(default=True, description="Whether it steps back while clips or narration are heard.")


class Cut(Written):
    """How the clips become a film. The shots' order in the document is their order in the film."""

    transition: Kind = Field(
        default="cut",
        description=(
            "How one shot goes over into the next: cut, a hard cut; crossfade, black, white, wipe, or another kind of "
            "ffmpeg's xfade. Any but cut encodes the picture anew."
        ),
    )
    transition_length: Annotated[float, Field(ge=0.05, le=LONGEST_TRANSITION), BeforeValidator(number)] = Field(
        default=0.5, description="Seconds that a transition takes; the film is shorter by as much for each."
    )
    fade_in: Annotated[float, Field(ge=0, le=10), BeforeValidator(number)] = Field(
        default=0, description="Seconds in which the film comes out of black and silence."
    )
    fade_out: Annotated[float, Field(ge=0, le=10), BeforeValidator(number)] = Field(
        default=0, description="Seconds in which the film goes into black and silence."
    )
    size: Annotated[str, StringConstraints(pattern=r"^([0-9]{1,5}x[0-9]{1,5})?$"), AfterValidator(_size)] = Field(
        default="",
        description=(
            "Pixels of the film as WIDTHxHEIGHT, both even, 64 to 4096 each, such as 1080x1920. Empty: what most clips "
            "have."
        ),
    )
    fit: Literal["pad", "crop", "stretch"] = Field(
        default="pad",
        description="What is done with clips of another shape: bars around them, their middle alone, or out of shape.",
    )
    codec: Literal["as-is", "h264"] = Field(
        default="as-is", description="as-is keeps the clips' coding where it can; h264 encodes HEVC anew."
    )
    loudness: Annotated[float, Field(ge=-36, le=0), BeforeValidator(number), AfterValidator(_loudness)] = Field(
        default=-16,
        description="Integrated loudness to reach in LUFS (EBU R 128), -36 to -6. 0: the level is left as it is.",
    )
    sound: Annotated[Literal["clips", "none"], BeforeValidator(_heard)] = Field(
        default="clips",
        description="none: the clips' own sound is not heard; music and narration still are.",
    )
    music: Annotated[Music, BeforeValidator(_in_full)] = Field(
        default_factory=Music, description="A bed under the whole film: a file, or fields."
    )
    captions: Literal["soft", "burn", "none"] = Field(
        default="soft",
        description=(
            "Where the shots' captions go: soft, into a track that players show when asked and files beside the film; "
            "burn, into the picture; none, nowhere."
        ),
    )
    title: Annotated[str, StringConstraints(max_length=200)] = Field(
        default="", description="Words on a card of 3 s before the first shot. Empty: no card."
    )
    end_card: Annotated[str, StringConstraints(max_length=200)] = Field(
        default="", description="Words on a card of 3 s after the last shot. Empty: no card."
    )
    poster_at: Annotated[
        float, Field(ge=BY_ITSELF, le=LONGEST_FILM), BeforeValidator(number), AfterValidator(_poster_at)
    ] = Field(default=BY_ITSELF, description="Second of the film that its poster shows. -1: chosen by itself.")
    drop_repeat: bool = Field(
        default=False,
        description=(
            "Whether a shot that continues the one before it leaves out its first frame, which is that one's last."
        ),
    )
    font: Address = Field(
        default="",
        description=(
            "A TrueType or OpenType file beside the document, for words in the picture. Empty: Roboto, with Latin, "
            "Greek and Cyrillic letters."
        ),
    )
    otio: bool = Field(
        default=False, description="Whether an OpenTimelineIO file is written beside the film, for an editor."
    )
