"""What a user writes: the storyboard's fields, their bounds and what each of them means.

These models are also the JSON Schema of `prefect-kling schema` and Prefect's Custom-run form. So they are flat, an
unsaid field is an empty value rather than an optional one (the form shows optional fields as tabs), and descriptions
are plain text. What spans fields, shots or files is the plan's business.
"""

# No `from __future__ import annotations` here: Prefect reads these annotations to draw its form.
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from prefect_kling.gateway.requests import AspectRatio, Mode, Model
from prefect_kling.storyboard.cut import LONGEST_TRANSITION, Cut, KindOrNone, Music, Trim
from prefect_kling.storyboard.values import Address, Written, in_one_word, number, on_off, whole, yes_no

__all__ = [
    "OF_THE_CUT",
    "Check",
    "Cut",
    "Defaults",
    "MultiShotPart",
    "Music",
    "Shot",
    "Storyboard",
    "repeated_ids",
    "slug",
]

MAX_SHOTS = 2000
MAX_PROMPT = 2500
# Far above what any model takes: how many go with what is a rule across fields, told by the plan with its number.
MAX_INPUTS = 20
MAX_TAKE = 1000
MAX_RETAKES = 10
MAX_SOFTER = 5
_MAX_FOLDER_BYTES = 80
# Windows opens a device under these names, whatever their case; a film may be opened there from a shared folder.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def _all_or_nothing(value: Any) -> Any:
    # `check: true` and `check: false` are what people write first.
    if value in (True, "true") and in_one_word(value):
        looks: dict[str, Any] = dict.fromkeys(("length", "size", "frames", "decodes", "sound"), True)
        return looks | {"black": LONGEST_BLACK, "frozen": LONGEST_FROZEN}
    return {"off": True} if value in (False, "false") and in_one_word(value) else value


LONGEST_BLACK = 0.5
LONGEST_FROZEN = 2.0
"""Seconds that `check: true` lets pass."""

ShotId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", min_length=1, max_length=64)]
InputName = Annotated[str, StringConstraints(pattern=r"^[^\W\d]\w*$", max_length=64)]
ElementId = Annotated[int, Field(ge=1, le=2**63 - 1), BeforeValidator(whole)]
Sound = Literal["on", "off"]
KeepSound = Literal["yes", "no"]


