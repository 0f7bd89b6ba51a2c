"""The chat page as a test uses it: what can be done and what can be seen, in the words of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WAIT = 60_000  # ms; the demo answers within a second or two, a busy machine may not


class ChatPage:
    """A page that is open; keeps what went wrong in it and which addresses it asked."""

    def __init__(self, context: Any, url: str) -> None:
        self.url = url
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.open()

    def open(self) -> None:
        """Loads the page, or loads it again."""
        self.page.goto(self.url)
        self.page.wait_for_selector("#app:not([aria-busy])")

    def send(self, text: str, wait: bool = True) -> None:
        """Says something, and waits for the end of the answer."""
        self.page.fill("#draft", text)
        self.page.press("#draft", "Enter")
        if wait:
            self.wait_answer()

    def wait_answer(self) -> None:
        """Waits until nothing is being written and the last answer is rendered."""
        self.page.wait_for_selector(".message.assistant.last[data-state=done]")
        self.page.wait_for_selector("#send[aria-label=Send]")

    def set_up(self, **fields: str) -> None:
        """Fills fields of the panel; names are those of the request, and `system`."""
        self.page.click("#open-settings")
        for name, value in fields.items():
            self.page.fill("#system" if name == "system" else f"#p-{name}", value)
        self.page.keyboard.press("Escape")

    def texts(self, role: str) -> list[str]:
        """Texts of the shown messages of a role, once all of each is on the page."""
        self.page.locator(".message[aria-busy=true]").first.wait_for(state="detached")
        return self.page.locator(f".message.{role} .body").all_inner_texts()

    def answer(self) -> str:
        """Text of the last answer."""
        return self.texts("assistant")[-1]

    def fault(self) -> str:
        """What is shown as having gone wrong; empty where nothing is."""
        return "\n".join(self.page.locator(".fault:not([hidden])").all_inner_texts())

    def button(self, label: str, within: str = ".message.assistant.last") -> Any:
        """The button of that name in an element."""
        return self.page.locator(within).last.get_by_role("button", name=label, exact=True)

    def titles(self) -> list[str]:
        """Titles in the list."""
        return self.page.locator(".entry-title").all_inner_texts()

    def import_file(self, path: Path) -> None:
        """Chooses a file to import."""
        self.page.set_input_files("#import-file", path)


def conversation(*messages: tuple[str, str], title: str = "imported", **fields: Any) -> dict[str, Any]:
    """A conversation as in an export: (role, content) one after the other; fields of the last node may be given."""
    nodes: dict[str, Any] = {}
    parent = ""
    for at, (role, content) in enumerate(messages):
        nodes[f"n{at}"] = {"id": f"n{at}", "parent": parent, "role": role, "content": content, "finish": "stop"}
        parent = f"n{at}"
    nodes[parent] |= fields
    return {"id": "c1", "title": title, "system": "", "params": {}, "nodes": nodes, "chosen": {}}


def write_export(path: Path, *conversations: object, **fields: Any) -> Path:
    """A file as the page exports it; `fields` replace those at its top."""
    content = {"format": "phi4mini-conversations", "version": 1, "conversations": list(conversations)} | fields
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
