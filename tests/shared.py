"""Where the shared facts and data lie, beside the checkout; tests that need them are skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared facts and data beside the checkout")
