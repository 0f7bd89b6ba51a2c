"""Talking on the page, in a browser and with the demo model: answers, branches, keys, errors, a server that is away."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.server.page.conftest import free_port, served
from tests.server.page.pages import ChatPage


@pytest.fixture
def chat(context, server):
    """The page of the demo; a test that ends without looking at faults still fails for them."""
    page = ChatPage(context, server)
    page.set_up(temperature="0", max_tokens="24")
    yield page
    assert page.faults == []
    assert all(address.startswith(server) or address.startswith("blob:") for address in page.asked)


def stats(chat):
    return chat.page.locator(".message.assistant.last .stats").inner_text()


def test_an_answer_arrives_with_its_figures(chat):
    chat.send("Name a colour.")
    assert chat.texts("user") == ["Name a colour."]
    assert chat.answer().strip()
    assert re.search(r"tok/s · first token after [\d.]+ s · \d+ tokens", stats(chat))
    assert re.fullmatch(r"[\d,]+ of 8,192 tokens", chat.page.locator("#meter-text").inner_text())
    assert chat.page.locator("#model").inner_text()
    assert chat.titles() == ["Name a colour."]


def test_the_meter_counts_the_prompt_that_the_draft_would_make(chat):
    """With the template's own tokens and the tools; the answer's figures say how many they were."""
    chat.set_up(tools='[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]')
    chat.page.fill("#draft", "Name a colour.")
    meter = chat.page.locator("#meter-text")
    meter.filter(has_text=re.compile(r"^\d")).wait_for()
    counted = int(meter.inner_text().split()[0])
    chat.send("Name a colour.")
    written = int(re.search(r"(\d+) tokens", stats(chat))[1])
    meter.filter(has_text=re.compile(rf"^{counted + written} ")).wait_for()
    assert counted > 50


def test_an_answer_is_done_when_all_of_it_is_on_the_page(chat):
    """Its beginning is rendered and the rest held back: the server has ended it, the page has not shown it."""
    passed, held, most = [], [], 1

    def let_pass(route):
        if len(passed) < most:
            passed.append(route)
            route.continue_()
        else:
            held.append(route)

    chat.page.route("**/page/render", let_pass)
    chat.set_up(max_tokens="64")
    chat.send("Name ten colours.", wait=False)
    chat.page.wait_for_selector(".message.assistant .stats:has-text('64 tokens')")
    chat.page.wait_for_selector("#send[aria-label=Send]")
    message = chat.page.locator(".message.assistant.last")
    assert message.get_attribute("data-state") == "writing" and message.get_attribute("aria-busy") == "true"
    shown = message.locator(".body").inner_text()
    most = len(held) + 100
    for route in held:
        route.continue_()
    chat.wait_answer()
    assert message.get_attribute("aria-busy") == "false" and len(chat.answer()) > len(shown)


def test_the_settings_are_sent(chat):
    chat.set_up(max_tokens="3", system="Answer in one word.")
    chat.send("Name a colour.")
    assert "3 tokens" in stats(chat) and "ended at the limit of tokens" in stats(chat)
    with chat.page.expect_request("**/v1/chat/completions") as asked:
        chat.send("Another one.")
    body = asked.value.post_data_json
    assert body["temperature"] == 0 and body["max_tokens"] == 3 and "top_k" not in body
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][0]["content"] == "Answer in one word."


def test_a_wrong_setting_is_named_and_not_taken(chat):
    chat.page.click("#open-settings")
    chat.page.fill("#p-temperature", "7")
    assert chat.page.locator("#f-temperature").inner_text() == "Temperature must be from 0 to 2."
    chat.page.fill("#p-schema", "{")
    assert chat.page.locator("#f-schema").inner_text().startswith("This is not JSON:")
    chat.page.keyboard.press("Escape")
    chat.page.click("#open-settings")
    assert chat.page.input_value("#p-temperature") == "0" and chat.page.input_value("#p-schema") == ""


def test_an_answer_can_be_stopped_and_continued(chat):
    chat.set_up(max_tokens="1000")
    chat.send("Count from one to one thousand, each number in words.", wait=False)
    chat.page.wait_for_selector(".message.assistant[data-state=writing]")
    chat.page.keyboard.press("Escape")
    chat.wait_answer()
    assert "stopped" in stats(chat)
    before = chat.answer()
    chat.set_up(max_tokens="12")
    with chat.page.expect_request("**/v1/chat/completions") as asked:
        chat.button("Continue this answer").click()
    body = asked.value.post_data_json
    assert body["continue_final_message"] is True and body["messages"][-1]["role"] == "assistant"
    chat.wait_answer()
    after = chat.answer()
    assert after.startswith(before[:40]) and len(after) > len(before)
    assert len(chat.texts("assistant")) == 1


def test_an_edited_message_is_a_branch(chat):
    chat.send("Say red.")
    first = chat.answer()
    chat.button("Edit and ask again", ".message.user").click()
    chat.page.fill(".edit-field", "Say blue, and nothing else at all.")
    chat.page.press(".edit-field", "Enter")
    chat.wait_answer()
    assert chat.texts("user") == ["Say blue, and nothing else at all."]
    assert chat.page.locator(".message.user .branches").inner_text() == "2/2"
    chat.button("Previous version", ".message.user").click()
    assert chat.texts("user") == ["Say red."] and chat.answer() == first
    assert chat.page.locator(".message.user .branches").inner_text() == "1/2"


def test_escape_leaves_an_edited_message_as_it_was(chat):
    chat.send("Say red.")
    chat.page.focus("#draft")
    chat.page.keyboard.press("ArrowUp")
    chat.page.fill(".edit-field", "something else")
    chat.page.press(".edit-field", "Escape")
    assert chat.texts("user") == ["Say red."] and len(chat.texts("assistant")) == 1


def test_another_answer_is_a_branch(chat):
    chat.set_up(temperature="1.5", seed="")
    chat.send("Invent a name for a boat.")
    first = chat.answer()
    chat.button("Another answer").click()
    chat.page.wait_for_selector(".message.assistant .branches")
    chat.wait_answer()
    assert chat.page.locator(".message.assistant .branches").inner_text() == "2/2"
    chat.button("Previous version").click()
    assert chat.answer() == first


def test_a_message_is_deleted_and_brought_back(chat):
    chat.send("Say red.")
    answer = chat.answer()
    chat.button("Delete this and what follows", ".message.user").click()
    assert chat.texts("user") == [] and chat.texts("assistant") == []
    chat.page.get_by_role("button", name="Undo").click()
    assert chat.texts("user") == ["Say red."] and chat.answer() == answer


def test_keys(chat):
    page = chat.page
    page.fill("#draft", "one")
    page.press("#draft", "Shift+Enter")
    assert page.input_value("#draft") == "one\n" and chat.texts("user") == []
    page.fill("#draft", "")
    page.locator("#scroller").focus()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible() and "new conversation" in page.locator("#keys").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.locator("#scroller").focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "draft" and page.input_value("#draft") == ""
    chat.send("Say red.")
    page.keyboard.press("Control+k")
    assert chat.texts("user") == [] and chat.titles() == ["Say red."]
    page.keyboard.press("Control+b")
    assert not page.locator("#sidebar").is_visible()
    page.keyboard.press("Control+,")
    assert page.locator("#settings").is_visible()


def test_a_draft_stays_with_its_conversation(chat):
    chat.send("Say red.")
    chat.page.fill("#draft", "half a thought")
    chat.page.click("#new")
    assert chat.page.input_value("#draft") == ""
    chat.page.click(".entry-title")
    assert chat.page.input_value("#draft") == "half a thought"
    chat.page.wait_for_selector("#meter-text:has-text('about')")


def test_a_refusal_is_shown_in_place_in_the_servers_words(chat):
    chat.send("word " * 9000)
    fault = chat.fault()
    assert "8192" in fault and "tokens" in fault and "Try again" in fault
    assert any("400" in text for text in chat.faults)
    chat.faults.clear()


def test_progress_is_shown_while_a_long_prompt_is_read(chat):
    chat.page.evaluate(
        """() => {
          window.seen = [];
          const lines = () => [...document.querySelectorAll(".progress-line:not([hidden])")];
          const note = () => seen.push(...lines().map((line) => line.innerText));
          const all = {subtree: true, childList: true, attributes: true};
          new MutationObserver(note).observe(document.querySelector("#thread"), all);
        }"""
    )
    chat.send(f"{time.time_ns()} " + "word " * 7500)  # new each time: what was read before is in the cache on disk
    seen = chat.page.evaluate("seen")
    assert seen and all(re.match(r"Reading the prompt: [\d,]+ of [\d,]+ tokens", text) for text in seen)


def test_a_stream_that_breaks_off_keeps_what_came(chat):
    """The server's answer cut in the middle, as a proxy would."""
    half = 'data: {"choices":[{"index":0,"delta":{"content":"Half a"}}]}\n\n'
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=half))
    chat.send("Say red.")
    assert chat.answer() == "Half a"
    assert "ended before the answer was complete" in chat.fault()
    chat.page.unroute("**/v1/chat/completions")
    chat.page.get_by_role("button", name="Try again").click()
    chat.page.wait_for_selector(".fault:not([hidden])", state="detached")
    chat.wait_answer()
    assert chat.answer().startswith("Half a") and len(chat.answer()) > len("Half a")


