"""docs/numbers.md says what config and formats say."""

from __future__ import annotations

from pathlib import Path

from benchmarks import numbers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "numbers.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == numbers.page() + "\n", "python -m benchmarks.numbers > docs/numbers.md"


def test_the_weights_of_a_token_take_four_and_a_half_bits_each():
    assert numbers.weight_bytes() == 3_835_822_080 * 9 // 16
