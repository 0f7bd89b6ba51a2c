"""What a text must look like, as a value: any of the ways to say it, and how strictly it is meant.

Knows neither a tokenizer nor llguidance; `grammars.py` makes a constraint of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    from phi4mini.grammar.schema_mending import Compiles

_WORDS = {"json_schema": "the schema", "regex": "the pattern", "lark": "the grammar"}


class BadForm(BadInput):
    """What is wrong is the form of the text, not the tools beside it."""


@dataclass(frozen=True)
class Form:
    """`strict`: a keyword of a schema that cannot be followed is refused, not left out."""

    kind: Literal["json_schema", "regex", "lark"]
    value: Any
    strict: bool = True

    @property
    def what(self) -> str:
        """How errors call it."""
        return _WORDS[self.kind]

    def part(self, compiles: Compiles, dropped: list[str]) -> Mapping[str, Any]:
        """One of llguidance's grammars. Raises BadInput; what is left out of a schema is added to `dropped`."""
        from phi4mini.grammar import lark, schema, schema_mending

        match self.kind:
            case "json_schema" if self.strict:
                return {"json_schema": schema.prepared(self.value)}
            case "json_schema":
                return {"json_schema": schema_mending.mended(self.value, compiles, dropped)}
            case "regex":
                return {"lark_grammar": lark.regex(self.value)}
            case "lark":
                return {"lark_grammar": lark.lark(self.value)}
        raise BadInput(f"a form of the kind {self.kind!r} is not known")
