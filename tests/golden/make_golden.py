"""Makes the golden twins: tiny random Phi-3 and Llama checkpoints, and what Hugging Face transformers answers for them.

Run from the checkout's root with an environment that holds `torch==2.13.0 transformers safetensors`:
    python -m tests.golden.make_golden            writes tests/golden/<twin>/ anew
Each twin is a real checkpoint folder (config, generation config, tokenizer, model.safetensors in bfloat16) with
    golden.json   ids, lengths, greedy continuations by `generate`, the smallest margin between the best two logits
    logits.npz    logits of plain forward passes in float32 and float64 at a few positions of each length
tests/live runs the same functions with another seed against whatever transformers is installed.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
LENGTHS = (63, 64, 65, 100)  # before, at and after the LongRoPE boundary of the twins, which lies at 64
NEW_TOKENS = 40
PROMPTS = {"before": 10, "across": 50, "at": 64, "after": 80}  # prompt lengths
VOCAB = 320
FIRST_CONTROL_ID = 317
CONTROLS = ["<|begin|>", "<|stop|>", "<|endoftext|>"]  # ids 317, 318, 319
COMMON = dict(
    vocab_size=VOCAB,
    bos_token_id=317,
    pad_token_id=319,
    eos_token_id=319,
    rms_norm_eps=1e-5,
    max_position_embeddings=2048,
)


def _longrope(pairs: int) -> dict:
    """Two factor sets that differ everywhere, the long one growing as Phi-4-mini's does."""
    return {
        "type": "longrope",
        "short_factor": [round(1.0 + 0.03 * j, 4) for j in range(pairs)],
        "long_factor": [round(1.0 + 32.0 * (j / pairs) ** 2, 4) for j in range(pairs)],
    }


@dataclass(frozen=True)
class Twin:
    """One tiny model: its family, its numbers and the seed that gives it clear greedy margins."""

    family: str
    numbers: dict
    seed: int


TWINS = {
    "phi3_longrope": Twin(  # as Phi-4-mini: LongRoPE, part of each head rotated, grouped queries, tied
        "Phi3",
        dict(
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            partial_rotary_factor=0.75,
            original_max_position_embeddings=64,
            rope_scaling=_longrope(12),
            sliding_window=4096,
            tie_word_embeddings=True,
        ),
        24,
    ),
    "phi3_untied": Twin(  # as Phi-3.5-mini: LongRoPE over whole heads, no grouping, its own head
        "Phi3",
        dict(
            hidden_size=96,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=3,
            original_max_position_embeddings=64,
            rope_scaling=_longrope(16),
            tie_word_embeddings=False,
        ),
        49,
    ),
    "phi3_window": Twin(  # as Phi-3-mini-4k: plain RoPE and a sliding window that matters
        "Phi3",
        dict(
            hidden_size=96,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            sliding_window=24,
            tie_word_embeddings=False,
        ),
        25,
    ),
    "llama": Twin(  # as the demo model: tied, grouped queries, separate q, k, v and gate, up
        "Llama",
        dict(
            hidden_size=96,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_theta=100000.0,
        ),
        23,
    ),
}


def build(name: str, seed: int) -> torch.nn.Module:
    """A twin with seeded weights, rounded to bfloat16 and held in float32."""
    twin = TWINS[name]
    config = getattr(transformers, f"{twin.family}Config")(**COMMON, **json.loads(json.dumps(twin.numbers)))
    model = getattr(transformers, f"{twin.family}ForCausalLM")(config).eval()
    model.generation_config = transformers.GenerationConfig(bos_token_id=317, eos_token_id=[318, 319], pad_token_id=319)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            weight.copy_(_scaled(key, noise).to(torch.bfloat16))
            if "embed" in key or "lm_head" in key:
                weight[FIRST_CONTROL_ID:] *= 0.125  # so that no greedy answer meets a stop id
    return model


