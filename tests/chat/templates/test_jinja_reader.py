"""Templates that are read and not run: what is read is what Jinja would write, and all that is not followed is None."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi4mini.chat.messages import Message
from phi4mini.chat.templates import format_named, format_names, format_of_template, format_read_from
from phi4mini.chat.templates.jinja_reader import TemplateText


class Generation(Extension):
    """HF's tag `generation`, which marks what is learned and writes nothing of its own."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# as HF transformers sets Jinja up
ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation])
TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["", "A", " B\n", "<|end|>"])), max_size=4
)
CONVERSATIONS = st.tuples(st.sampled_from([[], [("system", "S")], [("system", "")]]), TURNS).map(
    lambda two: [*two[0], *two[1]]
)


def jinja(template: str, turns: list[tuple[str, str]], prompt: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    made = ENVIRONMENT.from_string(template)
    return made.render(messages=messages, add_generation_prompt=prompt, eos_token="<|endoftext|>", bos_token="<s>")


def ours(name: str, turns: list[tuple[str, str]], prompt: bool) -> str:
    messages = [Message(role, content) for role, content in turns]
    return "".join(part.text for part in format_named(name).write(messages, (), prompt))


CHATML = "{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
LOOP = "{% for m in messages %}"
PHI3 = (
    LOOP + "{% if m.role == 'system' %}{{ '<|system|>\\n' ~ m.content ~ '<|end|>\\n' }}"
    "{% elif m.role == 'user' %}{{ '<|user|>\\n' ~ m.content ~ '<|end|>\\n' }}"
    "{% else %}<|assistant|>\n{{ m.content }}{{ '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
RELATIVES = {  # written for these tests; the forms are those of TRL, axolotl and of hand-written templates
    "TRL": (f"{LOOP}\n{CHATML}{{% endfor %}}{PROMPT.replace('%}{{', '%}' + chr(10) + '{{')}", "chatml"),
    "a default for the prompt": (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
        f"{LOOP}{CHATML}{{% endfor %}}{PROMPT}",
        "chatml",
    ),
    "text outside of quotes": (
        f"{LOOP}<|im_start|>{{{{ m['role'] }}}}\n{{{{ m.content }}}}<|im_end|>\n{{% endfor %}}{PROMPT}",
        "chatml",
    ),
    "a variable": (f"{LOOP}{{% set m = m %}}{CHATML}{{% endfor %}}{PROMPT}", None),
    "variables": (
        LOOP + "{%- set r = m['role'] -%} {%- set c = m.content -%}\n"
        "{{- '<|im_start|>' ~ (r) ~ '\\n' + (c + '<|im_end|>') ~ \"\\n\" -}}{% endfor %}" + PROMPT,
        "chatml",
    ),
    "a branch for each role": (
        LOOP
        + "".join(
            f"{{% {'if' if role == 'system' else 'elif'} m['role'] == '{role}' %}}"
            f"{{{{ '<|im_start|>{role}\\n' + m['content'] + '<|im_end|>\\n' }}}}"
            for role in ("system", "user", "assistant")
        )
        + "{% endif %}{% endfor %}"
        + PROMPT,
        "chatml",
    ),
    "generation markers": (
        f"{LOOP}{{% if m['role'] == 'assistant' %}}<|im_start|>assistant\n{{% generation %}}"
        "{{ m['content'] + '<|im_end|>\\n' }}{% endgeneration %}{% else %}"
        + CHATML
        + "{% endif %}{% endfor %}"
        + PROMPT,
        "chatml",
    ),
    "another default system turn": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
        f"{LOOP}{CHATML}{{% endfor %}}{PROMPT}",
        None,
    ),
    "SmolLM's before the loop": (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, "
        "trained by Hugging Face<|im_end|>\\n' }}{% endif %}" + LOOP + CHATML + "{% endfor %}" + PROMPT,
        "smollm",
    ),
    "trimmed content": (
        f"{LOOP}{CHATML.replace(')', '')}{{% endfor %}}{PROMPT}".replace("['content']", "['content'] | trim"),
        None,
    ),
    "stripped content": (f"{LOOP}{CHATML}{{% endfor %}}{PROMPT}".replace("['content']", "['content'].strip()"), None),
    "beginning of text": ("{{ bos_token }}" + LOOP + CHATML + "{% endfor %}" + PROMPT, None),
    "no line break after a turn": (f"{LOOP}{CHATML}{{% endfor %}}{PROMPT}".replace(" + '\\n'}}", "}}"), None),
    "no system turn": (f"{LOOP}{{% if m['role'] != 'system' %}}{CHATML}{{% endif %}}{{% endfor %}}{PROMPT}", None),
    "only the last turn": (f"{LOOP}{{% if loop.last %}}{CHATML}{{% endif %}}{{% endfor %}}{PROMPT}", None),
    "Llama 2": (LOOP + "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}", None),
    "Phi-3": (PHI3, "phi-3"),
    "Phi-3 and empty system turns": (
        PHI3.replace("'system' %}", "'system' and m.content %}", 1).replace(
            "{% else %}<", "{% elif m.role == 'assistant' %}<"
        ),
        "phi-3.5",
    ),
    "an else that takes empty system turns": (PHI3.replace("'system' %}", "'system' and m.content %}", 1), None),
    "Phi without line breaks": (PHI3.replace("\\n", "").replace("|>\n", "|>"), "phi"),
    "Phi-3 before July 2024": (
        "{{ bos_token }}"
        + LOOP
        + "{% if (m['role'] == 'user') %}{{'<|user|>' + '\\n' + m['content'] + '<|end|>' + '\\n' "
        "+ '<|assistant|>' + '\\n'}}{% elif (m['role'] == 'assistant') %}{{m['content'] + '<|end|>' + '\\n'}}"
        "{% endif %}{% endfor %}",
        None,
    ),
    "a macro": ("{% macro t(m) %}" + CHATML + "{% endmacro %}" + LOOP + "{{ t(m) }}{% endfor %}" + PROMPT, None),
    "text of a control character": (f"{LOOP}{CHATML}\x01{{% endfor %}}{PROMPT}", None),
    "nothing": ("", None),
    "half a tag": (f"{LOOP}{CHATML}{{% endfor", None),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_TP1_a_template_of_ones_own_is_the_format_that_it_writes(name):
    template, expected = RELATIVES[name]
    assert format_read_from(template) == format_read_from(template.replace("\n", "\r\n")) == expected


@pytest.mark.parametrize("name", [name for name, (_, expected) in RELATIVES.items() if expected])
@settings(max_examples=40, deadline=None)
@given(turns=CONVERSATIONS)
def test_TP1_and_jinja_writes_the_same(name, turns):
    template, format = RELATIVES[name]
    if turns or format != "smollm":
        assert ours(format, turns, True) == jinja(template, turns, True)


PIECES = [
    *("{%", "%}", "{{", "}}", "{#", "#}", "-", "+", "~", "'", " ", "\n", "\\n", "not ", " and ", " or ", "(", ")", "x"),
    *("{% else %}", "{% endif %}", "{% if add_generation_prompt %}", "{% if m['role'] == 'user' %}", "{% endfor %}"),
    *("m['content']", "m['role']", "messages", "loop.first", "{# c #}", "{% generation %}", "| trim", "eos_token"),
    *("{% set x = m['content'] %}", "{{ x }}", "'<|end|>'", "<|im_end|>", "!=", "==", "[0]", ".content", "1"),
]


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_TP1_a_template_changed_at_random_is_read_right_or_not_at_all(templates, data):
    """The promise itself: whatever a template has become, a text that is read from it is the text that it writes."""
    template = data.draw(st.sampled_from([*templates.values(), *(one for one, _ in RELATIVES.values())]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(template)))
        end = data.draw(st.integers(start, min(start + data.draw(st.sampled_from([0, 1, 3, 30])), len(template))))
        template = template[:start] + data.draw(st.sampled_from(PIECES)) + template[end:]
    turns = data.draw(CONVERSATIONS)
    prompt = data.draw(st.booleans())
    read = TemplateText(template).of(turns, prompt, eos_token="<|endoftext|>")
    if read is None:
        return
    with suppress(TemplateSyntaxError):  # what Jinja refuses to parse has no meaning to be missed
        assert read == jinja(template, turns, prompt)


@pytest.mark.parametrize(
    "part", ["(", "{% if m %}", "{{ ", "not ", "'", "[", "{{'a'}}", "{% for m in messages %}", "+"]
)
def test_TP1_a_hostile_template_is_read_in_bounded_time(part):
    began = time.perf_counter()
    for template in (part * 20_000, "{{ " + part * 20_000 + " }}", "{% if " + part * 20_000 + " %}", part * 10**7):
        assert format_read_from(template) is None
    assert time.perf_counter() - began < 20


NOT_FOLLOWED: set[str] = set()  # formats whose official template the reader cannot follow; known by their hash alone


def test_every_format_is_read_from_its_own_template(templates):
    assert set(templates) == set(format_names())
    for name, template in templates.items():
        assert format_read_from(template) == (None if name in NOT_FOLLOWED else name)
        assert name not in NOT_FOLLOWED or format_of_template(template) == name
