"""The same lines, written for transformers, run through transformers and through our interface: the same values.

Lines are from model cards, tutorials and issues. A line runs with the names of one module, transformers or phi4mini,
on the same tiny checkpoint; what it gives is compared as plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import phi4mini
from tests import tiny_chat

torch = pytest.importorskip("torch", reason="needs torch==2.13.0, which `make test-live` installs")
transformers = pytest.importorskip("transformers", reason="needs transformers, which `make test-live` installs")

TEMPLATE = 'tok.apply_chat_template(M, add_generation_prompt=True, return_dict=True, return_tensors="pt")'
LINES = [
    # tokenizer
    'tok("Hello you")',
    'tok("Hello you", return_tensors="pt").input_ids',
    'tok("Hello you", return_tensors="np")["attention_mask"]',
    'tok(["Hello", "Hi you there"], padding=True)',
    'tok(["Hello", "Hi you there"], padding=True, padding_side="left", return_tensors="pt")',
    'tok(["Hello", "Hi you there"], padding="max_length", max_length=12)',
    'tok(["Hello", "Hi you there"], padding=True, pad_to_multiple_of=8)',
    'tok("Hi you there", truncation=True, max_length=3)',
    'tok("Hi you there", add_special_tokens=False, return_attention_mask=False)',
    'tok.encode("Hello", return_tensors="pt")',
    'tok.encode("Hello", add_special_tokens=False)',
    'tok.tokenize("Hi there")',
    "tok.decode([39, 293, 75])",
    "tok.decode([[39, 293], [75]])",
    "tok.decode(39)",
    "tok.decode([])",
    'tok.decode(tok("Hello", return_tensors="pt").input_ids)',
    "tok.decode([39, 321, 75, 319], skip_special_tokens=True)",
    "tok.decode([39, 321, 324, 319])",
    "tok.batch_decode([[39, 293], [75]], skip_special_tokens=True)",
    "tok.batch_decode([])",
    'tok.convert_tokens_to_ids("<|end|>")',
    'tok.convert_tokens_to_ids(["<|end|>", "a"])',
    "tok.convert_ids_to_tokens([39, 293, 321])",
    "tok.convert_ids_to_tokens(39)",
    "len(tok)",
    "len(tok.get_vocab())",
    "tok.special_tokens_map",
    "(tok.eos_token, tok.eos_token_id, tok.pad_token, tok.pad_token_id, tok.bos_token_id)",
    "tok.pad([{'input_ids': [1, 2, 3]}, {'input_ids': [4]}], return_tensors='pt')",
    # conversations
    "tok.apply_chat_template(M, tokenize=False)",
    "tok.apply_chat_template(M, tokenize=False, add_generation_prompt=True)",
    "tok.apply_chat_template(PREFILL, tokenize=False, continue_final_message=True)",
    "tok.apply_chat_template(PREFILL, continue_final_message=True)['input_ids']",
    TEMPLATE,
    "tok.apply_chat_template([M, PREFILL], padding=True, return_tensors='pt', return_dict=True)",
    "tok.apply_chat_template(M, add_generation_prompt=True)['input_ids']",
    "tok(tok.apply_chat_template(M, tokenize=False, add_generation_prompt=True)).input_ids",
    "tok(tok.apply_chat_template(M, tokenize=False, add_generation_prompt=True) + 'Sure').input_ids",
    # generate
    f"model.generate(**{TEMPLATE}, max_new_tokens=6)",
    f"model.generate({TEMPLATE}['input_ids'], max_new_tokens=6)",
    f"model.generate(**{TEMPLATE}, max_length=20)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=6, do_sample=False, temperature=0.0, top_p=0.5)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=6, pad_token_id=tok.eos_token_id)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, repetition_penalty=1.3)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, stop_strings=[' '], tokenizer=tok)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, generation_config=GenerationConfig(max_new_tokens=3))",
    f"model.generate(**{TEMPLATE}, generation_config=GenerationConfig(max_new_tokens=3))",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, eos_token_id=model.generate(**{TEMPLATE}, max_new_tokens=3)"
    "[0, -1].item())",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, suppress_tokens=[293, 75, 204, 230])",
    f"model.generate(**{TEMPLATE}, max_new_tokens=8, bad_words_ids=[[293], [230]])",
    f"model.generate(**{TEMPLATE}, max_new_tokens=60)",  # over LongRoPE's boundary
    f"model.generate(**{TEMPLATE}, max_new_tokens=9, stopping_criteria=StoppingCriteriaList([Third()]))",
    "model.generate(**tok(['Hello', 'Hi you there'], padding=True, padding_side='left', return_tensors='pt'),"
    " max_new_tokens=5)",
    f"model.generate(**{TEMPLATE}, max_new_tokens=4, return_dict_in_generate=True).sequences",
    f"model.generate(**{TEMPLATE}, max_new_tokens=4, return_dict_in_generate=True, output_scores=True).scores",
    f"model.generate(**{TEMPLATE}, max_new_tokens=60, return_dict_in_generate=True, output_logits=True).logits[-1]",
    "transition_scores()",
    f"tok.decode(model.generate(**{TEMPLATE}, max_new_tokens=6)[0][{TEMPLATE}['input_ids'].shape[-1]:],"
    " skip_special_tokens=True)",
    f"streamed(**{TEMPLATE})",
    # logits
    "model(**tok('Hello you', return_tensors='pt')).logits",
    "model(**tok('Hello you', return_tensors='pt'))[0][:, -1]",
    "model(tok('Hello you', return_tensors='pt').input_ids).logits.argmax(-1)",
    "model(**tok('Hello you', return_tensors='pt'), labels=tok('Hello you', return_tensors='pt').input_ids).loss",
    "model(**tok('Hello you', return_tensors='pt'), labels=torch.tensor([[-100, -100, 75, 78, -100, 84, 1, 2][:7]])"
    "[:, :tok('Hello you', return_tensors='pt').input_ids.shape[1]]).loss",
    # model
    "(model.device.type, str(model.device), model.dtype, model.num_parameters(), model.training)",
    "torch.zeros(1, device=model.device, dtype=model.dtype)",
    "[getattr(model.config, name) for name in ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers',"
    " 'num_attention_heads', 'num_key_value_heads', 'max_position_embeddings', 'rms_norm_eps', 'eos_token_id',"
    " 'pad_token_id', 'sliding_window', 'tie_word_embeddings', 'model_type', 'architectures', 'hidden_act')]",
    "AutoConfig.from_pretrained(FOLDER).num_hidden_layers",
    "(model.generation_config.eos_token_id, model.generation_config.pad_token_id)",
    "GenerationConfig.from_pretrained(FOLDER).eos_token_id",
    "GenerationConfig(max_new_tokens=3, do_sample=True).to_diff_dict()['max_new_tokens']",
    # pipeline
    "pipe('Hello', max_new_tokens=6, do_sample=False)",
    "pipe(['Hello', 'Hi you there'], max_new_tokens=6, do_sample=False)",
    "pipe(['Hello', 'Hi you there'], batch_size=2, max_new_tokens=6, do_sample=False)",
    "pipe(M, max_new_tokens=6, do_sample=False)",
    "pipe([M, PREFILL], max_new_tokens=6, do_sample=False)",
    "pipe(M, max_new_tokens=6, do_sample=False, return_full_text=False)",
    "pipe(PREFILL, max_new_tokens=6, do_sample=False)",
    "pipe(PREFILL, max_new_tokens=6, do_sample=False, continue_final_message=False)",
    "pipe(M, max_new_tokens=6, do_sample=False, pad_token_id=tok.eos_token_id)",
    "pipe(tok.apply_chat_template(M, tokenize=False, add_generation_prompt=True), max_new_tokens=6, do_sample=False)",
    "pipe('Hello', max_new_tokens=6, do_sample=False, return_tensors=True)",
    "pipe('Hello', max_new_tokens=6, do_sample=False, stop_sequence=' ')",
    "list(pipe((text for text in ['Hello', 'Hi']), max_new_tokens=4, do_sample=False))",
    "pipe(text_inputs='Hello', max_new_tokens=4, do_sample=False)",
]


class Third:
    """Stops when the third id from the end is a certain one; returns what transformers' criteria return."""

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        return torch.tensor([row[-1].item() == row[-4].item() or len(row) > 16 for row in input_ids])


