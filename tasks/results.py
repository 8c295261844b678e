"""What the tasks hand on to each other.

Prefect draws an arrow wherever an object that one task returned turns up in another's arguments, down to the values
inside. So these hold nothing but values that were made by the task itself: no field of a request, no default.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Checked", "Film", "Generated", "Hosted", "Still", "Submitted"]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Submitted(_Result):
    """A generation that was bought: the number of its row in the ledger, and the gateway's task id."""

    purchase: int
    task_id: str


class Generated(_Result):
    """A completed generation, likewise."""

    purchase: int
    task_id: str


class Still(_Result):
    """A frame of a clip, in storage: its location and its media type."""

    path: str
    media_type: str


class Checked(_Result):
    """What is wrong with a clip, a sentence each; nothing where it passes. A list: there is only one empty tuple."""

    faults: list[str]


class Hosted(_Result):
    """A file that the gateway hosts: its URL, gone after 7 days."""

    url: str


class Film(_Result):
    """A joined film in storage.

    Attributes:
        path: its location: an absolute path or a URL of the studio's storage.
        frames, seconds, width, height, bytes, sha256: what it is, as verified before it got its name.
        method: `copy`, `normalise` or `encode`.
        reason: why that method, in words.
        sound: what there is to say about its loudness; empty where nothing is.
        beside: where what lies beside it is, by the end of its name: `poster.jpg`, `srt`, `manifest.json` …
    """

    path: str
    frames: int
    seconds: float
    width: int
    height: int
    bytes: int
    sha256: str
    method: str
    reason: str
    sound: str
    beside: dict[str, str]
