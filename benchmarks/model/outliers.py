"""What rounding costs on Phi-shaped matrices with outliers: our q4 arithmetic and llama.cpp's Q4_0 x Q8_0, in NumPy.

Both store 4.5 bits a weight and take activations as int8 in groups of 32, so they are compared at equal bytes. Sums are
exact (float64), so that the difference is the rounding of weights and activations alone. That our kernels compute what
is written here is proved in tests/kernels/test_matmul.py; llama.cpp's rules are those of quantize_row_q4_0_ref and
quantize_row_q8_0_ref.
"""

from __future__ import annotations

import numpy as np

from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.matrix import Matrix as Stored
from phi4mini.formats.matrix import pack_blocks
from phi4mini.kernels.round_weights import encode_blocks

GROUP = 32
SHAPES = {"qkv": (5120, 3072), "gate_up": (2048, 3072), "down": (3072, 8192)}  # gate_up: some of its 16,384 rows


def case(name: str, rows: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Weights and activations f32 of a shape: normal, heavy-tailed in the weights, and in the activations six channels
    in a thousand that are 10 to 60 times the others, always the same ones, as a residual stream has them.
    """
    outputs, cols = SHAPES[name]
    rng = np.random.default_rng(len(name))
    weights = rng.standard_t(5, (outputs, cols)).astype(np.float32) * np.float32(0.02)
    x = rng.standard_normal((rows, cols)).astype(np.float32)
    loud = rng.choice(cols, max(1, 6 * cols // 1000), replace=False)
    x[:, loud] *= rng.uniform(10, 60, len(loud)).astype(np.float32)
    return weights, x


def errors(name: str) -> tuple[float, float]:
    """Relative error (Frobenius) of the product: (ours, llama.cpp's)."""
    weights, x = case(name)
    exact = x.astype(np.float64) @ weights.T.astype(np.float64)

    def error(w: np.ndarray, a: np.ndarray) -> float:
        return float(np.linalg.norm(a.astype(np.float64) @ w.T.astype(np.float64) - exact) / np.linalg.norm(exact))

    return error(our_weights(weights), our_activations(x)), error(q4_0(weights), q8_0(x))


def our_weights(weights: np.ndarray) -> np.ndarray:
    """f32 -> q4 by the search that conversion uses, and back."""
    f = FORMATS["q4"]
    rows, cols = weights.shape
    return Stored(f, rows, cols, pack_blocks(encode_blocks(weights), f)).dequantize()


def our_activations(x: np.ndarray) -> np.ndarray:
    """f32 -> int8 in groups of 32 under an f32 scale, and back (kernels/activations.py)."""
    groups = x.reshape(-1, GROUP)
    peak = np.abs(groups).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    return (np.rint(groups * inverse) * (peak * np.float32(1 / 127))).reshape(x.shape)


def q4_0(weights: np.ndarray) -> np.ndarray:
    """llama.cpp's reference Q4_0: the scale is the value of largest size over -8, rounded to f16 after use."""
    groups = weights.reshape(-1, GROUP)
    peak = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    scale = peak / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.minimum(15, np.trunc(groups * inverse + np.float32(8.5)))
    return ((q - 8) * scale.astype(np.float16).astype(np.float32)).reshape(weights.shape)


def q8_0(x: np.ndarray) -> np.ndarray:
    """llama.cpp's Q8_0: the scale is the largest size over 127, rounded to f16 after use."""
    groups = x.reshape(-1, GROUP)
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.trunc(groups * inverse + np.copysign(np.float32(0.5), groups))  # roundf: halves away from zero
    return (q * scale.astype(np.float16).astype(np.float32)).reshape(x.shape)
