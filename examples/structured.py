"""Answers that have to fit: a JSON schema, and a pattern. Needs the extra `serve` (llguidance)."""

import json

import phi4mini

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "legs": {"type": "integer", "minimum": 0, "maximum": 8}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}
with phi4mini.load("demo", quant="bf16") as model:
    # The grammar leaves only those tokens that can still become an object of this shape. The model chooses among them.
    constraint = model.grammars.json_schema(SCHEMA)
    reply = model.chat("Describe a horse as JSON.", constraint=constraint, max_new_tokens=60)
    print(json.loads(reply.content))

    # The same for a pattern. Tools are held in the same way, where the model's chat format has them (docs/grammar.md).
    constraint = model.grammars.regex(r"[A-Z][a-z]+ \d{1,2}, \d{4}")
    print(model.chat("When did people first walk on the moon?", constraint=constraint, max_new_tokens=30).content)
