"""The base of every API model: camelCase on the wire, unknown fields refused, attribute docstrings as descriptions.

Owns how the models behave. Does not own any field.
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of the AsyncPPOJob API: immutable, camelCase in manifests, snake_case in Python."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
