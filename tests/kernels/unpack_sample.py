"""Formats that the package does not know, and hashes of their products under an instruction set.

PHI4MINI_ISA=avx2 python -m tests.kernels.unpack_sample
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.lang import build
from tests.kernels.isa_sample import digest
from tests.kernels.matmuls import Case

NEW = {
    format.name: format
    for format in (
        Format("new_q3", 3, group=32, superblock=64, zero=4, planes=(2, 1)),
        Format("new_q2", 2, group=16, superblock=64, zero=2, act_group=16),
        Format("new_q2w", 2, group=32, superblock=64, minimum=True),
        Format("new_q5", 5, group=32, superblock=256, two_level=True, minimum=True, planes=(4, 1)),
        Format("new_q6", 6, group=16, superblock=256, two_level=True, zero=32, signed_scale=True, act_group=16,
               planes=(4, 2)),
    )
}  # fmt: skip


def sample() -> dict[str, str]:
    """Hashes by name; the formats must be in the table."""
    results = {"isa": cpu().isa}
    for name in NEW:
        case = Case(name, 256, 512, 15)
        results[name] = digest(np.concatenate([case.product(13, residual=True), case.product(1, 13)]))
        extreme = Case(name, 256, 512, 13, extreme=True)
        results[f"{name}, extreme"] = digest(np.concatenate([extreme.product(13, residual=True), extreme.product(1)]))
    return results


if __name__ == "__main__":
    FORMATS.update(NEW)
    with tempfile.TemporaryDirectory() as folder:
        build.library().folder = Path(folder)
        print(json.dumps(sample()))
