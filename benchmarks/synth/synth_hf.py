"""Write a Hugging Face Phi-4-mini folder with random bfloat16 weights, to be exported for OpenVINO. Runs in its
environment.

    python -m benchmarks.synth.synth_hf OUT < numbers.json            needs: torch, transformers

numbers.json holds the keyword arguments of Phi3Config. 32 layers: 7.7 GB, about two minutes.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import Phi3Config, Phi3ForCausalLM


def main(out: str) -> None:
    """The model with fresh weights."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    Phi3ForCausalLM(Phi3Config(**json.load(sys.stdin))).save_pretrained(out, max_shard_size="4GB")


if __name__ == "__main__":
    main(sys.argv[1])
