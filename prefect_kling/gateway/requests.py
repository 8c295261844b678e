"""The body of `POST /video/generations`, field by field as on the wire (gateway.md, "Request body").

Unknown fields and loose types are refused: a misspelt field is money spent on the wrong clip. The rules that span
fields are in `rules`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from prefect_kling.gateway import rules
from prefect_kling.gateway.addresses import refusal
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import image_facts_of_base64, image_refusal

__all__ = [
    "DEFAULT_SECONDS",
    "MAX_CALLBACK_URL",
    "AspectRatio",
    "ElementInput",
    "ImageInput",
    "KeepOriginalSound",
    "Mode",
    "Model",
    "MultiPrompt",
    "OmniVideoRequest",
    "ReferType",
    "Seconds",
    "ShotType",
    "VideoInput",
]

Model = Literal["kling-video-o1", "kling-v3-omni"]
Mode = Literal["std", "pro"]
AspectRatio = Literal["16:9", "9:16", "1:1"]
ReferType = Literal["feature", "base"]
KeepOriginalSound = Literal["yes", "no"]
ShotType = Literal["customize", "intelligence"]

DEFAULT_SECONDS = 5
MAX_CALLBACK_URL = 2048


def _whole_seconds(value: str) -> str:
    if not (value.isascii() and value.isdigit()) or value.startswith("0"):
        raise PydanticCustomError(
            "whole_seconds", "{value} is not a string of whole seconds such as '5'", {"value": repr(value)}
        )
    return value


# Of any model, for Prefect's form, which makes a menu of it, and its server; the rules know which model takes which.
_LENGTHS = tuple(map(str, range(3, 16)))
# The pattern is for those who check by the schema; the sentence is the validator's.
Seconds = Annotated[
    str,
    StringConstraints(max_length=4),
    AfterValidator(_whole_seconds),
    Field(json_schema_extra={"pattern": "^[1-9][0-9]{0,3}$"}),
]


def _plain(schema: dict[str, Any]) -> None:
    """Fields that may be left out, without saying that they may be null too: Prefect's form has tabs for that.

    Its server still takes a null for what is not required, has no default and is no choice.
    """
    for field in schema.get("properties", {}).values():
        choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            del field["anyOf"]
            field.update(choices[0])
        if "default" in field and field["default"] is None:
            del field["default"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, json_schema_extra=_plain)


def _loopback(info: ValidationInfo) -> bool:
    return bool(isinstance(info.context, dict) and info.context.get("loopback"))


def _checked_url(value: str, info: ValidationInfo, *, https_only: bool = False) -> str:
    reason = refusal(value, loopback=_loopback(info), https_only=https_only)
    if reason is not None:
        raise PydanticCustomError(
            "address", "{value} cannot be used: {reason}", {"value": _short(value), "reason": reason, "rule": "9"}
        )
    return value


def _checked_image(value: str, info: ValidationInfo) -> str:
    if value.lower().startswith(("http:", "https:")):
        return _checked_url(value, info)
    try:
        reason = image_refusal(image_facts_of_base64(value))
    except InvalidMedia as error:
        reason = str(error)
    if reason is not None:
        raise PydanticCustomError(
            "image", "{value} cannot be used: {reason}", {"value": _short(value), "reason": reason, "rule": "10"}
        )
    return value


def _checked_callback(value: str, info: ValidationInfo) -> str:
    return _checked_url(value, info, https_only=True)


def _json_object(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PydanticCustomError("json", "it cannot be sent as JSON: {reason}", {"reason": str(error)}) from error
    return value


def _short(value: str) -> str:
    return repr(value if len(value) <= 120 else f"{value[:100]}… ({len(value):,} characters)")


class ImageInput(_Part):
    """One entry of `image_list`: a URL or Base64 of a JPEG or PNG; without a type it is a plain reference."""

    image_url: Annotated[str, AfterValidator(_checked_image)] = Field(
        title="Image URL", description="A URL, or Base64 of a JPEG or PNG."
    )
    type: Literal["first_frame", "end_frame"] | None = Field(
        default=None, description="The frame that the video starts or ends on. Empty: a reference."
    )


class VideoInput(_Part):
    """The one entry of `video_list`: `base` (also when left out) edits that video, `feature` refers to it."""

    video_url: Annotated[str, AfterValidator(_checked_url)] = Field(
        title="Video URL", description="Where the gateway finds the video."
    )
    refer_type: ReferType | None = Field(
        default=None, description="base edits that video, feature goes on in its style. Empty: base."
    )
    keep_original_sound: KeepOriginalSound | None = Field(default=None, description="Whether its sound is kept.")


class ElementInput(_Part):
    """One entry of `element_list`."""

    element_id: int = Field(title="Element id", description="Of an element stored at Kling.")


class MultiPrompt(_Part):
    """One shot of a `multi_shot` request: `index` counts from 1, `duration` is a string of whole seconds."""

    index: int = Field(description="Its place, from 1.")
    prompt: Annotated[str, StringConstraints(max_length=512)] = Field(
        description="What this part shows; 512 characters at most."
    )
    duration: Seconds = Field(description="Whole seconds of this part. The parts add up to the video's duration.")


class OmniVideoRequest(_Part):
    """A request for one video. Validating it applies every rule of gateway.md that can be checked before sending.

    Local addresses are refused, unless validated with `context={"loopback": True}`, for a gateway that itself runs on
    this machine.

    Raises:
        pydantic.ValidationError: one entry for each field that is wrong; rules across fields are collected into one
            entry of type `rules` whose context lists `(field, rule, message)`.
    """

    model: Model = Field(description="The model that makes it.")
    prompt: Annotated[str, StringConstraints(max_length=2500)] | None = Field(
        default=None,
        description="What to show, sent as written; needed but with multi_prompt. <<<image_1>>>, <<<video_1>>> and "
        "<<<element_1>>> stand for what the lists below hold.",
    )
    image_list: tuple[ImageInput, ...] | None = Field(
        default=None, strict=False, title="Images", description="References, and the frames it starts and ends on."
    )
    video_list: Annotated[tuple[VideoInput, ...], Field(max_length=1)] | None = Field(
        default=None, strict=False, title="Video", description="The one video that it edits or goes on from."
    )
    element_list: tuple[ElementInput, ...] | None = Field(
        default=None, strict=False, title="Elements", description="Elements stored at Kling, by id."
    )
    mode: Mode = Field(default="std", description="std makes 720p, pro makes 1080p.")
    duration: Seconds | None = Field(
        default=None,
        description=f"Whole seconds: 3 to 10 for kling-video-o1, 3 to 15 for kling-v3-omni. Empty: {DEFAULT_SECONDS}. "
        "An edit is as long as its video.",
        json_schema_extra={"enum": [*_LENGTHS]},
    )
    aspect_ratio: AspectRatio | None = Field(
        default=None,
        description="Shape of the picture. Needed unless there is a first frame or a base video.",
    )
    sound: Literal["on", "off"] | None = Field(
        default=None, description="Whether the model makes sound; not with a video. Empty: off."
    )
    multi_shot: bool | None = Field(
        default=None, description="Whether the model cuts it into several shots; kling-v3-omni only."
    )
    shot_type: ShotType | None = Field(
        default=None,
        description="With multi_shot: customize cuts it as multi_prompt says, intelligence as the model likes.",
    )
    multi_prompt: Annotated[tuple[MultiPrompt, ...], Field(min_length=1, max_length=6)] | None = Field(
        default=None, strict=False, description="With customize: 1 to 6 parts in place of the prompt."
    )
    callback_url: (
        Annotated[str, StringConstraints(max_length=MAX_CALLBACK_URL), AfterValidator(_checked_callback)] | None
    ) = Field(
        default=None,
        title="Callback URL",
        description="An https address that the gateway tells of the end. A studio with a callback address sets it.",
    )
    external_task_id: str | None = Field(
        default=None, title="External task id", description="A name of your own for it at the gateway."
    )
    watermark_info: Annotated[dict[str, Any], AfterValidator(_json_object)] | None = Field(
        default=None, title="Watermark", description="Passed on as it is."
    )

    @model_validator(mode="after")
    def _apply_rules(self) -> Self:
        broken = list(rules.broken(self))
        if broken:
            raise PydanticCustomError(
                "rules",
                "{text}",
                {
                    "text": "; ".join(f"{b.field}: {b.message}" for b in broken),
                    "broken": [(b.field, b.rule, b.message) for b in broken],
                },
            )
        return self

    @property
    def base_video(self) -> VideoInput | None:
        """The video this request edits, if any; a video without `refer_type` is one (gateway.md, rule 4)."""
        return next((v for v in self.video_list or () if v.refer_type in (None, "base")), None)

    @property
    def feature_video(self) -> VideoInput | None:
        """The video this request refers to, if any."""
        return next((v for v in self.video_list or () if v.refer_type == "feature"), None)

    def image(self, kind: Literal["first_frame", "end_frame"]) -> ImageInput | None:
        """The image of that type, if any."""
        return next((i for i in self.image_list or () if i.type == kind), None)

    @property
    def seconds(self) -> int | None:
        """What will be billed, in whole seconds; None for a base edit, which takes its input's length."""
        return None if self.base_video else int(self.duration or DEFAULT_SECONDS)

    def warnings(self) -> tuple[str, ...]:
        """What is odd about this request and yet sent, since sources disagree (gateway.md, "Warn, but send")."""
        return tuple(rules.warnings(self))

    def body(self) -> dict[str, Any]:
        """The JSON to send.

        `mode` and `duration` are always said, so that a default which moves at the gateway changes no bill. With a base
        video `duration` and `aspect_ratio` are left out: upstream ignores them.
        """
        body = self.model_dump(mode="json", exclude_none=True)
        if self.base_video:
            body.pop("duration", None)
            body.pop("aspect_ratio", None)
        else:
            body.setdefault("duration", str(DEFAULT_SECONDS))
        return body
