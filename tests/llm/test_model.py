"""The waist on the demo model: streams add up to replies, stops are exact, the same seed says the same."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

import phi4mini
from phi4mini.chat import CallEnd, ReplyReader, reply_of
from phi4mini.engine.request import Token
from phi4mini.errors import BadCheckpoint, BadInput, Phi4MiniError, TooLong
from phi4mini.llm.model import generation_defaults, load, load_config, load_tokenizer
from phi4mini.llm.run import Run, untrained_ids
from phi4mini.model.reference import forward
from phi4mini.tokenizer import from_bpe, from_bytes, phi4_mini, to_bytes
from phi4mini.tokenizer.bytelevel import CHARS

CAPITAL = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
STORY = "Tell me a story about a fox."


@pytest.fixture(scope="module")
def model(demo_store):
    demo_store("f32")
    with phi4mini.load("demo", quant="f32", kv="f32") as loaded:
        yield loaded


# --- chat and stream ------------------------------------------------------------------------------------------------


def test_a_reply_says_what_it_is_and_what_it_cost(model):
    reply = model.chat(CAPITAL)
    assert (reply.content, reply.tool_calls, reply.finish_reason) == (ANSWER, [], "stop")
    assert reply.usage.prompt_tokens == reply.prompt_tokens == len(model.render(CAPITAL).ids)
    assert reply.usage.completion_tokens == len(reply.ids) == 8 and reply.usage.total_tokens == 45
    assert reply.ids[-1] in model.config.eos_token_ids
    assert reply.timings.prefill_seconds > 0 and reply.timings.decode_seconds > 0
    assert reply.to_message().content == ANSWER


def test_text_is_one_user_message(model):
    messages = [{"role": "user", "content": CAPITAL}]
    assert model.chat(messages).ids == model.chat(CAPITAL).ids
    assert model.chat([*messages, {"role": "assistant", "content": ANSWER}, *messages]).prompt_tokens > 45


def test_a_stream_adds_up_to_the_reply(model):
    stream = model.stream(STORY, max_new_tokens=40)
    pieces = list(stream)
    assert len(pieces) > 10 and all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces) == stream.result.content == model.chat(STORY, max_new_tokens=40).content
    assert stream.result.finish_reason == "length"


def test_the_result_may_be_asked_for_at_once_and_again(model):
    stream = model.stream(CAPITAL)
    next(stream)
    assert stream.result.content == ANSWER
    assert stream.result is stream.result and list(stream) == []


def test_two_streams_at_once_say_what_each_says_alone(model):
    alone = [model.chat(prompt, max_new_tokens=12).ids for prompt in (STORY, CAPITAL)]
    first, second = (model.stream(prompt, max_new_tokens=12) for prompt in (STORY, CAPITAL))
    for _ in range(3):
        next(first), next(second)
    assert [second.result.ids, first.result.ids] == alone[::-1]


def test_threads_may_share_a_model(model):
    alone = [model.chat(f"{STORY} {n}", max_new_tokens=8).content for n in range(4)]
    said = [""] * 4

    def ask(n: int) -> None:
        said[n] = model.chat(f"{STORY} {n}", max_new_tokens=8).content

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == alone


def test_a_stopped_stream_keeps_what_was_said(model):
    stream = model.stream(STORY, max_new_tokens=100)
    said = next(stream) + next(stream)
    stream.stop()
    said += "".join(stream)
    assert stream.result.finish_reason == "abort" and stream.result.content == said
    assert 2 <= stream.result.usage.completion_tokens <= 4
    assert not model.engine.has_work


def test_a_closed_stream_leaves_nothing_behind(model):
    stream = model.stream(STORY)
    next(stream)
    stream.close()
    assert not model.engine.has_work
    with pytest.raises(RuntimeError, match="closed"):
        _ = stream.result
    assert model.chat(CAPITAL).content == ANSWER


# --- stop strings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["Paris", "France is", "l of Fra", "is Paris.", [" is", "of"], "e"])
def test_text_ends_exactly_before_the_first_stop_string(model, stop):
    stream = model.stream(CAPITAL, stop=stop)
    streamed = "".join(stream)
    first = min(ANSWER.index(each) for each in ([stop] if isinstance(stop, str) else stop))
    assert streamed == stream.result.content == ANSWER[:first]
    assert stream.result.finish_reason == "stop" and not model.engine.has_work


def test_a_stop_string_that_never_comes_holds_nothing_back(model):
    assert model.chat(CAPITAL, stop=["Paris!", "Paris.x"]).content == ANSWER


def test_a_stop_string_ends_the_work_not_only_the_text(model):
    assert model.chat(CAPITAL, stop="of").usage.completion_tokens == 3


# --- sampling -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_text(model):
    first = model.chat(STORY, temperature=1.5, max_new_tokens=16)
    assert model.chat(STORY, temperature=1.5, max_new_tokens=16, seed=first.seed).ids == first.ids
    others = {tuple(model.chat(STORY, temperature=1.5, max_new_tokens=16, seed=seed).ids) for seed in range(4)}
    assert len(others) == 4


def test_an_unknown_keyword_is_refused_with_the_nearest(model):
    with pytest.raises(BadInput, match=r"'temprature'.*'temperature'"):
        model.chat(CAPITAL, temprature=0.5)
    with pytest.raises(BadInput, match=r"'max_tokens'.*'max_new_tokens'"):
        model.generate([1], max_tokens=5)


def test_bad_values_are_refused_before_anything_runs(model):
    for bad in ({"top_p": 2}, {"stop": [""]}, {"logit_bias": {10**9: 1}}, {"rope": "middle"}, {"seed": 2**64}):
        with pytest.raises(BadInput):
            model.chat(CAPITAL, max_new_tokens=1, **bad)
    for ids in ([], "text"[:0], [1.5], [None], [-1], [10**6], 7, {"a": 1}):
        with pytest.raises(BadInput):
            model.generate(ids, max_new_tokens=1)
    assert not model.engine.has_work


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(demo_store):
    demo_store("f32")
    with phi4mini.load("demo", quant="f32", ctx=30) as small:
        with pytest.raises(TooLong) as error:
            small.chat(CAPITAL)
        assert (error.value.prompt_tokens, error.value.limit) == (37, 30)
        full = small.generate(CAPITAL, ignore_eos=True)
        assert full.finish_reason == "length" and full.usage.total_tokens == 30


# --- ids ------------------------------------------------------------------------------------------------------------


def test_generate_takes_text_ids_and_arrays(model):
    ids = model.tokenizer.encode("The capital of France is")
    made = model.generate(ids, max_new_tokens=3)
    assert made.text == " Paris.\n" and len(made.ids) == 3 and made.finish_reason == "length"
    for prompt in ("The capital of France is", np.array(ids), tuple(ids)):
        assert model.generate(prompt, max_new_tokens=3).ids == made.ids
    stream = model.stream_generate(ids, max_new_tokens=3)
    assert "".join(stream) == stream.result.text == made.text


def test_a_stop_id_ends_an_answer_and_is_not_text(model):
    (dot,) = model.tokenizer.encode(".")
    made = model.generate("The capital of France is", stop_ids=[dot])
    assert (made.text, made.finish_reason, made.ids[-1]) == (" Paris", "stop", dot)


def test_logits_are_the_definition(model):
    ids = model.render(CAPITAL).ids
    logits = model.logits(ids)
    assert logits.shape == (len(ids), model.config.vocab_size) and logits.dtype == np.float32
    assert np.abs(logits - forward(model.store.weights, ids)).max() < 2e-3


def test_log_probabilities_agree_wherever_they_come_from(model):
    ids = model.render(CAPITAL).ids
    scored = model.logprobs(ids)
    assert scored.shape == (len(ids) - 1,) and scored.dtype == np.float32
    made = model.generate(ids, max_new_tokens=4, logprobs=2, prompt_logprobs=1)
    assert made.prompt_logprobs[0].logprob is None and made.prompt_logprobs[0].id == ids[0]
    assert np.allclose([note.logprob for note in made.prompt_logprobs[1:]], scored, atol=1e-5)
    assert [note.id for note in made.prompt_logprobs] == ids
    whole = model.logprobs([*ids, *made.ids])
    assert np.allclose([note.logprob for note in made.logprobs], whole[-4:], atol=1e-4)
    for note, id in zip(made.logprobs, made.ids, strict=True):
        assert (note.id, note.token) == (id, model.tokenizer.token_text(id))
        assert note.top[0].id == id and len(note.top) == 2 and note.top[0].logprob >= note.top[1].logprob
    assert model.generate(ids, max_new_tokens=1).logprobs is None


# --- what the demo model does not do by itself ----------------------------------------------------------------------


def run_of(text: str, stop: list[str]) -> tuple[Run, list[Token]]:
    """A run of Phi-4-mini's whose tokens spell `text`."""
    tokenizer = phi4_mini()
    run = Run([0], {"stop": stop}, tokenizer, (), ReplyReader(tokenizer, "phi"))
    ids = tokenizer.encode(text, parse_special=True)
    ends = [None] * (len(ids) - 1) + ["stop"]
    return run, [Token(run.request, id, None, None, end) for id, end in zip(ids, ends, strict=True)]