def test_tool_calls_are_shown_and_their_results_sent(chat):
    """The demo seldom calls a tool, so the stream of one call is given; the result goes to the real server."""
    call = {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": '{"city": "Oslo", "days": 2}'}}
    chunk = '{"choices":[{"index":0,"delta":{"tool_calls":[%s]},"finish_reason":"tool_calls"}]}'
    body = f"data: {chunk % json.dumps(call)}\n\ndata: [DONE]\n\n"
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    chat.set_up(tools='[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]')
    chat.send("How is the weather?")
    assert chat.page.locator(".call-name").inner_text() == "get_weather"
    assert chat.page.locator(".call pre").inner_text() == '{\n  "city": "Oslo",\n  "days": 2\n}'
    assert chat.page.get_attribute("#draft", "placeholder") == "Result of get_weather"
    chat.button("Copy the call").click()
    copied = json.loads(chat.page.evaluate("navigator.clipboard.readText()"))
    assert copied == {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}
    chat.page.unroute("**/v1/chat/completions")
    with chat.page.expect_request("**/v1/chat/completions") as asked:
        chat.send('{"degrees": 4}', wait=False)
    messages = asked.value.post_data_json["messages"]
    assert messages[-1] == {"role": "tool", "content": '{"degrees": 4}', "tool_call_id": "c1"}
    assert messages[-2]["tool_calls"][0]["function"] == call["function"] and asked.value.post_data_json["tools"]
    chat.wait_answer()
    assert chat.fault() == ""


def test_the_fields_of_json_show_what_would_be_taken(chat):
    for name in ("schema", "tools"):
        json.loads(chat.page.get_attribute(f"#p-{name}", "placeholder"))
    tools = chat.page.get_attribute("#p-tools", "placeholder")
    chat.set_up(tools=tools, max_tokens="2")
    chat.send("Say red.")
    assert chat.fault() == ""


def test_every_control_has_a_name(chat):
    chat.send("Say red.")
    nameless = chat.page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([type=file]), textarea")]
          .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.labels?.length || e.closest("dialog:not([open])")))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []


