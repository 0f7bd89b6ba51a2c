"""docs/numbers.md: one token by hand, from the config and the stored formats: `python -m benchmarks.numbers` prints it,
and a test holds the page to it.
"""

from __future__ import annotations

import textwrap

from phi4mini.formats.format_table import FORMATS
from phi4mini.model.config import Config

READ, DOTS = 33.0, 927.0  # GB/s, GOPS: the example machine of the page, two Zen 4 cores
_DEPTHS = (0, 512, 8192, 32768, 131071)


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join([_head(), _weights(), _bytes(), _operations(), _roof(), _tail()])


def weight_bytes(name: str = "q4") -> int:
    """Bytes of all matrices that one token reads, in one format."""
    c, f = Config.phi4_mini(), FORMATS[name]
    layer = sum(f.matrix_bytes(rows, cols) for rows, cols in c.layer_shapes.values())
    return c.num_layers * layer + f.matrix_bytes(c.vocab_size, c.hidden_size)


def _head() -> str:
    c = Config.phi4_mini()
    why = """What one token of Phi-4-mini moves and computes, and what a machine can therefore do at most. The page is
        made from `phi4mini.model.config` and `phi4mini.formats.format_table` by `python -m benchmarks.numbers`; a test
        fails when the two differ."""
    shape = f"""Hidden {c.hidden_size:,}, intermediate {c.intermediate_size:,}, {c.num_layers} layers, {c.num_heads}
        query heads and {c.num_kv_heads} KV heads of {c.head_dim}, vocabulary {c.vocab_size:,}."""
    return f"# One token by hand\n\n{_prose(why)}\n\n{_prose(shape)}\n"


def _weights() -> str:
    c, f = Config.phi4_mini(), FORMATS["q4"]
    total = 0
    lines = ["## Weights", "", "| matrix | rows x columns | weights | bytes in q4 |", "|---|---|---|---|"]
    for name, (rows, cols) in c.layer_shapes.items():
        total += rows * cols
        lines.append(f"| {name} | {rows:,} x {cols:,} | {rows * cols:,} | {f.matrix_bytes(rows, cols):,} |")
    head = c.vocab_size * c.hidden_size
    bits = f.matrix_bytes(c.vocab_size, c.hidden_size) * 8 / head
    return "\n".join(
        [
            *lines,
            f"| one layer | | {total:,} | {sum(f.matrix_bytes(*s) for s in c.layer_shapes.values()):,} |",
            f"| {c.num_layers} layers | | {c.num_layers * total:,} | "
            f"{c.num_layers * sum(f.matrix_bytes(*s) for s in c.layer_shapes.values()):,} |",
            f"| head (the embedding, tied) | {c.vocab_size:,} x {c.hidden_size:,} | {head:,} | "
            f"{f.matrix_bytes(c.vocab_size, c.hidden_size):,} |",
            f"| a token reads | | {c.matrix_elements_per_token:,} | {weight_bytes():,} |",
            "",
            f"A q4 weight takes {bits:g} bits: 4, and a 16-bit scale for every {f.group}. "
            f"All {c.num_parameters:,} parameters are these and the norms.",
            "",
        ]
    )


def _bytes() -> str:
    c = Config.phi4_mini()
    one = c.kv_bytes_per_token("int8")
    lines = [
        "## Bytes of a token",
        "",
        _prose(f"""The KV cache takes {one:,} bytes a token of context in int8 ({c.num_layers} layers x
            {c.num_kv_heads} heads x (2 x {c.head_dim} bytes and two 4-byte scales)),
            {c.kv_bytes_per_token("f32"):,} in f32."""),
        "",
        "| context | KV cache, GB | weights and cache, GB | of it cache | tokens a second at most |",
        "|---|---|---|---|---|",
    ]
    for depth in _DEPTHS:
        moved = weight_bytes() + depth * one
        lines.append(
            f"| {depth:,} | {depth * one / 1e9:.3f} | {moved / 1e9:.3f} | {depth * one / moved:.0%} | "
            f"{READ * 1e9 / moved:.1f} |"
        )
    return "\n".join(
        [*lines, "", f"The last column is at {READ:g} GB/s, which two Zen 4 cores of a shared machine read.", ""]
    )


def _operations() -> str:
    c = Config.phi4_mini()
    lines = [
        "## Operations of a token",
        "",
        "A multiply and an add for each weight, and four a query row and seen token for attention (q k, and p v).",
        "",
        "| context | GFLOP, all | of it attention |",
        "|---|---|---|",
    ]
    for depth in _DEPTHS:
        all_, none = c.flops_per_token(depth), c.flops_per_token(0)
        lines.append(f"| {depth:,} | {all_ / 1e9:.2f} | {(all_ - none) / all_:.0%} |")
    return "\n".join([*lines, ""])


def _roof() -> str:
    c = Config.phi4_mini()
    body = c.matrix_elements_per_token - c.vocab_size * c.hidden_size
    passes, most = READ * 1e9 / weight_bytes(), DOTS * 1e9 / (2 * body)
    lines = [
        "## The roof",
        "",
        _prose(f"""A pass of n tokens reads the weights once and computes n times. At {READ:g} GB/s it takes
            {1e3 / passes:.0f} ms to read them; at {DOTS:g} GOPS of int8 products a token of a prompt, which needs no
            head, takes {1e3 / most:.1f} ms. They meet at {most / passes:.1f} tokens a pass: below, a pass waits for
            memory and more tokens in it are almost free (several streams, a guess to verify); above, arithmetic
            decides."""),
        "",
        "| tokens a pass | memory allows, tok/s | arithmetic allows, tok/s | the roof |",
        "|---|---|---|---|",
    ]
    for n in (1, 2, 4, 8, 16, 512):
        lines.append(f"| {n} | {n * passes:.1f} | {most:.1f} | {min(n * passes, most):.1f} |")
    return "\n".join([*lines, ""])


def _tail() -> str:
    return _prose("""What a machine reaches of its roof is measured, with its ceilings in the same run, by `make bench`;
        results lie in `benchmarks/results/`.""")


def _prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False)


if __name__ == "__main__":
    print(page())