def _scaled(key: str, noise: torch.Tensor) -> torch.Tensor:
    """Scales that make logits a few units large, attention selective, and the last token not its own best successor."""
    if key.endswith("model.norm.weight"):
        return (1 + 0.2 * noise) * 1.3
    if noise.ndim == 1:
        return 1 + 0.2 * noise
    if "embed" in key or "lm_head" in key:
        return 0.2 * noise
    gain = 1.5 if "qkv" in key or "q_proj" in key or "k_proj" in key else 1.2
    return gain * noise / noise.shape[1] ** 0.5


def _norm_in_own_type(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def double(model: torch.nn.Module) -> torch.nn.Module:
    """The same model in float64; the norms, which transformers runs in float32 always, in float64 too."""
    wide = type(model)(model.config).eval().double()
    wide.load_state_dict(model.state_dict())
    for module in wide.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm_in_own_type.__get__(module)
    return wide


@torch.no_grad()
def logits(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """A plain forward pass over the whole sequence: (n, vocab) in the model's type."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


@torch.no_grad()
def greedy(model: torch.nn.Module, prompt: list[int], new_tokens: int = NEW_TOKENS) -> list[int]:
    """The ids `generate` appends with its KV cache; no stop ids, so that every continuation has its full length."""
    settings = transformers.GenerationConfig(max_new_tokens=new_tokens, do_sample=False, pad_token_id=319)
    tokens = torch.tensor([prompt])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
    return out[0, len(prompt) :].tolist()


def margins(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> list[float]:
    """By how much each answered id beats the best other one in a fresh pass over its prefix (negative: it does not)."""
    out = []
    for i, token in enumerate(answer):
        row = logits(model, prompt + answer[:i])[-1].astype(np.float64)
        out.append(float(row[token] - np.delete(row, token).max()))
    return out


def sequence(seed: int, length: int = 128) -> list[int]:
    """Random ordinary ids, the control ids left out."""
    return np.random.default_rng(seed).integers(0, FIRST_CONTROL_ID, length).tolist()


def answers(model: torch.nn.Module, ids: list[int]) -> dict[str, dict]:
    """Greedy continuations of the prompts of every length, each with its smallest margin."""
    out = {}
    for name, length in PROMPTS.items():
        answer = greedy(model, ids[:length])
        smallest = min(margins(model, ids[:length], answer))
        out[name] = {"prompt": ids[:length], "greedy": answer, "smallest_margin": round(smallest, 5)}
    return out


def write(name: str, seed: int) -> None:
    """One twin's folder."""
    model, ids, folder = build(name, seed), sequence(seed), HERE / name
    wide = double(model)
    rows: dict[str, Any] = {}
    for length in LENGTHS:
        where = [0, length // 2, length - 1]
        rows[f"f32_{length}"] = logits(model, ids[:length])[where]
        rows[f"f64_{length}"] = logits(wide, ids[:length])[where]
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "logits.npz", **rows)
    made = {"torch": torch.__version__, "transformers": transformers.__version__, "seed": seed}
    golden = {"made_with": made, "ids": ids, "lengths": LENGTHS, "answers": answers(model, ids)}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    save(model.to(torch.bfloat16), folder)


def save(model: torch.nn.Module, folder: pathlib.Path) -> None:
    """A whole checkpoint folder: config, weights, and a tokenizer that names each of the ids."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    named = {"bos_token": CONTROLS[0], "eos_token": CONTROLS[-1], "pad_token": CONTROLS[-1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(named) + "\n")


def tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE: 256 bytes, 61 pairs, 3 control tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [("Ġ", x) for x in letters] + [("e", x) for x in letters] + [("t", x) for x in letters[:9]]
    vocab = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(CONTROLS)
    return made


def main() -> None:
    torch.set_num_threads(1)
    for name, twin in TWINS.items():
        write(name, twin.seed)
        print(name, "done")


if __name__ == "__main__":
    main()
