"""What a prompt shows: its light, its place and the things in it, read from its words. Pure.

A scene is also what one clip hands on to the next: `continues` and `feature` keep what the new prompt does not change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Scene", "chance_of", "next_scene", "read_scene"]

_LIGHTS = {
    "dawn": "dawn sunrise morning daybreak early first",
    "dusk": "dusk sunset evening golden twilight amber autumn",
    "night": "night midnight moon moonlight moonlit star starry dark nocturnal lamplight",
    "storm": "storm stormy thunder lightning tempest gale hurricane rain rainy raining",
    "overcast": "overcast fog foggy mist misty grey gray cloudy winter snow snowing snowy",
    "day": "day noon sunny bright afternoon summer spring sunlit daylight clear",
}
_PLACES = {
    "sea": "sea ocean coast coastal lighthouse harbour harbor beach cliff wave island ship boat bay shore sail lake",
    "forest": "forest wood woodland tree pine jungle leaf fox deer bear",
    "city": "city street skyline skyscraper downtown urban rooftop neon traffic bridge office",
    "desert": "desert dune sand canyon mars",
    "mountains": "mountain alps peak summit valley hill hillside meadow village field farm",
    "interior": (
        "inside indoor interior room stair stairs staircase kitchen studio workshop corridor hall desk table bottle cup"
    ),
}
_THINGS = {
    "lighthouse": "lighthouse beacon",
    "boat": "boat ship sail sailboat yacht vessel",
    "figure": "man woman keeper he she person boy girl walker hiker dancer child people traveller rider",
    "lamp": "lamp lantern candle torch",
    "rain": "storm stormy rain rainy raining tempest thunder gale",
    "snow": "snow snowing snowy winter blizzard",
    "stars": "night midnight star starry moonlit",
    "birds": "bird gull seagull seagulls swallow flock",
}
_TINTS = {
    "red": (200, 40, 40), "crimson": (180, 20, 50), "orange": (240, 130, 40), "amber": (250, 170, 50),
    "gold": (240, 190, 80), "yellow": (240, 210, 70), "green": (50, 150, 80), "emerald": (20, 150, 100),
    "teal": (30, 130, 135), "turquoise": (60, 190, 190), "blue": (40, 90, 200), "indigo": (60, 50, 150),
    "purple": (120, 60, 160), "violet": (130, 70, 190), "pink": (240, 130, 170), "magenta": (210, 50, 150),
    "sepia": (150, 110, 70),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What there is to see.

    Attributes:
        light: a key of the palettes: dawn, day, dusk, night, storm, overcast.
        place: sea, forest, city, desert, mountains, interior.
        things: what stands in it, such as `lighthouse` or `rain`, sorted.
        tint: a colour that the prompt names, 0 to 255 each.
        seed: decides the lie of the land, the clouds and all else.
    """

    light: str
    place: str
    things: tuple[str, ...]
    tint: tuple[int, int, int] | None
    seed: int

    def as_json(self) -> dict[str, Any]:
        """For a clip's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """The inverse of `as_json`."""
        tint = data["tint"]
        return cls(data["light"], data["place"], tuple(data["things"]), tuple(tint) if tint else None, data["seed"])


def seed_of(*parts: object) -> int:
    """A 48-bit number that depends on every part."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:6], "big")


def chance_of(*parts: object) -> np.random.Generator:
    """A source of chance that depends on every part and on nothing else."""
    return np.random.default_rng(seed_of(*parts))


def _words(prompt: str) -> list[str]:
    words = re.findall(r"[a-zà-ÿ]+", prompt.lower())
    return [word for word in words for word in {word, word.removesuffix("s")}]


def _first(words: list[str], table: dict[str, str]) -> str | None:
    meanings = {word: meaning for meaning, listed in table.items() for word in listed.split()}
    return next((meanings[word] for word in words if word in meanings), None)


def read_scene(prompt: str, identity: str) -> Scene:
    """The scene of a prompt by itself; what it does not say is drawn by `identity`, alike for alike prompts' words."""
    words = _words(prompt)
    by_text = chance_of("prompt", prompt)
    light = _first(words, _LIGHTS) or str(by_text.choice(["dawn", "dusk", "day", "night", "overcast"]))
    place = _first(words, _PLACES) or str(by_text.choice(["mountains", "sea", "desert", "forest"]))
    return Scene(light, place, _things(words, light), _tint(words), seed_of("scene", identity))


def next_scene(before: Scene, prompt: str, identity: str, *, same_ground: bool) -> Scene:
    """The scene of a clip that follows another: what the prompt does not name stays.

    Args:
        before: the scene it follows.
        prompt: of the new clip.
        identity: of the new clip.
        same_ground: the camera stays, as on a first frame; else it is a new view in the same look.
    """
    words = _words(prompt)
    place = _first(words, _PLACES) or before.place
    light = _first(words, _LIGHTS) or before.light
    ground = same_ground and place == before.place
    kept = before.things if ground else tuple(t for t in before.things if t in ("rain", "snow", "stars"))
    things = tuple(sorted({*kept, *_things(words, light)} - ({"rain"} if light in ("day", "dawn") else set())))
    seed = before.seed if ground else seed_of("scene", identity)
    return replace(before, light=light, place=place, things=things, tint=_tint(words) or before.tint, seed=seed)


def _things(words: list[str], light: str) -> tuple[str, ...]:
    found = {thing for thing, listed in _THINGS.items() if set(words) & set(listed.split())}
    if light == "night":
        found.add("stars")
    return tuple(sorted(found - ({"stars"} if light in ("day", "storm") else set())))


def _tint(words: list[str]) -> tuple[int, int, int] | None:
    return next((_TINTS[word] for word in words if word in _TINTS), None)
