"""What can be set on the simulator: money, time, faults, and how its files are made."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prefect_kling.simulator.faults import parse_faults

__all__ = ["MEDIA_MARKER", "MediaSpec", "SimulatorConfig"]

MEDIA_MARKER = "media:"
"""An `external_task_id` that starts so carries the request's own `MediaSpec`: `media:codec=hevc,audio=short`."""

WEEK = 7 * 24 * 3600.0


class MediaSpec(BaseModel):
    """How a clip's file is made. The defaults are what the gateway most likely gives (gateway.md, "Answers").

    As text, for a command line or for one request's `external_task_id` (after `media:`): `codec=hevc,tag=hev1`.

    Attributes:
        codec: `h264` or `hevc`.
        tag: the sample entry: `avc1`, or `hvc1` or `hev1` for HEVC; None for the codec's usual one.
        options: further encoder options as `name=value` joined by `:`, such as `bf=0:keyint=48`.
        fps: frames per second.
        vfr: leaves out frames here and there, so that spacing varies.
        size: `WIDTHxHEIGHT` instead of what mode and aspect ratio ask for.
        silent_track: a track of silence where sound is off.
        audio: `natural` runs some milliseconds over the picture, `short` ends half a second early, `long` runs half a
            second over.
        hidden_frames: so many frames at the start are in the file but hidden by an edit list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: Literal["h264", "hevc"] = "h264"
    tag: Literal["avc1", "hvc1", "hev1"] | None = None
    options: Annotated[str, Field(pattern=r"^([\w-]+=[^:=]+(:[\w-]+=[^:=]+)*)?$")] = ""
    fps: Annotated[int, Field(ge=1, le=120)] = 24
    vfr: bool = False
    size: Annotated[str, Field(pattern=r"^[1-9]\d{1,4}x[1-9]\d{1,4}$")] | None = None
    silent_track: bool = False
    audio: Literal["natural", "short", "long"] = "natural"
    hidden_frames: Annotated[int, Field(ge=0, le=1000)] = 0

    @classmethod
    def parse(cls, text: str, defaults: MediaSpec | None = None) -> Self:
        """Reads `name=value` pairs joined by commas; what they do not name stays as in `defaults`.

        Raises:
            ValueError: a name or a value is unknown; the text says which.
        """
        fields = dict((defaults or cls()).model_dump())
        for pair in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"media: {pair!r} is not name=value")
            fields[name.strip()] = value.strip()
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"media: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    @property
    def pixels(self) -> tuple[int, int] | None:
        """`size` as numbers, made even as 4:2:0 wants it."""
        if self.size is None:
            return None
        width, height = (int(side) // 2 * 2 for side in self.size.split("x"))
        return width, height


class SimulatorConfig(BaseModel):
    """One simulator. Everything has a default that suits a demonstration; tests usually shorten `generation_seconds`.

    Attributes:
        seed: decides pictures, faults and jitter; None for another one at each start. Two simulators with the same
            seed and clock give the same clips for the same requests, whatever order they arrive in.
        faults: what goes wrong, in the language of `prefect_kling.simulator.faults`.
        balance: USD in the account at the start.
        api_key: the only key that is accepted; None accepts any that is not empty.
        generation_seconds: from create to `completed`; rendering happens within it and prolongs it where it is slower.
        jitter: up to this fraction of `generation_seconds` is added or taken, by seed.
        concurrency: tasks that may run at once; one more is answered 429 with upstream code 1303. None for no limit.
        retention_seconds: how long results and hosted files live (gateway.md, "Answers": 7 days).
        media: how files are made, unless a request says otherwise.
        barcode: stamps task, shot and frame number into the picture (`prefect_kling.simulator.barcode`).
        shrink: divides the sides of clips, for tests that do not look at the picture; input checks allow for it.
        draw: whether each clip is drawn. For measuring what is around them, "once" draws one clip of a kind for all
            tasks that ask for such a one; with False each is the same few bytes, which nobody can play.
        late_seconds: how long a late callback is late.
        slow_seconds: how long a slow download takes.
        workers: clips rendered at once; None for one a core.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int | None = None
    faults: str = ""
    balance: Annotated[Decimal, Field(ge=0, decimal_places=6)] = Decimal(100)
    api_key: Annotated[str, Field(min_length=1)] | None = None
    generation_seconds: Annotated[float, Field(ge=0)] = 4.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    concurrency: Annotated[int, Field(ge=1)] | None = None
    retention_seconds: Annotated[float, Field(gt=0)] = WEEK
    media: MediaSpec = MediaSpec()
    barcode: bool = False
    shrink: Literal[1, 2, 4, 8] = 1
    draw: bool | Literal["once"] = True
    late_seconds: Annotated[float, Field(ge=0)] = 5.0
    slow_seconds: Annotated[float, Field(ge=0)] = 2.0
    workers: Annotated[int, Field(ge=1)] | None = None

    @field_validator("faults")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse_faults(value)
        return value
