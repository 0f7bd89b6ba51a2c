"""Which tokens are an answer's content: whatever they spell, and wherever a stop string cuts them. The parameters of
a request are built once.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.engine.request import Token
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput
from phi4mini.llm.run import Run
from phi4mini.tokenizer import Tokenizer, phi4_mini

TEXTS = ["One, two, three, four.", "a  b\n\nc", "😀 👍🏽 naïve 日本語", "<|end|> spelled", '}{"x": [1, 2]}', "…"]


@pytest.fixture(scope="module")
def phi() -> Tokenizer:
    return phi4_mini()


def read(tokenizer: Tokenizer, ids: list[int], stops: list[str], end: int | None = None) -> tuple[Run, str, list]:
    """A run that these tokens came to, the text of its events, and what was told of log-probabilities on the way."""
    run = Run([1], {"logprobs": 0, "stop": stops}, tokenizer, ())
    events, told = [], []
    for at, id in enumerate([*ids, *([] if end is None else [end])]):
        ends = "stop" if end is not None and at == len(ids) else None
        events += run.push(Token(run.request, id, -1.0, None, ends))
        told.append(run.new_logprobs())
        if run.stopped:
            break
    events += run.finish()
    told.append(run.new_logprobs())
    return run, "".join(event.text for event in events), told


def check(tokenizer: Tokenizer, ids: list[int], stops: list[str], end: int | None = None) -> None:
    run, text, told = read(tokenizer, ids, stops, end)
    kept = [entry.id for entry in run.content_logprobs() or ()]
    assert kept == ids[: len(kept)] == [entry.id for step in told for entry in step]
    assert text.startswith(tokenizer.decode(kept))
    if not run.stopped:
        assert kept == ids and text == tokenizer.decode(ids)
    else:
        assert len(kept) < len(ids) and not text.startswith(tokenizer.decode(ids))
        assert not any(stop in tokenizer.decode(kept) for stop in stops)


@settings(max_examples=300, deadline=None)
@given(text=st.sampled_from(TEXTS) | st.text(max_size=40), data=st.data())
def test_RQ35_log_probabilities_align_with_the_content(phi, text, data):
    """Any text as any tokens, any pieces of it as stop strings, with an end token or cut off."""
    ids = phi.encode(text)
    if data.draw(st.booleans()):  # not as the tokenizer would cut it: byte by byte
        ids = [id for byte in text.encode() for id in byte_ids(phi, byte)]
    cuts = st.tuples(st.integers(0, max(len(text) - 1, 0)), st.integers(1, 6))
    stops = [text[at : at + size] for at, size in data.draw(st.lists(cuts, max_size=3))]
    end = phi.id_of("<|end|>") if data.draw(st.booleans()) else None
    check(phi, ids, [stop for stop in stops if stop], end)


def byte_ids(tokenizer: Tokenizer, byte: int) -> list[int]:
    """The token that is this byte alone."""
    return [id for id in range(256) if tokenizer.token_bytes(id) == bytes([byte])]


@pytest.mark.parametrize(
    ("text", "stops", "kept"),
    [
        ("One, two, three", ["three"], ["One", ",", " two", ","]),
        ("One, two, three", [","], ["One"]),
        ("One, two, three", ["One"], []),
        ("One, two, three", ["ee"], ["One", ",", " two", ","]),
        ("One, two, three", ["zzz"], ["One", ",", " two", ",", " three"]),
        ("One, two, three", ["three!"], ["One", ",", " two", ",", " three"]),
        ("One, two, three", ["o, t"], ["One", ","]),
        ("One, two, three", [" two", ","], ["One"]),
        ("One, two, three", [], ["One", ",", " two", ",", " three"]),
        ("One, two, three", ["e, two, thr"], []),
        ("One, two, three", [" three"], ["One", ",", " two", ","]),
    ],
)
def test_RQ35_what_a_stop_string_cut_is_not_among_them(phi, text, stops, kept):
    run, _, _ = read(phi, phi.encode(text), stops, phi.id_of("<|end|>"))
    assert [entry.token for entry in run.content_logprobs() or ()] == kept


def test_RQ35_without_log_probabilities_nothing_is_kept(phi):
    run = Run([1], {}, phi, ())
    run.push(Token(run.request, phi.encode("hi")[0], -1.0, None, None))
    assert run.content_logprobs() is None and run.new_logprobs() == []


def test_RQ35_control_tokens_inside_an_answer_keep_their_place(phi):
    """With `ignore_eos` an answer goes on past its end token, which is then one of its tokens."""
    end = phi.id_of("<|end|>")
    ids = [*phi.encode("One"), end, *phi.encode(" more 😀")]
    assert "<|end|>" in phi.decode(ids)
    check(phi, ids, ["zz"])


# ---- parameters


@pytest.mark.parametrize("sampling", [{}, {"seed": -1}, {"seed": 3, "banned_ids": [5], "top_k": -1}], ids=str)
def test_parameters_are_built_once_for_a_request(phi, sampling, monkeypatch):
    built, check = [], SamplingParams.__post_init__
    monkeypatch.setattr(SamplingParams, "__post_init__", lambda self: (built.append(self), check(self))[1])
    run = Run([1], sampling, phi, [7, 8])
    assert built == [run.request.params] and run.request.seed not in (None, -1)
    assert run.request.params.banned_ids == (*sampling.get("banned_ids", ()), 7, 8)


@pytest.mark.parametrize("banned", ["12", 5, None, [1.5], [-1]], ids=repr)
def test_banned_ids_that_are_none_are_refused_by_name(phi, banned):
    with pytest.raises(BadInput, match="banned_ids"):
        Run([1], {"banned_ids": banned}, phi, [7, 8])
