"""docs/python.md prints the tables of arguments, all of them and nothing else; `python -m` prints them anew."""

from __future__ import annotations

from pathlib import Path

from phi4mini.transformers_api.tables import ABSENT, METHODS, Rule

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
AND_THOSE_OF = {  # a method that takes all that another takes; its table has the rest
    "AutoModelForCausalLM.from_pretrained": "AutoConfig.from_pretrained",
    "AutoTokenizer.from_pretrained": "AutoConfig.from_pretrained",
    "pipe": "generate",
    "pipeline": "AutoModelForCausalLM.from_pretrained",
}
TITLES = {
    "AutoConfig.from_pretrained": "Every `from_pretrained`",
    "AutoModelForCausalLM.from_pretrained": "`AutoModelForCausalLM.from_pretrained`, besides",
    "AutoTokenizer.from_pretrained": "`AutoTokenizer.from_pretrained`, besides",
    "pipeline": "`pipeline`, besides what `AutoModelForCausalLM.from_pretrained` takes",
    "pipe": "`pipe(...)`, besides what `generate` takes (`pipeline` takes them too, as defaults)",
    "tokenizer": "`tokenizer(...)` and `tokenizer.encode`",
    "apply_chat_template": "`tokenizer.apply_chat_template`",
    "decode": "`tokenizer.decode` and `batch_decode`",
    "generate": "`model.generate` and `GenerationConfig`",
    "model": "`model(...)`",
}


def rows(method: str) -> list[tuple[str, Rule]]:
    """(names with one rule, rule), in the order of the table."""
    inherited = METHODS.get(AND_THOSE_OF.get(method, ""), {})
    grouped: dict[str, tuple[list[str], Rule]] = {}
    for name, rule in METHODS[method].items():
        if inherited.get(name) != rule:
            grouped.setdefault(repr(rule), ([], rule))[0].append(f"`{name}`")
    return [(", ".join(names), rule) for names, rule in grouped.values()]


def fate(rule: Rule) -> str:
    if rule.fate != "refused" or not rule.neutral:
        return rule.fate
    return "only " + ", ".join(f"`{value!r}`" for value in rule.neutral)


def markdown() -> str:
    """All tables as the page has them."""
    lines: list[str] = []
    for method, title in TITLES.items():
        lines += [f"{title}:", "", "| argument | here | |", "|---|---|---|"]
        lines += [f"| {names} | {fate(rule)} | {rule.why} |" for names, rule in rows(method)]
        lines.append("")
    lines += ["Methods and attributes that are not here (`hasattr` is False, and asking says why):", ""]
    lines += ["| | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in ABSENT.items()]
    return "\n".join(lines) + "\n"


def test_the_page_prints_the_tables():
    assert set(TITLES) == set(METHODS)
    assert markdown() in PAGE.read_text(encoding="utf-8")


def test_a_rule_says_something_and_only_refusals_have_neutral_values():
    for rules in METHODS.values():
        for rule in rules.values():
            assert rule.why and "\n" not in rule.why and "|" not in rule.why
            assert rule.fate in ("used", "no effect", "refused") and (rule.fate == "refused" or not rule.neutral)


if __name__ == "__main__":
    print(markdown(), end="")