def script(module: Any, folder: Path, **loading: Any) -> dict[str, Any]:
    """The names that the lines use, all of one module."""
    tok = module.AutoTokenizer.from_pretrained(str(folder))
    model = module.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, trust_remote_code=False, **loading
    ).eval()
    pipe = module.pipeline("text-generation", model=model, tokenizer=module.AutoTokenizer.from_pretrained(str(folder)))

    def streamed(**inputs: Any) -> str:
        streamer = module.TextIteratorStreamer(tok, skip_prompt=True, skip_special_tokens=True, timeout=60)
        thread = Thread(target=model.generate, kwargs=dict(inputs, streamer=streamer, max_new_tokens=12))
        thread.start()
        text = "".join(streamer)
        thread.join()
        return text

    def transition_scores() -> Any:
        inputs = tok("Hello you", return_tensors="pt")
        asked = {"return_dict_in_generate": True, "output_scores": True}
        out = model.generate(**inputs, max_new_tokens=5, **asked)
        return model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)

    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
    names = ("AutoConfig", "GenerationConfig", "StoppingCriteriaList")
    return {name: getattr(module, name) for name in names} | {
        "torch": torch, "tok": tok, "model": model, "pipe": pipe, "streamed": streamed, "Third": Third,
        "transition_scores": transition_scores, "FOLDER": str(folder), "M": conversation,
        "PREFILL": [*conversation, {"role": "assistant", "content": "Sure, "}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The two scripts on one checkpoint."""
    where = tmp_path_factory.mktemp("api")
    folder = tiny_chat.write(where / "chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI4MINI_HOME", str(where / "home"))
        theirs, ours = script(transformers, folder), script(phi4mini, folder, kv="f32")
        yield SimpleNamespace(theirs=theirs, ours=ours)
        ours["model"].llm.close()


def plain(value: Any) -> Any:
    """Values as Python has them, whatever they came in."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, Mapping) or type(value).__name__ == "BatchEncoding":
        return {str(key): plain(each) for key, each in dict(value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def same(ours: Any, theirs: Any) -> bool:
    """Equal; numbers that are not whole to float32's rounding through a few layers."""
    if isinstance(theirs, float) or isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=2e-4)
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and set(ours) == set(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.filterwarnings("ignore")  # of transformers; ours are errors everywhere else
@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_line_gives_what_it_gives_in_transformers(both: SimpleNamespace, line: str) -> None:
    with torch.no_grad():
        theirs, ours = (eval(line, dict(script)) for script in (both.theirs, both.ours))
    assert type(ours).__name__ == type(theirs).__name__ or not isinstance(theirs, torch.Tensor)
    assert same(plain(ours), plain(theirs)), f"ours: {plain(ours)!s:.600}\ntheirs: {plain(theirs)!s:.600}"


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_torch_go_through_and_come_back(both: SimpleNamespace) -> None:
    tok, model = both.ours["tok"], both.ours["model"]
    chat = tok.apply_chat_template(both.ours["M"], add_generation_prompt=True, return_tensors="pt")
    assert isinstance(chat, torch.Tensor) and chat["input_ids"].shape == chat.shape == chat.to("cpu").shape
    with torch.inference_mode():
        as_ids, as_dict = model.generate(chat, max_new_tokens=4), model.generate(**chat, max_new_tokens=4)
    assert isinstance(as_ids, torch.Tensor) and as_ids.dtype == torch.int64 and torch.equal(as_ids, as_dict)
    assert type(chat + 1) is torch.Tensor and torch.equal(chat[0], chat.input_ids[0])
    assert isinstance(model(chat).logits, torch.Tensor)
    assert isinstance(model.generate(chat.tolist(), max_new_tokens=1), np.ndarray)
