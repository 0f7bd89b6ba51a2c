"""Streamers get the prompt, then each token as it is made; joined, their text is the whole text."""

from __future__ import annotations

from queue import Empty
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import AutoTokenizer, BaseStreamer, TextIteratorStreamer, TextStreamer
from phi4mini.errors import BadInput

PHI = AutoTokenizer.from_pretrained("microsoft/Phi-4-mini-instruct")
PROMPT = [39, 293, 75, 78]


class Kept(TextStreamer):
    """What people make of a TextStreamer: one that does something else with the text."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pieces, self.ends = [], 0

    def on_finalized_text(self, text, stream_end=False):
        self.pieces.append(text)
        self.ends += stream_end


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20), st.booleans(), st.booleans())
def test_TF11_pieces_are_the_text(prompt, answer, skip_prompt, skip_special):
    streamer = Kept(PHI, skip_prompt=skip_prompt, skip_special_tokens=skip_special)
    before, new = PHI.encode(prompt), [*PHI.encode(answer), 200020]
    for _ in range(2):  # it can be used again
        streamer.pieces.clear()
        streamer.put(np.array([before], np.int64))
        for id in new:
            streamer.put(np.array([id]))
        streamer.end()
        shown = new if skip_prompt else before + new
        assert "".join(streamer.pieces) == PHI.decode(shown, skip_special_tokens=skip_special)
    assert streamer.ends == 2


def test_TF11_streamers_of_every_kind(model, tok, capsys):
    made = model.generate([PROMPT], max_new_tokens=6)
    text, answer = tok.decode(made[0]), tok.decode(made[0, 4:])
    model.generate([PROMPT], max_new_tokens=6, streamer=TextStreamer(tok))
    assert capsys.readouterr().out == text + "\n"
    model.generate([PROMPT], max_new_tokens=6, streamer=TextStreamer(tok, skip_prompt=True))
    assert capsys.readouterr().out == answer + "\n"
    taken = []

    class Any(BaseStreamer):
        def put(self, value):
            taken.append(value.tolist())

        def end(self):
            taken.append("end")

    model.generate([PROMPT], max_new_tokens=6, streamer=Any())
    assert taken == [[PROMPT], *([id] for id in made[0, 4:].tolist()), "end"]


def test_TF11_an_iterator_is_read_beside_the_thread_that_generates(model, tok):
    streamer = TextIteratorStreamer(tok, skip_prompt=True, timeout=60)
    thread = Thread(target=model.generate, args=([PROMPT],), kwargs={"max_new_tokens": 12, "streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert len(pieces) > 2 and "".join(pieces) == tok.decode(model.generate([PROMPT], max_new_tokens=12)[0, 4:])
    with pytest.raises(Empty):
        next(TextIteratorStreamer(tok, timeout=0.01))


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": 2}, {"bogus": 1}, {"num_beams": 3}, {"do_sample": True, "temperature": 0.0},
        {"attention_mask": [[1]]}, {"inputs": "text"}, {"inputs": [[1], [2]]}, {"max_new_tokens": 0},
        {"stopping_criteria": [lambda ids, scores: 1 / 0]}, {"inputs": [[99999]]},
    ],
)  # fmt: skip
def test_TF11_a_reader_never_waits_for_an_answer_that_failed(model, tok, arguments):
    streamer = TextIteratorStreamer(tok, skip_prompt=True, timeout=60)
    with pytest.raises((BadInput, ZeroDivisionError)):
        model.generate(**({"inputs": [PROMPT]} | arguments), streamer=streamer)
    list(streamer)


def test_TF11_what_is_no_streamer_is_said(model, tok):
    for wrong in (object(), print, "x"):
        with pytest.raises(BadInput, match="streamer"):
            model.generate([PROMPT], streamer=wrong)
    with pytest.raises(BadInput, match="bogus"):
        TextStreamer(tok, bogus=1)
    with pytest.raises(BadInput, match="one row"):
        TextStreamer(tok).put(np.array([[1], [2]]))
