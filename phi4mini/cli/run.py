"""run: one prompt, one answer. The prompt is the argument, then each -f file, then what is piped in."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from phi4mini.cli.common import argument_text, open_model, piped, put, put_json, read_json, read_text, say
from phi4mini.cli.options import command, engine_options, json_option, sampling, sampling_options
from phi4mini.errors import BadInput


@command()
@click.argument("prompt", required=False)
@click.option("-f", "--file", "files", multiple=True, help="Add a file's text to the prompt; may be repeated.")
@click.option("-sys", "--system", help="System message.")
@click.option("--tools", help="JSON file with a list of tools in OpenAI's form.")
@click.option("--raw", is_flag=True, help="Continue the text itself, without a chat format.")
@click.option("--stats", is_flag=True, help="Print speed and token counts to stderr.")
@engine_options
@sampling_options
@json_option
def run(
    prompt: str | None,
    files: tuple[str, ...],
    system: str | None,
    tools: str | None,
    raw: bool,
    stats: bool,
    as_json: bool,
    **values: Any,
) -> int | None:
    """Answer one prompt. PROMPT, files and stdin are joined by blank lines; the answer goes to stdout."""
    text = _prompt(prompt, files, raw)
    listed = read_json(tools) if tools is not None else None
    if raw and (system is not None or listed is not None):
        raise BadInput("--raw continues a text: --system and --tools have no place in it")
    chosen = sampling(values)
    with open_model(values) as model:
        if raw:
            stream: Any = model.stream_generate(text, **chosen)
        else:
            messages = [] if system is None else [{"role": "system", "content": argument_text(system, "--system")}]
            stream = model.stream([*messages, {"role": "user", "content": text}], listed, **chosen)
        with stops_on_interrupt(stream.stop):
            for piece in stream:
                if isinstance(piece, str) and not as_json:
                    put(piece)
        result = stream.result
        made = result if raw else result.generation
        if as_json:
            put_json(answer_json(result, model.name))
        else:
            _finish(result, made, model.engine.ctx)
        if stats:
            say(speed(made))
    return 130 if made.finish_reason == "abort" else None


def _prompt(prompt: str | None, files: tuple[str, ...], raw: bool) -> str:
    """Argument, files and stdin, joined by blank lines. Their last line ends are cut, but for those of `raw`."""
    parts = [] if prompt is None else [argument_text(prompt, "the prompt")]
    read = list(files)
    if "-" not in files and (piped() or not (parts or files)):
        read.append("-")
    for text in map(read_text, read):
        kept = text if raw else text.rstrip("\r\n")
        parts += [kept] if kept else []
    joined = "\n\n".join(parts)
    if not joined or not (raw or joined.strip()):
        raise BadInput("the prompt is empty: give it as an argument, with -f FILE, or on stdin")
    return joined


def _finish(result: Any, made: Any, ctx: int) -> None:
    """Print what the text does not show: tool calls as JSON lines, and why the answer was cut."""
    from phi4mini.chat.tools import calls_to_json

    if made.text and not made.text.endswith("\n"):
        put("\n")
    for call in calls_to_json(getattr(result, "tool_calls", ())):
        put(f"{call}\n")
    if made.finish_reason == "length":
        use = made.usage
        full = use.prompt_tokens + use.completion_tokens >= ctx
        why = f"the context of {ctx} tokens is full" if full else "-n allows more"
        say(f"phi4mini: the answer was cut after {use.completion_tokens} tokens; {why}")


def answer_json(result: Any, model: str) -> dict[str, Any]:
    """A `Reply` or `Generation` as one JSON object."""
    made = getattr(result, "generation", result)
    answer: dict[str, Any] = {"model": model}
    if made is not result:
        answer |= {"content": result.content, "tool_calls": [call.to_openai() for call in result.tool_calls]}
    else:
        answer["text"] = made.text
    use = made.usage
    return answer | {
        "finish_reason": result.finish_reason,
        "usage": {
            "prompt_tokens": use.prompt_tokens,
            "completion_tokens": use.completion_tokens,
            "cached_tokens": use.cached_tokens,
        },
        "seed": made.seed,
        "timings": {"prefill_seconds": made.timings.prefill_seconds, "decode_seconds": made.timings.decode_seconds},
    }


def speed(made: Any) -> str:
    """One line for prompt and answer: tokens and tokens a second; and the seed."""
    use, time = made.usage, made.timings
    computed, more = use.prompt_tokens - use.cached_tokens, use.completion_tokens - 1
    prefill = f"{computed / time.prefill_seconds:.1f} tok/s" if time.prefill_seconds else "-"
    decode = f"{more / time.decode_seconds:.1f} tok/s" if more > 0 and time.decode_seconds else "-"
    return (
        f"prompt {use.prompt_tokens} tokens ({use.cached_tokens} cached) {prefill} | "
        f"answer {use.completion_tokens} tokens {decode} | seed {made.seed}"
    )


@contextmanager
def stops_on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop`, which ends the answer after the current step; the second interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
