"""Structured output: which token may come next, so that an answer fits a JSON schema, a pattern, a grammar or a tool.

`Grammars` belongs to one model and makes a fresh constraint for each request; llguidance does the work and is loaded
with the first one. Promises that what cannot be followed is a `BadInput` before a token is made, and that a
constraint depends on nothing but its own grammar and the ids it was given. Knows no logits and samples nothing.
"""

from __future__ import annotations

from phi4mini.grammar.answer_form import BadForm, Form
from phi4mini.grammar.grammars import Constraint, Grammars

__all__ = ["BadForm", "Constraint", "Form", "Grammars"]
