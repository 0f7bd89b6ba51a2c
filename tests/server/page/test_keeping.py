"""What the page keeps: reloads, the list, two tabs, a full disk, files out and in; and nothing in it runs."""

from __future__ import annotations

import json

import pytest

from tests.server.page.elements import HOSTILE
from tests.server.page.pages import ChatPage, conversation, write_export


@pytest.fixture
def chat(context, server):
    """The page of the demo with short answers."""
    page = ChatPage(context, server)
    page.set_up(temperature="0", max_tokens="12")
    yield page
    assert page.faults == []


def test_everything_is_there_after_a_reload(chat):
    chat.send("Say red.")
    chat.page.fill("#draft", "half a thought")
    answer = chat.answer()
    chat.open()
    chat.page.click(".entry-title")
    assert chat.texts("user") == ["Say red."] and chat.answer() == answer
    assert chat.page.input_value("#draft") == "half a thought"
    chat.page.click("#open-settings")
    assert chat.page.input_value("#p-max_tokens") == "12"


def test_an_answer_cut_by_a_reload_can_be_continued(chat):
    chat.set_up(max_tokens="1000")
    chat.send("Count from one to one thousand, each number in words.", wait=False)
    chat.page.wait_for_selector(".message.assistant[data-state=writing]")
    chat.page.wait_for_timeout(1500)  # it is kept every second
    chat.open()
    chat.page.click(".entry-title")
    assert "not complete" in chat.page.locator(".message.assistant .stats").inner_text()
    before = len(chat.answer())
    chat.set_up(max_tokens="12")
    chat.button("Continue this answer").click()
    chat.page.wait_for_selector(".message.assistant .stats:has-text('tok/s')")
    chat.wait_answer()
    assert len(chat.answer()) > before


def test_the_list_is_searched_renamed_and_deleted_with_undo(chat):
    chat.send("Say red.")
    chat.page.click("#new")
    chat.send("Name an animal of the sea.")
    assert chat.titles() == ["Name an animal of the sea.", "Say red."]
    chat.page.fill("#search", "SAY red.")
    assert chat.titles() == ["Say red."]
    chat.page.fill("#search", "")
    chat.page.hover(".entry:has-text('Say red.')")
    chat.button("Rename", ".entry:has-text('Say red.')").click()
    chat.page.fill(".entry-field", "Colours")
    chat.page.press(".entry-field", "Enter")
    assert "Colours" in chat.titles()
    chat.page.hover(".entry:has-text('Colours')")
    chat.button("Delete", ".entry:has-text('Colours')").click()
    assert chat.titles() == ["Name an animal of the sea."]
    chat.page.get_by_role("button", name="Undo").click()
    assert "Colours" in chat.titles()
    chat.open()
    assert sorted(chat.titles()) == ["Colours", "Name an animal of the sea."]


def test_what_was_deleted_stays_deleted(chat):
    chat.send("Say red.")
    chat.page.hover(".entry")
    chat.button("Delete", ".entry").click()
    chat.page.wait_for_timeout(300)
    chat.open()
    assert chat.titles() == []


