"""The key of a purchase: the same video wanted again has the same key (design.md, "Life of a shot", 2).

A key is its version and the sha256 of the canonical body as it would be sent, without `callback_url`, with each URL or
Base64 replaced by what it stands for. The take is added at the end, so that takes of one shot can be told to be that.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

__all__ = ["KEY_VERSION", "Identity", "Place", "base_key", "canonical", "key_of"]

KEY_VERSION: Final = "k1"

Place = tuple[str | int, ...]
"""Where a URL stands in the body, such as `("video_list", 0, "video_url")`."""

Identity = tuple[Literal["file", "clip", "last-frame", "url"], str]
"""What a URL stands for: a file's or an upstream clip's sha256, with what is taken from it; or a URL's own text."""

_ADDRESSES: Final = (("image_list", "image_url"), ("video_list", "video_url"))


def canonical(body: Mapping[str, Any], identities: Mapping[Place, Identity] | None = None) -> dict[str, Any]:
    """The body with every address replaced by what it stands for, which is also what a ledger keeps of it.

    Args:
        body: as `OmniVideoRequest.body()` gives it.
        identities: by place; an address without one was written by the user and stands for itself.
    """
    found = copy.deepcopy(dict(body))
    found.pop("callback_url", None)
    known = dict(identities or {})
    for field, name in _ADDRESSES:
        for number, entry in enumerate(found.get(field) or ()):
            kind, value = known.get((field, number, name)) or _of_itself(entry[name])
            entry[name] = {kind: value}
    return found


def base_key(body: Mapping[str, Any]) -> str:
    """The key, but for the take, of a canonical body."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"{KEY_VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


def key_of(base: str, take: int) -> str:
    """The key of one take."""
    return f"{base}#{take}"


def _of_itself(address: str) -> tuple[str, str]:
    if address.lower().startswith(("http:", "https:")):
        return "url", address
    try:
        return "file", hashlib.sha256(base64.b64decode(address, validate=True)).hexdigest()
    except binascii.Error:
        return "url", address