def test_calls_come_out_as_events_and_stop_strings_do_not_look_inside():
    run, tokens = run_of(
        'Wait.<|tool_call|>[{"name": "look", "arguments": {"at": "STOP"}}]<|/tool_call|><|end|>', ["STOP"]
    )
    events = list(run.events(tokens))
    reply = reply_of(events)
    assert reply.content == "Wait." and reply.tool_calls[0].arguments == {"at": "STOP"}
    assert sum(isinstance(event, CallEnd) for event in events) == 1 and run.matcher.matched is None


def test_text_held_for_a_stop_string_comes_before_the_call():
    run, tokens = run_of('ST<|tool_call|>[{"name": "look", "arguments": {}}]<|/tool_call|><|end|>', ["STOP"])
    events = list(run.events(tokens))
    assert events[0].text == "ST" and reply_of(events).tool_calls


def test_half_a_character_at_the_end_is_shown_as_such():
    tokenizer = phi4_mini()
    ids = tokenizer.encode("🦊")
    run = Run([0], {}, tokenizer, ())
    tokens = [Token(run.request, ids[0], None, None, "length")]
    assert "".join(event.text for event in run.events(tokens)) == "\ufffd"


def test_untrained_rows_of_phi_are_never_drawn_and_trained_ones_may_be():
    tokenizer = phi4_mini()
    ids = set(untrained_ids(tokenizer, 200_064))
    assert ids == {199_998, *range(200_000, 200_018), *range(200_029, 200_064)}
    tokenizer.add_tokens(["<|mine|>"])
    assert set(untrained_ids(tokenizer, 200_064)) == ids - {200_029}
    masked, exact = (Run([0], {"banned_ids": [5], "mask_untrained": m}, tokenizer, [7]) for m in (True, False))
    assert masked.request.params.banned_ids == (5, 7) and exact.request.params.banned_ids == (5,)