class MultiShotPart(Written):
    """One part of a shot that the model cuts into several by itself."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="What this part shows; 512 characters at most, the look included."
    )
    duration: Annotated[int, Field(ge=1, le=15), BeforeValidator(whole)] = Field(
        description="Seconds of this part. The parts add up to the shot's duration."
    )


class Check(Written):
    """What a clip is held against before the film uses it; a field that is not said is not looked at."""

    off: bool = Field(default=False, description="Look at nothing, whatever the defaults say.")
    length: bool = Field(default=False, description="It is as long as was asked for; a tenth of a second over passes.")
    size: bool = Field(default=False, description="It has the pixels that mode and aspect_ratio give.")
    frames: bool = Field(default=False, description="Its frames are all there and evenly spaced.")
    decodes: bool = Field(default=False, description="Every frame of it decodes without an error.")
    black: Annotated[float, Field(ge=0, le=15), BeforeValidator(number)] = Field(
        default=0, description="The longest stretch of black that passes, in seconds. 0: not looked at."
    )
    frozen: Annotated[float, Field(ge=0, le=15), BeforeValidator(number)] = Field(
        default=0, description="The longest stretch without motion that passes, in seconds. 0: not looked at."
    )
    sound: bool = Field(default=False, description="Where sound was asked for, it can be heard.")
    function: Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$", max_length=200)] = Field(
        default="",
        description=(
            "A function of your own that also has to let it pass, as package.module:function; it gets the clip's path "
            "and returns nothing, or text that says what is wrong."
        ),
    )


class Defaults(Written):
    """What holds for every shot that does not say otherwise, where the gateway takes the field at all."""

    model: Model = Field(default="kling-v3-omni", description="The model that makes the shots.")
    mode: Mode = Field(default="std", description="std makes 720p, pro makes 1080p.")
    aspect_ratio: AspectRatio = Field(
        default="16:9",
        description="Shape of the picture. Not sent with base edits and first frames, which bring their own.",
    )
    duration: Annotated[int, Field(ge=3, le=15), BeforeValidator(whole)] = Field(
        default=5,
        description="Seconds: 3 to 10 for kling-video-o1, 3 to 15 for kling-v3-omni. Not sent with base edits.",
    )
    sound: Annotated[Sound, BeforeValidator(on_off)] = Field(
        default="off", description="Whether the model makes sound. Shots with base or feature have none in any case."
    )
    keep_original_sound: Annotated[KeepSound, BeforeValidator(yes_no)] = Field(
        default="no", description="Whether shots with base or feature keep that video's sound."
    )
    check: Annotated[Check, BeforeValidator(_all_or_nothing)] = Field(
        default_factory=Check, description="What clips are held against; true for all that can be looked at."
    )
    max_retakes: Annotated[int, Field(ge=0, le=MAX_RETAKES), BeforeValidator(whole)] = Field(
        default=0, description="How many more takes may be bought of a shot whose takes fail their checks."
    )
    fit: Annotated[Literal["yes", "no"], BeforeValidator(yes_no)] = Field(
        default="no",
        description="Whether local images are converted, scaled or cropped until the gateway takes them.",
    )


class Shot(Written):
    """One generation. Every field but the id may be left out; empty means: as in the defaults, or none."""

    id: ShotId = Field(
        description="The shot's name, by which others refer to it: letters, digits, - and _; 64 characters at most."
    )
    prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT)] = Field(
        default="",
        description=(
            "What to show; the storyboard's look is appended. {harbour} stands for the image or element of that name, "
            "{base} and {feature} for that video. 2,500 characters at most, the look included."
        ),
    )
    model: Literal["", "kling-video-o1", "kling-v3-omni"] = Field(default="", description="Empty: as in the defaults.")
    mode: Literal["", "std", "pro"] = Field(
        default="", description="std makes 720p, pro makes 1080p. Empty: as in the defaults."
    )
    aspect_ratio: Literal["", "16:9", "9:16", "1:1"] = Field(default="", description="Empty: as in the defaults.")
    duration: Annotated[int, Field(ge=0, le=15), BeforeValidator(whole)] = Field(
        default=0,
        description=(
            "Seconds: 3 to 10 for kling-video-o1, 3 to 15 for kling-v3-omni. 0: the sum of multi_shot, else as in the "
            "defaults. A base edit is as long as its input."
        ),
    )
    sound: Annotated[Literal["", "on", "off"], BeforeValidator(on_off)] = Field(
        default="", description="Whether the model makes sound; not with base or feature. Empty: as in the defaults."
    )
    base: Address = Field(
        default="",
        description="The video this shot is an edit of, and as long as: a shot's id, a local path or a URL.",
    )
    feature: Address = Field(
        default="",
        description="The video whose style, subject and camera this shot goes on with: a shot's id, a path or a URL.",
    )
    keep_original_sound: Annotated[Literal["", "yes", "no"], BeforeValidator(yes_no)] = Field(
        default="",
        description="Whether the sound of base or feature is kept. Empty: as in the defaults, which is no.",
    )
    continues: Address = Field(
        default="", description="Id of the shot whose last frame this one starts on. Not together with first_frame."
    )
    first_frame: Address = Field(
        default="",
        description="The image this shot starts on: a local path or a URL, or a shot's id for that clip's last frame.",
    )
    end_frame: Address = Field(
        default="",
        description=(
            "The image this shot ends on: a local path or a URL, or a shot's id for that clip's last frame (not its "
            "first). Needs continues or first_frame."
        ),
    )
    images: dict[InputName, Annotated[Address, StringConstraints(min_length=1)]] = Field(
        default_factory=dict,
        max_length=MAX_INPUTS,
        description="Reference images, name to path or URL; jpg or png. The names can be used in the prompt in braces.",
    )
    elements: (
        Annotated[list[ElementId], Field(max_length=MAX_INPUTS)]
        | Annotated[dict[InputName, ElementId], Field(max_length=MAX_INPUTS)]
    ) = Field(
        default_factory=list,
        description="Ids of elements stored at Kling: a list, or name to id for use in the prompt in braces.",
    )
    multi_shot: Literal["", "intelligence"] | Annotated[list[MultiShotPart], Field(min_length=1, max_length=6)] = Field(
        default="",
        description=(
            "Lets the model cut this shot into several; kling-v3-omni only. A list of 1 to 6 parts, each with prompt "
            "and duration, or the word intelligence to let the model decide."
        ),
    )
    takes: Annotated[int, Field(ge=1, le=20), BeforeValidator(whole)] = Field(
        default=1,
        description=(
            "How many takes to buy, to choose from. The film uses the first that passes its checks, or the last that "
            "--retake made."
        ),
    )
    take: Annotated[int, Field(ge=0, le=MAX_TAKE), BeforeValidator(whole)] = Field(
        default=0, description="The number of the take that the film uses, whatever checks say. 0: see takes."
    )
    check: Annotated[Check, BeforeValidator(_all_or_nothing)] = Field(
        default_factory=Check,
        description="What its clip is held against, in place of the defaults; true for all that can be looked at.",
    )
    max_retakes: Annotated[int, Field(ge=-1, le=MAX_RETAKES), BeforeValidator(whole)] = Field(
        default=-1,
        description="How many more takes may be bought where all fail their checks. -1: as in the defaults.",
    )
    soften: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT)]], Field(max_length=MAX_SOFTER)
    ] = Field(
        default_factory=list,
        description=(
            "Prompts to try in turn where the gateway's moderation refuses the shot. Which one was used is always said."
        ),
    )
    fit: Annotated[Literal["", "yes", "no"], BeforeValidator(yes_no)] = Field(
        default="",
        description=(
            "Whether its local images are converted, scaled or cropped until the gateway takes them. Empty: as in the "
            "defaults, which is no."
        ),
    )
    in_cut: bool = Field(default=True, description="Whether the film shows it; no for shots that are only a source.")
    trim: Trim = Field(
        default_factory=list,
        description="Seconds of its clip that the film begins and ends with, [in, out]; out 0 means to its end.",
    )
    transition: KindOrNone = Field(
        default="", description="How the shot before it goes over into it. Empty: as in the cut."
    )
    transition_length: Annotated[float, Field(ge=0, le=LONGEST_TRANSITION), BeforeValidator(number)] = Field(
        default=0, description="Seconds that this transition takes. 0: as in the cut."
    )
    narration: Address = Field(
        default="",
        description=(
            "A sound file beside the document that begins with this shot and may go on over the shots behind it."
        ),
    )
    caption: Annotated[str, StringConstraints(max_length=500)] = Field(
        default="", description="Words to be read while it is seen; several lines are several lines."
    )


OF_THE_CUT: Final = ("in_cut", "trim", "transition", "transition_length", "narration", "caption")
"""A shot's fields that change the film, and nothing that is bought for it."""