def test_colours_can_be_chosen_and_stay(chat):
    ground = "getComputedStyle(document.body).backgroundColor"
    chat.page.emulate_media(color_scheme="dark")
    dark = chat.page.evaluate(ground)
    chat.page.click("#theme")
    light = chat.page.evaluate(ground)
    assert dark != light and "Light" in chat.page.get_attribute("#theme", "aria-label")
    chat.open()
    assert chat.page.evaluate(ground) == light


def test_a_server_that_is_away_is_noticed_and_found_again(context, demo_store):
    port = free_port()
    with served("-c", "2048", port=port) as (url, _):
        chat = ChatPage(context, url)
        chat.set_up(max_tokens="8")
    chat.send("Say red.")
    assert "The server does not answer." in chat.fault()
    assert "Trying again" in chat.page.locator("#away").inner_text()
    with served("-c", "2048", port=port):
        chat.page.wait_for_selector("#away", state="hidden")
        chat.page.get_by_role("button", name="Try again").click()
        chat.page.wait_for_selector(".fault:not([hidden])", state="detached")
        chat.wait_answer()
        assert chat.answer().strip() and chat.texts("user") == ["Say red."]


def test_a_key_is_asked_for_and_kept_only_if_wanted(context, demo_store, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-secret-key\n", encoding="utf-8")
    keys.chmod(0o600)
    with served("-c", "2048", "--api-key-file", str(keys)) as (url, _):
        chat = ChatPage(context, url)
        chat.page.wait_for_selector("#key-dialog[open]")
        chat.page.fill("#key", "wrong-key")
        chat.page.press("#key", "Enter")
        chat.page.wait_for_selector("#key-dialog[open]")
        chat.page.fill("#key", "a-secret-key")
        chat.page.press("#key", "Enter")
        chat.page.wait_for_selector("#key-dialog:not([open])", state="attached")
        chat.page.wait_for_selector("#model:not(:empty)")
        chat.set_up(max_tokens="8")
        chat.send("Say red.")
        assert chat.answer().strip() and chat.fault() == ""
        assert "a-secret-key" not in chat.page.evaluate("JSON.stringify(localStorage) + document.body.innerHTML")
        chat.open()
        chat.page.wait_for_selector("#key-dialog[open]")
        chat.page.check("#remember-key")
        chat.page.fill("#key", "a-secret-key")
        chat.page.press("#key", "Enter")
        chat.page.wait_for_selector("#model:not(:empty)")
        chat.open()
        chat.page.wait_for_selector("#model:not(:empty)")
        assert not chat.page.locator("#key-dialog").is_visible()
