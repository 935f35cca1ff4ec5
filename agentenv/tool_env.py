"""`ToolEnv`: an environment whose methods are the agent's tools. This is what people subclass."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from agentenv.env import Env, Reply
from agentenv.errors import ToolError, WorkspaceError
from agentenv.jsonable import json_text
from agentenv.malformed import call_problem
from agentenv.tools import Tool, collect_tools, unknown_tool
from agentenv.types import Action, Message, ToolCall, ToolSchema, message_text

__all__ = ["ToolEnv"]


class ToolEnv(Env):
    """An environment whose methods are the agent's tools: mark them with `@tool`.

    Type hints and docstrings become JSON schemas, arguments are validated, a wrong call is an observation that the
    agent can read, `finish` ends the episode, and `max_steps` truncates it.
    """

    _tools: Mapping[str, Tool] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._tools = collect_tools(cls)

    @property
    @override
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call, in OpenAI's format."""
        return tuple(entry.schema for entry in self._tools.values())

    @override
    def respond(self, action: Action) -> Reply:
        if not action.tool_calls:
            return self.on_text(action.content)
        messages: list[Message] = []
        for call in action.tool_calls:
            if self._terminated:
                break
            answer: Message = {"role": "tool", "content": self._call(call), "name": call.name}
            if call.id:
                answer["tool_call_id"] = call.id
            messages.append(answer)
        if not self._terminated and (problem := call_problem(action.content)):
            # Where one call of several was broken, a message of its own would upset templates that count roles.
            note = self.note_mistake(f"another tool call of the message was not made: {problem}")
            messages[-1] = {**messages[-1], "content": f"{message_text(messages[-1])}\n\n({note})"}
        return messages

    def on_text(self, text: str) -> Reply:
        """Answers an action without tool calls: a reminder of the tools, unless a subclass wants the text."""
        problem = call_problem(text) or "no tool was called"
        signatures = ", ".join(entry.signature for entry in self._tools.values())
        return self.note_mistake(f"{problem}. Tools: {signatures}")

    def _call(self, call: ToolCall) -> str:
        entry = self._tools.get(call.name)
        if entry is None:
            return self.note_mistake(unknown_tool(call.name, self._tools))
        try:
            answer = getattr(self, call.name)(**entry.validate(call))
        except ToolError as error:
            return self.note_mistake(str(error))
        except WorkspaceError as error:  # a file of the sandbox that is not there: which one, the agent said
            return self.note_mistake(str(error.strerror or error))
        if isinstance(answer, str):
            return answer
        return "" if answer is None else json_text(answer)