class Storyboard(Written):
    """A film, shot by shot: what prefect-kling render and the flow render_storyboard take."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="The film's name; files and folders are named after it."
    )
    look: Annotated[str, StringConstraints(max_length=1000)] = Field(
        default="", description="The look of the whole film; appended to every prompt after a comma."
    )
    # Prefect's form shows fields by position: the shots come before two screens of what may be left as it is.
    defaults: Defaults = Field(
        default_factory=Defaults,
        description="What holds for shots that do not say otherwise.",
        json_schema_extra={"position": 2},
    )
    shots: list[Shot] = Field(
        min_length=1,
        max_length=MAX_SHOTS,
        description="The shots, in the order in which the film shows them.",
        json_schema_extra={"position": 1},
    )
    cut: Cut = Field(default_factory=Cut, description="How the clips become a film.", json_schema_extra={"position": 3})

    @model_validator(mode="after")
    def _one_shot_an_id(self) -> Self:
        for index, first in repeated_ids(shot.id for shot in self.shots):
            raise PydanticCustomError(
                "repeated_id",
                "shots {first} and {second} have the same id '{id}'",
                {"first": first + 1, "second": index + 1, "id": self.shots[index].id},
            )
        return self


def repeated_ids(ids: Iterable[str]) -> list[tuple[int, int]]:
    """Where an id is used again: pairs of that position and the id's first one, from 0."""
    firsts: dict[str, int] = {}
    return [(n, first) for n, name in enumerate(ids) if (first := firsts.setdefault(name, n)) != n]


def slug(title: str) -> str:
    """A folder name for a title.

    Letters and digits of any script in lower case, everything else as single hyphens; at most 80 bytes in UTF-8, never
    empty, never a path, a hidden file or a device. Different titles may give the same name.
    """
    text = unicodedata.normalize("NFKC", title).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text)
    name = "-".join(kept.split())
    name = name.encode()[:_MAX_FOLDER_BYTES].decode(errors="ignore").strip("-")
    if not name:
        return "film"
    return f"{name}-film" if name in _DEVICES else name