def test_a_tokenizer_comes_without_a_model(demo_store):
    phi, phi_format = load_tokenizer("phi-4-mini")
    assert phi.encode("Hello") == [13225] and phi_format == "phi"
    demo_store("q4")
    demo, demo_format = load_tokenizer("demo")
    assert demo.decode(demo.encode("Hello")) == "Hello" and demo_format == "smollm"


def test_TP5_a_chat_format_can_be_named_and_the_store_keeps_its_own(demo_store):
    before = demo_store("q4").read_bytes()[:4096]
    for name, begins in (("chatml", "<|im_start|>user\nHi"), ("smollm", "<|im_start|>system\nYou are"), (None,) * 2):
        with load("demo", chat_format=name, ctx=64) as model:
            assert model.render("Hi").text.startswith(begins or "<|im_start|>system\nYou are")
            assert 2 in model.config.eos_token_ids and model.engine.config == model.config
    assert load_tokenizer("demo", chat_format="chatml")[1] == "chatml"
    assert demo_store("q4").read_bytes()[:4096] == before
    for model, name, told in (("demo", "phi", "needs <|system|>"), ("demo", "alpaca", "unknown chat format 'alpaca'")):
        for opens in (load, load_tokenizer):
            with pytest.raises(BadInput, match=re.escape(told)):
                opens(model, chat_format=name)
    with pytest.raises(BadInput, match=r"needs <\|im_start\|>"):
        load_tokenizer("phi-4-mini", chat_format="chatml")
    assert load_tokenizer("phi-4-mini", chat_format="phi-3.5")[1] == "phi-3.5"


