"""How values are taken as people write them: switches by word, numbers that came from variables as text.

Shared by the models of a document. Nothing is guessed: what means nothing is refused with words for its author.
"""

# No `from __future__ import annotations` here: pydantic and Prefect read these annotations.
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

__all__ = ["Address", "Written", "in_one_word", "number", "on_off", "whole", "yes_no"]

_MAX_ADDRESS = 4096


class Written(BaseModel):
    """A part of a document: it has the fields that it has, and does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def on_off(value: Any) -> Any:
    """`on` or `off`, where somebody wrote true or false."""
    return {True: "on", False: "off", "true": "on", "false": "off"}.get(value, value) if in_one_word(value) else value


def yes_no(value: Any) -> Any:
    """`yes` or `no`, where somebody wrote true or false."""
    return {True: "yes", False: "no", "true": "yes", "false": "no"}.get(value, value) if in_one_word(value) else value


def in_one_word(value: Any) -> bool:
    """Whether a value may be a word for a switch."""
    # 1 == True in Python, and `sound: 1` is not what anybody means.
    return isinstance(value, bool | str)


def whole(value: Any) -> Any:
    """A whole number, and nothing that would be rounded to one."""
    # A number that comes from a variable has to stand in quotes in YAML, and so arrives as text.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool | float | str):
        raise PydanticCustomError("whole", "a whole number is needed")
    return value


def number(value: Any) -> Any:
    """A number with a fraction; true is none."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "a number is needed")
    return value


Address = Annotated[str, StringConstraints(max_length=_MAX_ADDRESS)]
