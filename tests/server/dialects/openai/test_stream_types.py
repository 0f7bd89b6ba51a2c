"""Properties that all events of a stream share."""

from __future__ import annotations

import pytest

from tests.server.process import CHAT

HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_RQ31_a_stream_has_one_time_of_creation(demo, path):
    """Of a stream that lasts longer than a second."""
    asked = {"max_output_tokens": 1900} if path.endswith("responses") else {"max_tokens": 1900}
    given = {"messages": HI} if path == CHAT else {"prompt": "hi"} if "compl" in path else {"input": "hi"}
    answer = demo.ask(path, given | asked | {"stream": True, "ignore_eos": True})
    events = [event for event in answer.events if event != "[DONE]"]
    times = {e.get("created") or e["response"]["created_at"] for e in events if "created" in e or "response" in e}
    assert answer.seconds > 1 and len(times) == 1
