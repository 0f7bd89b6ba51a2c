"""`Form`: what an answer must look like, given as a JSON schema, a regular expression or a Lark grammar.

Knows neither a tokenizer nor llguidance; `grammars.py` compiles a form to a constraint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    from phi4mini.grammar.schema_lenient import CheckCompiles

_WORDS = {"json_schema": "the schema", "regex": "the pattern", "lark": "the grammar"}


class BadForm(BadInput):
    """The form of the answer cannot be used; the tools of the same request are not at fault."""


@dataclass(frozen=True)
class Form:
    """A form and its kind. `strict`: a schema keyword that cannot be enforced is refused instead of left out."""

    kind: Literal["json_schema", "regex", "lark"]
    value: Any
    strict: bool = True

    @property
    def what(self) -> str:
        """The name of the form in error messages."""
        return _WORDS[self.kind]

    def part(self, compiles: CheckCompiles, dropped: list[str]) -> Mapping[str, Any]:
        """The form as an entry of llguidance's `grammars` list. Raises BadInput.

        `compiles` raises UnsupportedSchema for a schema that llguidance refuses; the places that are left out of a
        schema that is not strict are added to `dropped`.
        """
        from phi4mini.grammar import regex_and_lark, schema, schema_lenient

        match self.kind:
            case "json_schema" if self.strict:
                return {"json_schema": schema.prepared(self.value)}
            case "json_schema":
                return {"json_schema": schema_lenient.lenient(self.value, compiles, dropped)}
            case "regex":
                return {"lark_grammar": regex_and_lark.regex(self.value)}
            case "lark":
                return {"lark_grammar": regex_and_lark.lark(self.value)}
        raise BadInput(f"a form of the kind {self.kind!r} is not known")