def test_export_and_import_give_the_same_tree(chat, context, server, tmp_path):
    chat.send("Say red.")
    chat.button("Edit and ask again", ".message.user").click()
    chat.page.fill(".edit-field", "Say blue.")
    chat.page.press(".edit-field", "Enter")
    chat.wait_answer()
    with chat.page.expect_download() as downloading:
        chat.page.click("#export-all")
    file = tmp_path / "kept.json"
    downloading.value.save_as(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert len(content["conversations"]) == 1 and len(content["conversations"][0]["nodes"]) == 4
    answer = chat.answer()
    chat.import_file(file)
    chat.page.wait_for_selector(".notice:has-text('1 imported')")
    assert len(chat.titles()) == 2  # beside the first, not over it
    assert chat.texts("user") == ["Say blue."] and chat.answer() == answer
    chat.button("Previous version", ".message.user").click()
    assert chat.texts("user") == ["Say red."]
    chat.open()
    assert len(chat.titles()) == 2


NODE = {"id": "a", "parent": "", "role": "user", "content": "x"}
WRONG = {
    "it is not JSON": "{",
    "it is not a file of phi4mini-conversations": "[]",
    "it is of version 9, this page reads version 1": {"version": 9},
    "conversation 1 is not an object": [7],
    "conversation 1 has no nodes": [{}],
    'conversation 1 has a node of role "system"': [{"nodes": {"a": NODE | {"role": "system"}}}],
    "conversation 1 has a node whose parent is missing": [{"nodes": {"a": NODE | {"parent": "b"}}}],
    "conversation 1 has a node a without its own id": [{"nodes": {"a": NODE | {"id": "b"}}}],
    "conversation 1 has nodes that follow each other in a circle": [{"nodes": {"a": NODE | {"parent": "a"}}}],
    "conversation 1 has a node of role user whose content is no text": [{"nodes": {"a": NODE | {"content": 1}}}],
    "conversation 1 has a tool call without id, name or arguments": [{"nodes": {"a": NODE | {"tool_calls": [{}]}}}],
    "conversation 2 is not an object": [conversation(("user", "x")), None],
}


def test_a_wrong_file_is_refused_whole_and_says_why(chat, tmp_path):
    for message, content in WRONG.items():
        path = tmp_path / "wrong.json"
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, dict):
            write_export(path, **content)
        else:
            write_export(path, *content)
        chat.import_file(path)
        chat.page.get_by_text(f"wrong.json was not imported: {message}", exact=True).wait_for()
        assert chat.titles() == []


def test_two_tabs_never_lose_what_the_other_wrote(chat, context, server):
    chat.send("Say red.")
    other = ChatPage(context, server)
    other.page.click(".entry-title")
    assert other.texts("user") == ["Say red."]
    chat.send("And now green.")
    other.page.wait_for_selector(".message.user:has-text('And now green.')")  # it follows while it is not writing
    other.page.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    other.send("Only here.")
    chat.send("Only there.")
    chat.page.wait_for_selector(".notice:has-text('Another tab has changed this conversation')")
    fresh = ChatPage(context, server)
    assert sorted(fresh.titles()) == ["Say red.", "Say red. (this tab)"]
    said = []
    for title in ("Say red.", "Say red. (this tab)"):
        fresh.page.get_by_role("button", name=title, exact=True).click()
        said.append(fresh.texts("user")[-1])
    assert said == ["Only here.", "Only there."]


def test_a_full_disk_is_told_and_the_page_goes_on(context, server):
    context.add_init_script(
        "IDBObjectStore.prototype.put = () => { throw new DOMException('no room', 'QuotaExceededError'); };"
    )
    chat = ChatPage(context, server)
    chat.set_up(max_tokens="8")
    chat.send("Say red.")
    assert "the browser's storage is full" in chat.page.locator(".notice").inner_text()
    assert chat.answer().strip()


def test_without_storage_the_page_says_so_and_works(context, server):
    context.add_init_script("Object.defineProperty(window, 'indexedDB', {value: undefined});")
    chat = ChatPage(context, server)
    assert "This browser keeps nothing" in chat.page.locator(".notice").inner_text()
    chat.set_up(max_tokens="8")
    chat.send("Say red.")
    assert chat.answer().strip()


IMG = "<img src=x onerror=alert(1)>"
EVIL = "\n\n".join(f"{text}\n\n" + f"x {text.splitlines()[0]} y" for text in HOSTILE)
TABLE = "|a" * 300 + "|\n" + "|-" * 300 + "|\n" + "|b" * 300 + "|\n"


