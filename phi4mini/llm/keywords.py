"""The table of sampling knobs: every keyword of `Model.chat`, `.stream` and `.generate`, and its name elsewhere.

One row says what a knob is called in Python, on the command line and in each HTTP dialect, what it may be, and what
holds when it is left out. The command line makes its options from these rows; the server takes names and bounds from
them; tests hold `SamplingKeywords`, `SamplingParams`, the page's fields and the tables in docs to them.

Promises: it imports nothing heavy, so that `phi4mini run -h` may read it. It does not check or apply a value: `run.py`
and `engine/sample/params.py` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

MAX_COUNT = 2**31 - 1  # of tokens, and the largest id
Rope = Literal["auto", "short", "long"]


class SamplingKeywords(TypedDict, total=False):
    """The table's names and types, written out for editors and type checkers: `**sampling: Unpack[SamplingKeywords]`.

    `docs/python.md` explains each.
    """

    max_new_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: str | Sequence[str] | None
    stop_ids: Sequence[int]
    ignore_eos: bool
    min_new_tokens: int
    logprobs: int | None
    prompt_logprobs: int | None
    banned_ids: Sequence[int]
    mask_untrained: bool
    rope: Rope


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One row. An empty name means that the knob is not there.

    `low` and `high` bound the number, or each number of a list or of a mapping's values; `wire_high` is the bound over
    HTTP where it is lower. `openai` is the name in chat and text completions, `ollama` that among `options`.
    """

    name: str
    type: str  # as in `SamplingKeywords`
    default: Any
    unset: str  # what holds when it is left out
    help: str  # one sentence
    note: str = ""  # more, for docs
    low: float | None = None
    high: float | None = None
    wire_high: int | None = None
    flags: tuple[str, ...] = ()
    openai: str = ""
    anthropic: str = ""
    ollama: str = ""

    @property
    def is_whole(self) -> bool:
        """True for one whole number, False for a fraction or anything else."""
        return self.type.removesuffix(" | None") == "int"

    @property
    def is_number(self) -> bool:
        """True for one number, whole or not."""
        return self.is_whole or self.type == "float"

    @property
    def range(self) -> str:
        """The bounds for people: "0 to 100", "1 or more"; "" without bounds, or with any 64 bits."""
        if self.low is None or self.high is None or self.low < -MAX_COUNT:
            return ""
        return f"{self.low:g} or more" if self.high == MAX_COUNT else f"{self.low:g} to {self.high:g}"


