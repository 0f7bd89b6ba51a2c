"""tokenize and render on Phi-4-mini's own tokenizer, which needs no file."""

from __future__ import annotations

import json

from tests.cli.conftest import refused

CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|end|>"}]


def test_tokenize_prints_ids_and_texts(phi4mini):
    done = phi4mini("tokenize", "Hello world")
    assert done.stdout == "  13225  'Hello'\n   2375  ' world'\n"
    assert done.stderr == ""


def test_tokenize_reads_stdin_files_and_writes_json(phi4mini, tmp_path):
    path = tmp_path / "text"
    path.write_text("Hello world")
    from_stdin = phi4mini("tokenize", "--json", stdin=b"Hello world")
    assert json.loads(from_stdin.stdout) == {"ids": [13225, 2375], "tokens": ["Hello", " world"], "count": 2}
    assert phi4mini("tokenize", "--json", "-f", str(path)).stdout == from_stdin.stdout


def test_control_tokens_come_from_text_only_when_asked(phi4mini):
    assert phi4mini("tokenize", "--ids", "<|end|>").stdout == "27 91 419 91 29\n"
    assert phi4mini("tokenize", "--ids", "--parse-special", "<|end|>").stdout == "200020\n"


def test_TP5_render_and_tokenize_take_a_chat_format(phi4mini, tmp_path):
    conversation = json.dumps([{"role": "user", "content": "Hi"}]).encode()
    written = "<|user|>\nHi<|end|>\n<|assistant|>\n\n"
    assert phi4mini("render", "--chat-format", "phi-3.5", stdin=conversation).stdout == written
    assert phi4mini("render", stdin=conversation, PHI4MINI_CHAT_FORMAT="phi-3.5").stdout == written
    assert phi4mini("tokenize", "--ids", "--chat-format", "phi-3.5", "Hello world").stdout == "13225 2375\n"
    for command in ("render", "tokenize", "run", "chat", "serve", "convert"):
        arguments = ("-m", "phi-4-mini") if command == "tokenize" else ("-m", "synthetic:1")
        done = phi4mini(command, *arguments, "--chat-format", "alpaca", stdin=conversation)
        refused(done, "unknown chat format 'alpaca'; known: phi, phi-reasoning")
    refused(phi4mini("render", "--chat-format", "chatml", stdin=conversation), "needs <|im_start|>, <|im_end|>")


def test_ids_go_back_to_text(phi4mini):
    assert phi4mini("tokenize", "--decode", "[13225, 2375]").stdout == "Hello world\n"
    refused(phi4mini("tokenize", "--decode", "1 x"), "'x'")
    refused(phi4mini("tokenize", "--decode", "999999"), "999999")


def test_text_that_is_not_utf8_is_refused_with_its_place(phi4mini, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(b"good\xff")
    refused(phi4mini("tokenize", b"ab\xff"), "0xff", "offset 2")
    refused(phi4mini("tokenize", stdin=b"\xc3"), "stdin", "0xc3", "offset 0")
    refused(phi4mini("tokenize", "-f", str(path)), str(path), "offset 4")


def test_render_shows_what_the_model_sees(phi4mini):
    text = "<|system|>Be brief.<|end|><|user|>Hi <|end|><|end|><|assistant|>"
    conversation = json.dumps(CONVERSATION).encode()
    assert phi4mini("render", stdin=conversation).stdout == text + "\n"
    found = json.loads(phi4mini("render", "--json", stdin=conversation).stdout)
    assert found["text"] == text and found["ids"][-2:] == [200020, 200019]
    assert len(found["ids"]) == len(found["mask"]) == found["count"] and not any(found["mask"])


def test_render_takes_tools_and_an_ended_conversation(phi4mini, tmp_path):
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([{"type": "function", "function": {"name": "look", "parameters": {}}}]))
    ended = {"messages": [*CONVERSATION, {"role": "assistant", "content": "Hello"}]}
    done = phi4mini(
        "render", "--tools", str(tools), "--no-generation-prompt", "--mask", "--ids", stdin=json.dumps(ended).encode()
    )
    ids, mask = done.stdout.splitlines()
    learnt = [i for i, m in zip(ids.split(), mask.split(), strict=True) if m == "1"]
    assert learnt == ["13225", "200020"] and ids.endswith("200020 199999") and "200023" in ids.split()


def test_render_refuses_what_is_no_conversation(phi4mini):
    refused(phi4mini("render", stdin=b"[{"), "stdin", "line 1")
    refused(phi4mini("render", stdin=b'{"a": 1}'), "messages")
    refused(phi4mini("render", stdin=b'[{"role": "god", "content": ""}]'), "messages[0].role")
    refused(phi4mini("render", stdin=b"[" * 100_000), "nested")
    refused(phi4mini("render", "/nonexistent"), "/nonexistent")
