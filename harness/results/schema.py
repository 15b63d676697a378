"""The JSON Schema of the results file. `schema.json` beside this module is its text, for programs in any language."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import FloatSchema

from .file import RUN, SCHEMA


class _WithStrings(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: object) -> bool:
        return False  # it would be the field's name

    def float_schema(self, schema: FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a results file. A field that it does not name comes from a newer version."""
    found = RUN.json_schema(mode="serialization", schema_generator=_WithStrings)
    found["properties"]["schema"] = {"const": SCHEMA}
    return {"$schema": _WithStrings.schema_dialect, **found, "title": f"Results file of boltzbench, schema {SCHEMA}"}
