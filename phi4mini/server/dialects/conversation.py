"""A conversation that is to be answered, whichever dialect asked: ids, reader, grammar, runs.

Promises: the model sees what `chat.render` writes and nothing else; a grammar belongs to one choice of one request; a
call that tool_choice asks for is well-formed and its arguments follow the function's schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from phi4mini.chat import functions_of, messages_from
from phi4mini.chat.messages import Message
from phi4mini.errors import BadInput
from phi4mini.grammar import BadForm, Form
from phi4mini.llm.run import Run
from phi4mini.server.dialects.sampling_fields import MANY, bounded, text_size
from phi4mini.server.http.errors import ApiError

if TYPE_CHECKING:
    from phi4mini.server.http.endpoint import Call
    from phi4mini.server.service import Service

MOST_TOOLS = 128
Choosing = Literal["none", "auto", "required"] | str  # or "=" and a function's name


@dataclass(frozen=True)
class Format:
    """What a text must look like, and the field that says so."""

    form: Form
    param: str

    def constraint(self, call: Call) -> Any:
        """A fresh one. Raises 400; what is not held of a schema is named as ignored."""
        dropped: list[str] = []
        try:
            made = call.service.text.grammars.answer(self.form, dropped)
        except BadInput as error:
            raise self.refused(error) from None
        call.ignore([f"{self.param}.{place}" for place in dropped])
        return made

    def refused(self, error: BadInput) -> ApiError:
        """What is wrong with it, as a 400."""
        return ApiError(400, str(error), param=self.param, code="invalid_schema")


@dataclass
class Ask:
    """`sampling(i)`: keywords of the run of choice i."""

    messages: Sequence[Message | Mapping[str, Any]]
    sampling: Callable[[int], dict[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    format: Format | None = None
    n: int = 1
    continued: bool = False  # the last message is the beginning of the answer
    salt: str | None = None
    clip: bool = False  # a limit of new tokens beyond what fits means as many as fit
    extra: dict[str, Any] = field(default_factory=dict)

    async def runs(self, call: Call) -> list[Run]:
        """One run a choice. Raises what is wrong with messages, tools or schema."""
        return await call.service.apart(lambda: self._runs(call), self._size)

    async def ids(self, call: Call) -> list[int]:
        """What the model would see; the grammar is left alone."""
        service = call.service
        return await service.apart(lambda: self._ids(service, self._shown_tools()), self._size)

    @property
    def _size(self) -> int:
        """Characters of the texts; many where a grammar is to be compiled, which may take long."""
        if self.format is not None or self.tools:
            return MANY
        contents = [m.get("content") if isinstance(m, Mapping) else m.content for m in self.messages]
        return sum(text_size(content) for content in contents) + 16 * len(contents)

    def _runs(self, call: Call) -> list[Run]:
        service = call.service
        tools = self._shown_tools()
        ids = self._ids(service, tools)
        runs = []
        for index in range(self.n):
            sampling = self.sampling(index)
            if self.clip:
                clip(sampling, service.facts.ctx - len(ids))
            if self.tool_choice == "none" and self.tools:
                sampling["banned_ids"] = _call_openers(service)
            who = {"salt": self.salt, "constraint": self._constraint(call)}
            runs.append(service.run(ids, sampling, call, service.text.reader(tools), **who))
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
        bounded("tools", self.tools, MOST_TOOLS)
        functions = {function["name"] for function in functions_of(self.tools)}
        named = self.tool_choice[1:] if self.tool_choice.startswith("=") else None
        if named is not None and named not in functions:
            raise BadInput(f"tool_choice: the function {named[:64]!r} is not among the tools")
        if self.tool_choice == "required" and not functions:
            raise BadInput("tool_choice is required, but there are no tools")
        return self.tools if self.tools and self.tool_choice != "none" else None

    def _constraint(self, call: Call) -> Any:
        """What is not held of a schema is named as ignored. Raises 400."""
        if not self.tools or self.tool_choice == "none":
            return self.format.constraint(call) if self.format else None
        text, choice, dropped = call.service.text, self.tool_choice, list[str]()
        asked: dict[str, Any] = {"parallel": self.parallel, "text": self.format and self.format.form}
        asked["required"] = choice[1:] if choice.startswith("=") else choice == "required"
        try:
            made = text.grammars.tool_calls(self.tools, text.chat_format, **asked, dropped=dropped)
        except BadForm as error:
            assert self.format is not None
            raise self.format.refused(error) from None
        except BadInput as error:
            raise ApiError(400, str(error), param="tools", code="invalid_schema") from None
        call.ignore([f"tools.{place}" for place in dropped])
        return made


def clip(sampling: dict[str, Any], room: int) -> None:
    """A limit beyond the room there is becomes none: the context ends the answer."""
    if (sampling.get("max_new_tokens") or 0) > room:
        sampling.pop("max_new_tokens", None)


def _call_openers(service: Service) -> list[int]:
    """Ids that would begin a tool call."""
    from phi4mini.chat import format_named

    opener = format_named(service.text.chat_format).call_open
    id = service.text.tokenizer.id_of(opener) if opener else None
    return [] if id is None else [id]


def response_format(given: Mapping[str, Any] | None, param: str = "response_format") -> Format | None:
    """OpenAI's response_format, with `regex` and `grammar` besides. Raises 400 for what is none."""
    if given is None or given.get("type") == "text":
        return None
    match given.get("type"):
        case "json_object" if given.get("schema") is None:
            return Format(Form("json_schema", {"type": "object"}), param)
        case "json_object" | "json_schema":  # the first with a schema beside it is how llama-server's clients ask
            inner = given.get("json_schema")
            flat = "schema" in given and inner is None  # as the Responses API has it
            schema = given["schema"] if flat else inner.get("schema") if isinstance(inner, Mapping) else None
            if not isinstance(schema, (Mapping, bool)):
                where = f"{param}.schema" if flat else f"{param}.json_schema"
                raise ApiError(400, f"{where} must hold a JSON schema", param=where, code="invalid_value")
            strict = (given if flat else inner or {}).get("strict")
            return Format(Form("json_schema", schema, param.startswith("output_config") or strict is True), param)
        case "regex" if isinstance(given.get("regex"), str):
            return Format(Form("regex", given["regex"]), param)
        case "grammar" if isinstance(given.get("grammar"), str):
            return Format(Form("lark", given["grammar"]), param)
    known = "text, json_object, json_schema, regex (with regex), grammar (with grammar)"
    raise ApiError(400, f"{param}.type must be one of {known}", param=f"{param}.type", code="invalid_value")


def chosen_tool(given: Any) -> str:
    """OpenAI's tool_choice in its four forms: none, auto, required, or "=" and a name. Raises 400 for anything else."""
    match given:
        case None:
            return "auto"
        case "none" | "auto" | "required":
            return str(given)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return f"={name}"
    known = 'none, auto, required or {"type": "function", "function": {"name": ...}}'
    raise ApiError(400, f"tool_choice must be {known}", param="tool_choice", code="invalid_value")