def test_B18_nothing_stored_runs(chat, context, server, tmp_path):
    """Hostile texts in every field of an import: answers, questions, titles, calls, errors, ids."""
    call = {"id": "c", "type": "function", "function": {"name": IMG, "arguments": EVIL}}
    fields = {"tool_calls": [call], "error": {"message": IMG}, "stats": {"rate": IMG, "tokens": 3}, "finish": IMG}
    evil = conversation(("user", EVIL), ("assistant", EVIL), ("user", "x"), ("assistant", TABLE), title=IMG, **fields)
    chat.import_file(write_export(tmp_path / "evil.json", evil))
    chat.page.wait_for_selector(".message.assistant .body table")
    chat.page.wait_for_selector(".message.assistant .body .code")
    assert chat.page.locator(".body img, .body script, .body svg, .body iframe, .body form, .body style").count() == 0
    for address in chat.page.eval_on_selector_all(".body a[href]", "links => links.map(a => a.href)"):
        assert address.startswith(("http://", "https://", "mailto:"))
    assert all(address.startswith((server, "blob:")) for address in chat.asked)
    assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_B18_even_hostile_html_from_the_renderer_cannot_run(chat, tmp_path):
    """The second wall: were the allow-list to fail, the policy still stops scripts, styles and foreign pictures."""
    html = (
        "<p>still here</p><img src=x onerror='window.ran=1'><script>window.ran=1</script>"
        "<iframe srcdoc='<script>parent.ran=1</script>'></iframe><svg onload='window.ran=1'></svg>"
        "<img src='http://127.0.0.2:9/x.png'><p style='color:red'>a</p><a id=js href='javascript:window.ran=1'>x</a>"
    )
    chat.page.route("**/page/render", lambda route: route.fulfill(json={"html": html}))
    chat.import_file(write_export(tmp_path / "evil.json", conversation(("user", "x"), ("assistant", "some text"))))
    chat.page.get_by_text("still here").wait_for()
    chat.page.click("#js")
    chat.page.wait_for_timeout(300)
    assert chat.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in fault for fault in chat.faults)
    chat.faults.clear()


def test_a_text_is_shown_plain_when_it_cannot_be_rendered(chat, tmp_path):
    chat.page.route("**/page/render", lambda route: route.abort())
    chat.import_file(write_export(tmp_path / "a.json", conversation(("user", "x"), ("assistant", "**all** of\nit"))))
    chat.page.wait_for_selector(".unrendered")
    assert chat.answer() == "**all** of\nit"
    chat.faults.clear()


def test_code_is_copied_with_its_button(chat, tmp_path):
    text = "```python\nprint('<b>')\n```"
    chat.import_file(write_export(tmp_path / "a.json", conversation(("user", "x"), ("assistant", text))))
    chat.page.click(".copy")
    chat.page.wait_for_selector(".copy.done")
    assert chat.page.evaluate("navigator.clipboard.readText()") == "print('<b>')\n"


LONG_LINES = ["A long word: " + "w" * 400, "```\n" + "x = 1; " * 100 + "\n```", "`" + "c" * 300 + "`"]
WIDE = "\n\n".join([*LONG_LINES, TABLE, "$$" + " + ".join(["x^2"] * 80) + "$$"])


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, server, tmp_path, width):
    context = browser.new_context(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True)
    try:
        chat = ChatPage(context, server)
        wide = conversation(("user", "w" * 300), ("assistant", WIDE), title="w" * 100)
        chat.import_file(write_export(tmp_path / "wide.json", wide))
        chat.page.wait_for_selector(".body table")
        assert chat.page.evaluate("document.documentElement.scrollWidth") == width
        assert chat.page.evaluate("document.querySelector('#scroller').scrollWidth <= innerWidth")
        assert not chat.page.locator("#sidebar").is_visible()
        chat.page.tap("#menu")
        assert chat.page.locator("#sidebar").is_visible()
        chat.page.wait_for_timeout(300)
        chat.page.tap("#scrim", position={"x": width - 5, "y": 400})
        assert not chat.page.locator("#sidebar").is_visible()
        chat.page.fill("#draft", "one")
        chat.page.press("#draft", "Enter")  # on a touch keyboard a new line; the button sends
        assert chat.page.input_value("#draft") == "one\n"
        assert chat.faults == []
    finally:
        context.close()
