"""The JSON Schema of storyboards as editors need it: what a file may hold before its variables are filled in.

It is made from the models, and differs from pydantic's own where a file may say more than a model holds: `on`, `off`,
`yes` and `no` may be true and false, music may be its file alone, and what is not free text may be a `{{ variable }}`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from prefect_kling.storyboard.document import Check, Music, Storyboard

__all__ = ["storyboard_schema"]

Schema = dict[str, Any]

_SWITCHES = [True, False, "yes", "no", "on", "off"]
_PAIRS = ({"on", "off"}, {"yes", "no"}, {"clips", "none"})
_VARIABLE: Schema = {
    "title": "Variable",
    "description": 'Text that is filled in before it is read, in quotes: "{{ name }}".',
    "type": "string",
    "pattern": r"\{\{[\s\S]*\}\}",
}
_ABOUT = ("title", "description", "default")


def storyboard_schema() -> Schema:
    """The schema, draft 2020-12."""
    made = Storyboard.model_json_schema(schema_generator=_Generator)
    definitions = {name: _definition(part) for name, part in made.pop("$defs").items()}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": "urn:prefect-kling:storyboard",
        **_definition(made),
        "$defs": {**definitions, "Variable": _VARIABLE},
    }


class _Generator(GenerateJsonSchema):
    """Tells defaults that are made anew for each document, too."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Any = schema.get("default_factory")
        if factory is None:
            return super().get_default_value(schema)
        made = factory()
        return {} if isinstance(made, BaseModel) else made


def _definition(part: Schema) -> Schema:
    properties = {name: _property(field) for name, field in part["properties"].items()}
    return {**part, "properties": properties}


def _property(field: Schema) -> Schema:
    # The name says it already, and editors would show it as a heading.
    about = {word: field[word] for word in _ABOUT if word in field and word != "title"}
    return {**about, **_value({word: said for word, said in field.items() if word not in _ABOUT})}


def _value(said: Schema) -> Schema:
    """What a file may hold where the model holds `said`."""
    if said.get("$ref") == f"#/$defs/{Check.__name__}":
        return _or_variable(said, {"type": "boolean"})
    if said.get("$ref") == f"#/$defs/{Music.__name__}":
        return {"anyOf": [said, {"type": "string"}]}
    if "anyOf" in said:
        return {"anyOf": [_value(branch) for branch in said["anyOf"]]}
    match said.get("type"):
        case "array":
            return {**said, "items": _value(said["items"])}
        case "object":
            # Names may be of any script, which the regular expressions of most editors do not know.
            kept = {word: bound for word, bound in said.items() if word != "patternProperties"}
            (each,) = said["patternProperties"].values()
            return {**kept, "additionalProperties": _value(each)}
        case "boolean":
            return _or_variable({"enum": _SWITCHES})
        case "integer" | "number":
            return _or_variable(said)
        case "string" if "enum" in said or "const" in said:
            words = said.get("enum", [said.get("const")])
            truths = [True, False] if any(pair <= {*words} for pair in _PAIRS) else []
            return _or_variable({"enum": [*words, *truths]})
        case "string" if "pattern" in said:
            return _or_variable(said)
    return said


def _or_variable(*branches: Schema) -> Schema:
    return {"anyOf": [*branches, {"$ref": "#/$defs/Variable"}]}
