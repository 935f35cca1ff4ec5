"""Conversations with a proxy, as the real clients of each protocol have them."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import anthropic
import openai

__all__ = ["CONVERSE", "call", "converse_chat", "http"]

Session = dict[str, Any]


def call(name: str, content: str = "", **arguments: Any) -> dict[str, Any]:
    """An agent's message that calls one tool."""
    made = [{"function": {"name": name, "arguments": arguments}}]
    return {"role": "assistant", "content": content, "tool_calls": made}


def http(method: str, url: str, key: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an HTTP request."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"authorization": f"Bearer {key}"}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def run_tool(session: Session, name: str, arguments: Any) -> str:
    """Has the session's environment execute a tool."""
    status, answer = http("POST", f"{session['tools_url']}/{name}", session["api_key"], arguments)
    assert status == 200, answer
    return answer["content"]


def converse_chat(session: Session, *, stream: bool = False, most: int = 8) -> list[str]:
    """Plays an episode by chat completions; returns what the model said."""
    messages: list[Any] = list(session["messages"])
    said: list[str] = []
    with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=0) as client:
        for _ in range(most):
            ask: dict[str, Any] = {"model": "any", "messages": messages, "tools": session["tools"]}
            if stream:
                with client.chat.completions.stream(**ask) as events:
                    message = events.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(**ask).choices[0].message
            said.append(message.content or "")
            if not message.tool_calls:
                break
            messages.append(message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
            for made in message.tool_calls:
                answer = run_tool(session, made.function.name, json.loads(made.function.arguments))
                messages.append({"role": "tool", "tool_call_id": made.id, "content": answer})
    return said


def converse_responses(session: Session, *, stream: bool = False, chained: bool = False) -> list[str]:
    """Plays an episode by responses; `chained` sends only what is new, behind `previous_response_id`."""
    tools: Any = [{"type": "function", **tool["function"]} for tool in session["tools"]]
    items: list[Any] = [{"role": "user", "content": session["messages"][-1]["content"]}]
    said: list[str] = []
    before: Any = openai.omit
    with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=0) as client:
        for _ in range(8):
            ask: dict[str, Any] = {"model": "any", "input": items, "tools": tools, "previous_response_id": before}
            if stream:
                with client.responses.stream(**ask) as events:
                    response = events.get_final_response()
            else:
                response = client.responses.create(**ask)
            said.append(response.output_text)
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                break
            before = response.id if chained else openai.omit
            items = [] if chained else items + [item.model_dump(exclude_none=True) for item in response.output]
            for made in calls:
                answer = run_tool(session, made.name, json.loads(made.arguments))
                items.append({"type": "function_call_output", "call_id": made.call_id, "output": answer})
    return said


def converse_messages(session: Session, *, stream: bool = False) -> list[str]:
    """Plays an episode by Anthropic's messages."""
    declared = [tool["function"] for tool in session["tools"]]
    tools: Any = [
        {"name": t["name"], "description": t["description"], "input_schema": t["parameters"]} for t in declared
    ]
    messages: list[Any] = [{"role": "user", "content": session["messages"][-1]["content"]}]
    said: list[str] = []
    url = session["anthropic_base_url"]
    with anthropic.Anthropic(base_url=url, api_key=session["api_key"], max_retries=0) as client:
        for _ in range(8):
            ask: dict[str, Any] = {"model": "any", "max_tokens": 99, "messages": messages, "tools": tools}
            if stream:
                with client.messages.stream(**ask) as events:
                    message = events.get_final_message()
            else:
                message = client.messages.create(**ask)
            said.append("".join(block.text for block in message.content if block.type == "text"))
            if message.stop_reason != "tool_use":
                break
            messages.append({"role": "assistant", "content": [block.model_dump() for block in message.content]})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": run_tool(session, block.name, block.input)}
                for block in message.content
                if block.type == "tool_use"
            ]
            messages.append({"role": "user", "content": results})
    return said


CONVERSE: dict[str, Callable[[Session], list[str]]] = {
    "chat": converse_chat,
    "chat, streamed": lambda session: converse_chat(session, stream=True),
    "responses": converse_responses,
    "responses, streamed": lambda session: converse_responses(session, stream=True),
    "responses, chained": lambda session: converse_responses(session, chained=True),
    "messages": converse_messages,
    "messages, streamed": lambda session: converse_messages(session, stream=True),
}
