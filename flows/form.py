"""What the flows' parameters are in Prefect's Custom-run form, and in the schema by which its API refuses a run.

The form has tabs for whatever may be null, so that an unsaid parameter is an empty value where that cannot be mistaken;
Python callers may still say None. Descriptions are those of the flows' docstrings, word for word.
"""

# No `from __future__ import annotations` here: Prefect reads these annotations to draw its form.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from prefect_kling.blocks import KlingStudio
from prefect_kling.storyboard.document import Storyboard

__all__ = ["NO_VARIABLES", "AtOnce", "Budget", "Document", "Edition", "Rows", "ShotIds", "Studio", "Variables"]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Says more to the form and the API than a type does; what Python callers get wrong, the flow tells them itself."""

    said: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), **self.said}


Document = Annotated[str, _Drawn({"title": "Path or URL", "minLength": 1})] | Storyboard
# With a slug beside its choices the form shows the picker of blocks, and none picked is null.
Studio = Annotated[KlingStudio | None, _Drawn({"block_type_slug": "kling-studio"})]
Variables = dict[str, str] | SkipJsonSchema[None]
Edition = str | SkipJsonSchema[None]
ShotIds = Sequence[str] | SkipJsonSchema[None]
# Nothing is not the same as no limit: where money is limited, nobody should have to know which of them 0 is.
Budget = (
    Annotated[float, _Drawn({"title": "USD", "exclusiveMinimum": 0})]
    | Annotated[None, _Drawn({"title": "As the studio has it"})]
)
Rows = (
    Annotated[str, _Drawn({"title": "Path or URL", "minLength": 1})]
    | Annotated[list[dict[str, Any]], _Drawn({"title": "Rows", "minItems": 1})]
)
AtOnce = Annotated[int, _Drawn({"minimum": 1})]

NO_VARIABLES: Final[dict[str, str]] = {}