def test_TP9_unused_rows_of_a_gguf_are_never_drawn():
    kinds = [1] * 256 + [5, 3, 4, 5, 5]
    tokenizer = from_bpe([*CHARS, "[PAD256]", "<s>", "mine", "[PAD259]", "[PAD260]"], [], kinds, pre="gpt-2")
    assert untrained_ids(tokenizer, 264) == (256, *range(259, 264))
    assert untrained_ids(from_bytes(to_bytes(tokenizer)), 264) == (256, *range(259, 264))


def test_numbers_and_generation_defaults_come_without_a_model(demo_store, tmp_path, monkeypatch):
    demo_store("q4")
    assert load_config("demo").architecture == "llama" and generation_defaults("demo") == {}
    folder = tmp_path / "model"
    folder.mkdir()
    assert generation_defaults(str(folder)) == {}
    (folder / "generation_config.json").write_text('{"do_sample": true}')
    assert generation_defaults(str(folder)) == {"do_sample": True}
    for lie in ("[1]", "{", "3"):
        (folder / "generation_config.json").write_text(lie)
        with pytest.raises(BadCheckpoint, match="generation_config"):
            generation_defaults(str(folder))
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert load_config("phi-4-mini").num_layers == 32 and generation_defaults("nobody/has-this") == {}


def test_ids_come_one_by_one_as_they_are_made(model):
    prompt = model.render(STORY).ids
    whole = model.generate(prompt, max_new_tokens=20)
    stream = model.stream_ids(prompt, max_new_tokens=20)
    assert list(stream) == whole.ids == stream.result.ids and stream.result.text == whole.text
    stopped = model.stream_ids(prompt, max_new_tokens=20, stop=whole.text[9:12])
    assert list(stopped) == whole.ids[: len(stopped.result.ids)] and stopped.result.text == whole.text[:9]
    assert stopped.result.finish_reason == "stop"
    two = [model.stream_ids(prompt, max_new_tokens=9) for _ in range(2)]
    assert [list(pair) for pair in zip(*two, strict=True)] == [[id, id] for id in whole.ids[:9]]  # taken in turns
    cut = model.stream_ids(prompt, max_new_tokens=20)
    next(cut)
    cut.stop()
    assert list(cut) == [] and cut.result.ids == whole.ids[:1] and cut.result.finish_reason == "abort"


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path))
    for name in ("nonsense", "./nowhere.gguf", "", "a" * 5000):
        with pytest.raises(Phi4MiniError):
            phi4mini.load(name, offline=True)


def test_an_answer_follows_its_constraint(model):
    """One constraint serves one answer; the next answer knows nothing of it."""
    free = model.chat("Name a colour.", max_new_tokens=8).content
    held = model.chat("Name a colour.", constraint=model.grammars.regex("(red|green|blue)"), max_new_tokens=8)
    assert held.content in ("red", "green", "blue") and held.finish_reason == "stop"
    assert model.chat("Name a colour.", max_new_tokens=8).content == free
    assert model.generate("Yes or no?", constraint=model.grammars.regex("(yes|no)")).text in ("yes", "no")
