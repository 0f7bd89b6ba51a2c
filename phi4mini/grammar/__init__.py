"""Structured output: which token may come next, so that an answer fits a JSON schema, a pattern, a grammar or a tool.

`Grammars` belongs to one model and compiles a constraint for each request; llguidance does the work and is imported
with the first constraint. Promises that a grammar which cannot be enforced is a `BadInput` before a token is generated,
and that a constraint depends only on its grammar and the ids it accepted. Knows no logits and samples nothing.
"""

from __future__ import annotations

from phi4mini.grammar.answer_form import BadForm, Form
from phi4mini.grammar.grammars import Grammars

__all__ = ["BadForm", "Form", "Grammars"]
