"""tokenize and render: text and conversations as the token ids that the model sees. Needs no weights."""

from __future__ import annotations

from typing import Any

import click

from phi4mini.cli.common import argument_text, put, put_json, read_json, read_text
from phi4mini.cli.options import chat_format_option, command, json_option, model_option, offline_option
from phi4mini.errors import BadInput


@command()
@click.argument("text", required=False)
@model_option
@click.option("-f", "--file", "path", help="Read the text from a file; - is stdin.")
@click.option("--ids", is_flag=True, help="Print the ids alone, in one line.")
@click.option("--decode", is_flag=True, help="Print the text of ids: TEXT is ids.")
@click.option("--parse-special", is_flag=True, help="Read control tokens spelled in the text, as HF does.")
@chat_format_option
@offline_option
@json_option
def tokenize(
    text: str | None,
    model: str,
    path: str | None,
    ids: bool,
    decode: bool,
    parse_special: bool,
    chat_format: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Text (argument, -f or stdin) as token ids, one line a token: id, then the token's text in quotes."""
    from phi4mini.llm.model import load_tokenizer

    given = _one_text(text, path)
    tokenizer, _ = load_tokenizer(model, offline, chat_format)
    if decode:
        made = tokenizer.decode(_numbers(given))
        put_json({"text": made}) if as_json else put(made + "\n")
        return
    found = tokenizer.encode(given, parse_special)
    tokens = [tokenizer.token_text(id) for id in found]
    if as_json:
        put_json({"ids": found, "tokens": tokens, "count": len(found)}, indent=None)
    elif ids:
        put(" ".join(map(str, found)) + "\n")
    else:
        put("".join(f"{id:>7}  {token!r}\n" for id, token in zip(found, tokens, strict=True)))


def _one_text(text: str | None, path: str | None) -> str:
    if text is not None and path is not None:
        raise BadInput("text is given as an argument and as a file; give one of them")
    return read_text(path or "-") if text is None else argument_text(text, "the text")


def _numbers(text: str) -> list[int]:
    words = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
    bad = next((word for word in words if not word.isascii() or not word.isdigit()), None)
    if bad is not None:
        raise BadInput(f"{bad[:40]!r} is not a token id")
    return [int(word) for word in words]


@command()
@click.argument("path", default="-")
@model_option
@click.option("--ids", is_flag=True, help="Print ids instead of text.")
@click.option("--mask", is_flag=True, help="Print the loss mask: 1 for tokens that the assistant writes.")
@click.option("--no-generation-prompt", is_flag=True, help="Do not open the assistant's turn at the end.")
@click.option("--tools", help="JSON file with a list of tools in OpenAI's form.")
@chat_format_option
@offline_option
@json_option
def render(
    path: str,
    model: str,
    ids: bool,
    mask: bool,
    no_generation_prompt: bool,
    tools: str | None,
    chat_format: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """A conversation (PATH: a JSON file; default stdin) as the model sees it.

    The JSON is a list of messages, or an object with `messages` and, optionally, `tools`.
    """
    from phi4mini import chat
    from phi4mini.llm.model import load_tokenizer

    messages, listed = _conversation(read_json(path))
    if tools is not None:
        listed = read_json(tools)
    tokenizer, format = load_tokenizer(model, offline, chat_format)
    made = chat.render(messages, listed, not no_generation_prompt, tokenizer=tokenizer, format=format)
    if as_json:
        put_json({"text": made.text, "ids": made.ids, "mask": made.mask, "count": len(made.ids)}, indent=None)
        return
    if ids:
        put(" ".join(map(str, made.ids)) + "\n")
    if mask:
        put(" ".join(map(str, made.mask)) + "\n")
    if not ids and not mask:
        put(made.text + "\n")


def _conversation(value: Any) -> tuple[Any, Any]:
    if isinstance(value, dict):
        if "messages" not in value:
            raise BadInput("the object has no messages")
        return value["messages"], value.get("tools")
    return value, None
