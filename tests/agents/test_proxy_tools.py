"""Tools that are no plain functions before the proxy: namespaces and custom tools, with the real client."""

from typing import Any

import openai
import pytest
from proxy_clients import call, http

from agentenv.agents import ProgramRollout, ScriptedAgent
from agentenv.agents.proxy import Proxy

FUNCTION = {"type": "function", "name": "read", "parameters": {"type": "object", "properties": {"path": {}}}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'}
PATCH = {"type": "custom", "name": "apply", "description": "Patches.", "format": GRAMMAR}
TOOLS: Any = [
    {"type": "namespace", "name": "mcp__files", "description": "d", "tools": [FUNCTION, PATCH]},
    {**FUNCTION, "name": "look"},
    {**PATCH, "name": "patch"},
]
TEXT = '*** Begin Patch\n"é"'
SCRIPT: list[Any] = [
    {
        "role": "assistant",
        "tool_calls": [
            *call("mcp__files__read", path="a")["tool_calls"],
            *call("mcp__files__apply", input=TEXT)["tool_calls"],
            *call("patch", input=TEXT)["tool_calls"],
        ],
    },
    call("patch", text="not so"),  # goes out as a function's call: the program says what is wrong with it
    call("look", path="b"),
    "done",
]


def converse(session: dict[str, Any], *, stream: bool) -> list[list[tuple[Any, ...]]]:
    """Plays by responses, answering every call; returns what was called."""
    items: list[Any] = [{"role": "user", "content": "go"}]
    called: list[list[tuple[Any, ...]]] = []
    with openai.OpenAI(base_url=session["base_url"], api_key=session["api_key"], max_retries=0) as client:
        for _ in SCRIPT:
            if stream:
                with client.responses.stream(model="m", input=items, tools=TOOLS) as events:
                    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
                    response: Any = events.get_final_response()
                assert deltas == [item.input for item in response.output if item.type == "custom_tool_call"]
            else:
                response = client.responses.create(model="m", input=items, tools=TOOLS)
            items += [item.model_dump(exclude_none=True) for item in response.output]
            called.append([])
            for item in response.output:
                if item.type in {"function_call", "custom_tool_call"}:
                    given = item.input if item.type == "custom_tool_call" else item.arguments
                    called[-1].append((item.type, item.namespace, item.name, given))
                    items.append({"type": f"{item.type}_output", "call_id": item.call_id, "output": "ok"})
    return called


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_namespaces_and_custom_tools(stream):
    offered = []

    def policy(context):
        offered.append([tool["function"] for tool in context.tools])
        return SCRIPT[sum(message["role"] == "assistant" for message in context.messages)]

    with Proxy(ScriptedAgent(policy)) as proxy:
        session = proxy.open(tree="t")
        assert converse(proxy.describe(session), stream=stream) == [
            [
                ("function_call", "mcp__files", "read", '{"path": "a"}'),
                ("custom_tool_call", "mcp__files", "apply", TEXT),
                ("custom_tool_call", None, "patch", TEXT),
            ],
            [("function_call", None, "patch", '{"text": "not so"}')],
            [("function_call", None, "look", '{"path": "b"}')],
            [],
        ]
        session.give_reward(1)
        proxy.end(session)
        tree = proxy.trees["t"]
    assert [node.parent for node in tree.nodes] == [-1, 0, 1, 2, 3]  # one conversation: nothing reads otherwise again
    assert [tool["name"] for tool in offered[0]] == ["mcp__files__read", "mcp__files__apply", "look", "patch"]
    assert GRAMMAR["definition"] in offered[0][1]["description"]
    assert [message.get("name") for message in tree.nodes[1].observation] == [
        made["function"]["name"] for made in SCRIPT[0]["tool_calls"]
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_completions_with_a_custom_tool(stream):
    tools: Any = [{"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}]
    messages: list[Any] = [{"role": "user", "content": "go"}]
    with Proxy(ScriptedAgent([call("patch", input=TEXT), "done"])) as proxy:
        session = proxy.open(tree="t")
        told = proxy.describe(session)
        with openai.OpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=0) as client:
            if stream:  # the client's own stream knows functions only
                made: dict[str, Any] = {}
                for chunk in client.chat.completions.create(model="m", messages=messages, tools=tools, stream=True):
                    for delta in chunk.choices[0].delta.tool_calls or ():
                        piece = delta.model_dump(exclude_none=True)
                        made |= piece | {"custom": made.get("custom", {}) | piece.pop("custom")}
            else:
                answer = client.chat.completions.create(model="m", messages=messages, tools=tools)
                (found,) = answer.choices[0].message.tool_calls or []
                made = found.model_dump(exclude_none=True)
            assert (made["type"], made["custom"]) == ("custom", {"name": "patch", "input": TEXT})
            messages += [
                {"role": "assistant", "tool_calls": [made]},
                {"role": "tool", "tool_call_id": made["id"], "content": "ok"},
            ]
            assert client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message.content
        session.give_reward(1)
        proxy.end(session)
        assert [node.parent for node in proxy.trees["t"].nodes] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        ([{"type": "web_search"}], "turn it off in the program's settings"),
        ([{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}], "tools[0].tools[0].type"),
        ([{"type": "namespace", "tools": [FUNCTION]}], "tools[0].name must be text"),
        ([{"type": "namespace", "name": "n", "tools": FUNCTION}], "tools[0].tools must be an array"),
        ([{"type": "custom", "name": "x", "format": "text"}], "tools[0].format must be an object"),
        ([TOOLS[0], {**FUNCTION, "name": "mcp__files__read"}], "['mcp__files__read'] twice"),
    ],
)
def test_wrong_tools_are_named(tools, names):
    with Proxy(ScriptedAgent(["hello"])) as proxy:
        told = proxy.describe(proxy.open())
        status, answer = http("POST", f"{told['base_url']}/responses", told["api_key"], {"input": "hi", "tools": tools})
        assert status == 400
        assert names in answer["error"]["message"]


@pytest.mark.parametrize("varying", ["Wall time", ["("], [3]])
def test_varying_wants_regular_expressions(varying):
    for make in (
        lambda: Proxy(ScriptedAgent([]), varying=varying),
        lambda: ProgramRollout(None, ScriptedAgent([]), command=["true"], varying=varying),
    ):
        with pytest.raises(ValueError, match="varying must"):
            make()
