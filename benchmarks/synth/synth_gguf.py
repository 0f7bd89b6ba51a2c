"""Write a Phi-4-mini GGUF in Q4_0 with random weights, for timing llama.cpp. Runs in llama.cpp's environment.

    python -m benchmarks.synth.synth_gguf OUT.gguf [LAYERS]           needs: numpy, gguf

Blocks are random bytes under sane scales, so speed is real and text is noise. As llama.cpp's own quantiser does, the
tied embedding is Q6_K and all else Q4_0.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 3072, 8192, 24, 8, 128, 200064
# type -> (weights per block, bytes per block, offset of the fp16 scale, its value)
BLOCKS = {Q.Q4_0: (32, 18, 0, 3e-3), Q.Q6_K: (256, 210, 208, 1e-5)}


def blocks(rng: np.random.Generator, kind: Q, rows: int, cols: int) -> np.ndarray:
    """Random blocks of a matrix, uint8 (rows, bytes of a row)."""
    per, size, offset, value = BLOCKS[kind]
    made = rng.integers(0, 256, (rows * cols // per, size), dtype=np.uint8)
    made[:, offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    return made.reshape(rows, -1)


def main(out: str, layers: int = 32) -> None:
    """The whole file; 2.3 GB for 32 layers."""
    w = gguf.GGUFWriter(out, "phi3")
    _metadata(w, layers)
    rng = np.random.default_rng(0)

    def matrix(name: str, rows: int, cols: int, kind: Q = Q.Q4_0) -> None:
        w.add_tensor(name, blocks(rng, kind, rows, cols), raw_dtype=kind)

    matrix("token_embd.weight", VOCAB, HIDDEN, Q.Q6_K)
    w.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    w.add_tensor("rope_factors_long.weight", np.full(48, 8.0, np.float32))
    w.add_tensor("rope_factors_short.weight", np.ones(48, np.float32))
    for i in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{norm}.weight", np.ones(HIDDEN, np.float32))
        matrix(f"blk.{i}.attn_qkv.weight", (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN)
        matrix(f"blk.{i}.attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
        matrix(f"blk.{i}.ffn_up.weight", 2 * FFN, HIDDEN)
        matrix(f"blk.{i}.ffn_down.weight", HIDDEN, FFN)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def _metadata(w: gguf.GGUFWriter, layers: int) -> None:
    w.add_name("synthetic-phi-4-mini")
    w.add_context_length(131072)
    w.add_rope_scaling_orig_ctx_len(4096)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(FFN)
    w.add_block_count(layers)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(96)
    w.add_rope_freq_base(10000.0)
    w.add_sliding_window(262144)
    w.add_rope_scaling_attn_factors(1.190238)
    w.add_file_type(2)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-4o")
    w.add_token_list([f"t{i}" for i in range(VOCAB)])
    w.add_token_types([1] * VOCAB)
    w.add_token_merges(["t 1"])
    w.add_bos_token_id(199999)
    w.add_eos_token_id(199999)


if __name__ == "__main__":
    main(sys.argv[1], *(int(a) for a in sys.argv[2:3]))
