"""Which format a model has: by the hash of its template, and by its control tokens."""

from __future__ import annotations

import pytest

from phi4mini.chat import format_of_template, format_of_tokenizer
from phi4mini.chat.templates.phi import Phi
from phi4mini.errors import BadInput
from tests.tokenizer.vocabularies import small

KNOWN_BY_HASH = ("phi", "phi-reasoning", "phi-3.5", "smollm")  # the official files; the others are read


def test_templates_are_recognised_and_others_are_not(templates):
    for name in KNOWN_BY_HASH:
        template = templates[name]
        assert format_of_template(template) == format_of_template(template.replace("\n", "\r\n")) == name
        assert format_of_template(template.replace("\n", "\\n") + "\n") == name
        assert format_of_template(template + "{{ 7 * 7 }}") is None
    assert format_of_template(None) is None


def test_format_by_the_tokens_there_are(phi, chatml):
    assert format_of_tokenizer(phi).name == "phi"
    for other in (chatml, small(control=()), small(control=(*Phi.tokens, "<|im_start|>")), small(control=Phi.needs)):
        with pytest.raises(BadInput, match="no chat format certain"):
            format_of_tokenizer(other)