KNOBS: tuple[Knob, ...] = (
    Knob(
        name="max_new_tokens",
        type="int | None",
        default=None,
        unset="until the context is full",
        help="Most new tokens.",
        note="The model's own end ends an answer sooner.",
        low=1,
        high=MAX_COUNT,
        flags=("-n", "--predict"),
        openai="max_tokens",
        anthropic="max_tokens",
        ollama="num_predict",
    ),
    Knob(
        name="temperature",
        type="float",
        default=0.0,
        unset="0",
        help="Temperature; 0 is greedy.",
        low=0,
        high=100,
        flags=("--temp",),
        openai="temperature",
        anthropic="temperature",
        ollama="temperature",
    ),
    Knob(
        name="top_k",
        type="int",
        default=0,
        unset="off",
        help="Draw from the k most likely tokens only.",
        note="0 and -1 are off. `top_k`, `top_p` and `min_p` are applied in this order to the ranked tokens.",
        low=-1,
        high=MAX_COUNT,
        flags=("--top-k",),
        openai="top_k",
        anthropic="top_k",
        ollama="top_k",
    ),
    Knob(
        name="top_p",
        type="float",
        default=1.0,
        unset="off",
        help="Draw from the most likely tokens that make up this probability.",
        note="1 is off.",
        low=0,
        high=1,
        flags=("--top-p",),
        openai="top_p",
        anthropic="top_p",
        ollama="top_p",
    ),
    Knob(
        name="min_p",
        type="float",
        default=0.0,
        unset="off",
        help="Drop tokens below this share of the most likely one's probability.",
        note="0 is off.",
        low=0,
        high=1,
        flags=("--min-p",),
        openai="min_p",
        anthropic="min_p",
        ollama="min_p",
    ),
    Knob(
        name="seed",
        type="int | None",
        default=None,
        unset="random",
        help="Seed: the same seed gives the same text.",
        note="Any 64 bits, signed or unsigned (over HTTP signed); -1 is random. The result reports the seed in use.",
        low=-(2**63),
        high=2**64 - 1,
        wire_high=2**63 - 1,  # OpenAI's and Ollama's own type; msgspec bounds no larger number either
        flags=("-s", "--seed"),
        openai="seed",
        anthropic="seed",
        ollama="seed",
    ),
    Knob(
        name="repetition_penalty",
        type="float",
        default=1.0,
        unset="off",
        help="Penalty on tokens of prompt and answer.",
        note="As in transformers: positive logits are divided, negative ones multiplied. 1 is off.",
        low=0.01,
        high=100,
        flags=("--repeat-penalty",),
        openai="repetition_penalty",
        ollama="repeat_penalty",
    ),
    Knob(
        name="presence_penalty",
        type="float",
        default=0.0,
        unset="off",
        help="Subtracted once from the logit of a token that the answer has used.",
        low=-2,
        high=2,
        flags=("--presence-penalty",),
        openai="presence_penalty",
        ollama="presence_penalty",
    ),
    Knob(
        name="frequency_penalty",
        type="float",
        default=0.0,
        unset="off",
        help="Subtracted from a token's logit for each use in the answer.",
        low=-2,
        high=2,
        flags=("--frequency-penalty",),
        openai="frequency_penalty",
        ollama="frequency_penalty",
    ),
    Knob(
        name="logit_bias",
        type="Mapping[int, float]",
        default={},
        unset="none",
        help="Added to the logit of a token id.",
        note="At most 1024 ids.",
        low=-100,
        high=100,
        flags=("--logit-bias",),
        openai="logit_bias",
    ),
    Knob(
        name="stop",
        type="str | Sequence[str] | None",
        default=None,
        unset="none",
        help="End the answer before this text.",
        note="A text or a list; the first that comes counts. Tool calls are not searched.",
        flags=("--stop",),
        openai="stop",
        anthropic="stop_sequences",
        ollama="stop",
    ),
    Knob(
        name="ignore_eos",
        type="bool",
        default=False,
        unset="False",
        help="Go on past the model's own end.",
        flags=("--ignore-eos",),
        openai="ignore_eos",
    ),
    Knob(
        name="stop_ids",
        type="Sequence[int]",
        default=(),
        unset="none",
        help="Token ids that end the answer besides the model's own.",
        low=0,
        high=MAX_COUNT,
        openai="stop_token_ids",
    ),
    Knob(
        name="min_new_tokens",
        type="int",
        default=0,
        unset="0",
        help="Hold back the ids that end an answer until there are so many new tokens.",
        low=0,
        high=MAX_COUNT,
        openai="min_tokens",
    ),
    Knob(
        name="logprobs",
        type="int | None",
        default=None,
        unset="none",
        help="Log-probabilities of the answer's tokens, with so many alternatives for each.",
        note="In chat completions `logprobs: true` with `top_logprobs`.",
        low=0,
        high=20,
        openai="logprobs",
        ollama="top_logprobs",
    ),
    Knob(
        name="prompt_logprobs",
        type="int | None",
        default=None,
        unset="none",
        help="The same for the prompt's tokens.",
        low=0,
        high=20,
        openai="prompt_logprobs",
    ),
    Knob(
        name="banned_ids",
        type="Sequence[int]",
        default=(),
        unset="none",
        help="Token ids that are never drawn.",
        low=0,
        high=MAX_COUNT,
    ),
    Knob(
        name="mask_untrained",
        type="bool",
        default=True,
        unset="True",
        help="Never draw ids that no text has trained: free rows and Phi's placeholders.",
    ),
    Knob(
        name="rope",
        type="Rope",
        default="auto",
        unset='"auto"',
        help="LongRoPE factors: by length, or fixed.",
        note='"short" or "long" for the whole request.',
        flags=("--rope",),
        openai="rope",
    ),
)
BY_NAME: Mapping[str, Knob] = {knob.name: knob for knob in KNOBS}
