"""A conversation that is to be answered, the same for every dialect: from messages to ids, and from ids to runs.

Promises: the model sees what `chat.render` writes and nothing else; a grammar belongs to one choice of one request; a
call that tool_choice requires is well-formed, and its arguments follow the function's schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phi4mini.chat import format_named, functions_of, messages_from
from phi4mini.chat.messages import Message
from phi4mini.errors import BadInput
from phi4mini.grammar import BadForm
from phi4mini.llm.run import Run
from phi4mini.server.dialects.hosted_tools import Tools
from phi4mini.server.dialects.prompts import MANY, bounded, clip, run_for, text_size
from phi4mini.server.dialects.response_format import ResponseFormat
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import Service, ServiceCall

MOST_TOOLS = 128


@dataclass
class Conversation:
    """`tool_choice`: none, auto, required, or "=" and a function's name."""

    messages: Sequence[Message | Mapping[str, Any]]
    tools: Tools = field(default_factory=dict)
    tool_choice: str = "auto"
    parallel: bool = True  # whether there may be several calls
    format: ResponseFormat | None = None
    continued: bool = False  # the last message is the beginning of the answer
    salt: str | None = None
    clip: bool = False  # a limit of new tokens beyond the context means: to the end of the context

    async def runs(self, call: ServiceCall, samplings: Sequence[dict[str, Any]]) -> list[Run]:
        """One run for each choice, of which `samplings` has the keywords. Raises on faulty messages, tools, schema."""
        return await call.service.apart(lambda: self._runs(call, samplings), self._size)

    async def ids(self, call: ServiceCall) -> list[int]:
        """The ids that the model would see; no grammar is compiled."""
        return await call.service.apart(lambda: self._ids(call.service, self._shown_tools()), self._size)

    @property
    def _size(self) -> int:
        """Characters of the texts; MANY with tools or a format, since compiling a grammar may take long."""
        if self.format is not None or self.tools:
            return MANY
        contents = [m.get("content") if isinstance(m, Mapping) else m.content for m in self.messages]
        return sum(text_size(content) for content in contents) + 16 * len(contents)

    def _runs(self, call: ServiceCall, samplings: Sequence[dict[str, Any]]) -> list[Run]:
        service = call.service
        tools = self._shown_tools()
        ids = self._ids(service, tools)
        runs = []
        for sampling in samplings:
            if self.clip:
                clip(sampling, service.facts.ctx - len(ids))
            if self.tool_choice == "none" and self.tools:
                sampling["banned_ids"] = _call_openers(service)
            constraint = self._constraint(call)
            runs.append(run_for(call, ids, sampling, service.text.reader(tools), self.salt, constraint))
        return runs

    def _ids(self, service: Service, tools: Sequence[Mapping[str, Any]] | None) -> list[int]:
        if not self.messages:
            raise BadInput("messages is empty: there is nothing to answer")
        turns = messages_from(self.messages)
        for turn in turns:
            if turn.role == "tool" and not turn.tool_call_id:
                raise BadInput(f"{turn.place}.tool_call_id is missing: which call does it answer?")
        if not self.continued:
            if turns[-1].role == "assistant":
                raise BadInput(
                    "messages: the last one is the assistant's; set continue_final_message to have it continued"
                )
            return service.text.render(turns, tools).ids
        if turns[-1].role != "assistant" or turns[-1].tool_calls or len(turns) < 2:
            raise BadInput("continue_final_message: the last message must be text of the assistant, after another one")
        ids = service.text.render(turns[:-1], tools).ids
        return [*ids, *service.text.tokenizer.encode(turns[-1].content)]

    def _shown_tools(self) -> Sequence[Mapping[str, Any]] | None:
        """The tools that the model is shown, None for none. Raises on faulty tools, named by the index they had."""
        tools = list(self.tools.values())
        bounded("tools", tools, MOST_TOOLS)
        functions = {function["name"] for function in functions_of(tools, list(self.tools))}
        named = self.tool_choice[1:] if self.tool_choice.startswith("=") else None
        if named is not None and named not in functions:
            raise BadInput(f"tool_choice: the function {named[:64]!r} is not among the tools")
        if self.tool_choice == "required" and not functions:
            raise BadInput("tool_choice is required, but there are no tools")
        return tools if tools and self.tool_choice != "none" else None

    def _constraint(self, call: ServiceCall) -> Any:
        """A new constraint, or None. Parts of schemas that are not followed are named as ignored. Raises 400."""
        if not self.tools or self.tool_choice == "none":
            return self.format.constraint(call) if self.format else None
        text, choice, dropped = call.service.text, self.tool_choice, list[str]()
        wanted: dict[str, Any] = {"parallel": self.parallel, "text": self.format and self.format.form}
        wanted["required"] = choice[1:] if choice.startswith("=") else choice == "required"
        try:
            made = text.grammars.tool_calls(list(self.tools.values()), text.chat_format, **wanted, dropped=dropped)
        except BadForm as error:
            assert self.format is not None
            raise self.format.refused(error) from None
        except BadInput as error:
            raise ApiError(400, str(error), param="tools", code="invalid_schema") from None
        call.ignore([f"tools.{place}" for place in dropped])
        return made


def _call_openers(service: Service) -> list[int]:
    """Ids that would begin a tool call; tool_choice "none" bans them."""
    opener = format_named(service.text.chat_format).call_open
    id = service.text.tokenizer.id_of(opener) if opener else None
    return [] if id is None else [id]


def chosen_tool(given: Any) -> str:
    """OpenAI's tool_choice as `Conversation.tool_choice`. Raises 400 for anything but its four forms."""
    match given:
        case None:
            return "auto"
        case "none" | "auto" | "required":
            return str(given)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return f"={name}"
    known = 'none, auto, required or {"type": "function", "function": {"name": ...}}'
    raise ApiError(400, f"tool_choice must be {known}", param="tool_choice", code="invalid_value")
