"""A person at a terminal as an agent."""

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from agentenv.errors import AgentEnvError
from agentenv.protocols import Context
from agentenv.types import Action, Message, ToolCall, message_text

from .typed_actions import describe_tool, read_action

__all__ = ["HumanAgent", "PlayerLeftError"]

_STYLES = {"system": "dim", "user": "bold cyan", "tool": "green", "assistant": "magenta"}
_HELP = "Type a tool and its arguments, JSON, or plain text (after > if it begins with the name of a tool)."


class PlayerLeftError(AgentEnvError, EOFError):
    """The input ended (Ctrl-D) before an action was given."""


class HumanAgent:
    """Shows a person what is new, and reads what to do.

    Args:
        reader: where lines come from; by default the terminal, with line editing.
        writer: where messages go; by default standard output.
    """

    def __init__(self, *, reader: TextIO | None = None, writer: TextIO | None = None) -> None:
        self._reader = reader
        self._console = Console(file=writer, highlight=False, soft_wrap=True)

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Asks for one action per context, in order.

        Raises:
            PlayerLeftError: the input ended.
        """
        actions: list[Action] = []
        for number, context in enumerate(contexts, start=1):
            if len(contexts) > 1:
                self._console.rule(f"episode {number} of {len(contexts)}")
            actions.append(self._ask(context))
        return actions

    def _ask(self, context: Context) -> Action:
        acted = [i for i, message in enumerate(context.messages) if message["role"] == "assistant"]
        for message in context.messages[acted[-1] + 1 if acted else 0 :]:
            self._show(message)
        if not acted:
            self._show_tools(context)
        while True:
            line = self._read()
            if line.strip() == "?":
                self._show_tools(context)
                continue
            try:
                return read_action(line, context.tools)
            except ValueError as error:
                self._console.print(Text(str(error), style="yellow"))

    def _show(self, message: Message) -> None:
        role = message["role"]
        label = " ".join(filter(None, [role, message.get("name")]))
        self._console.print(Text.assemble((f"{label}: ", _STYLES.get(role, "bold")), message_text(message)))
        for call in map(ToolCall.parse, message.get("tool_calls", ())):
            self._console.print(Text(f"  {call.name} {call.arguments}", style="magenta"))

    def _show_tools(self, context: Context) -> None:
        lines = [f"  {line}" for tool in context.tools for line in describe_tool(tool).splitlines()]
        head = [_HELP, "Tools:"] if lines else ["Type plain text."]
        self._console.print(Text("\n".join([*head, *lines]), style="dim"))

    def _read(self) -> str:
        prompt = Text("> ", style="bold")
        try:
            if self._reader is None:
                return self._console.input(prompt)
            self._console.print(prompt, end="")
            line = self._reader.readline()
        except EOFError:
            line = ""
        if not line:
            self._console.print()
            msg = "the input ended before an action was given"
            raise PlayerLeftError(msg)
        return line
