"""An agent program of openai-agents: a manager with the tools, and a helper that it asks as a tool."""

import asyncio
import json
import os
import sys
import urllib.request

from openai import AsyncOpenAI

from agents import Agent, FunctionTool, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, set_tracing_disabled


def call_tool(name, arguments):
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    url = f"{os.environ['AGENTENV_TOOLS_URL']}/{name}"
    request = urllib.request.Request(url, arguments.encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["content"]


def as_tool(declared):
    async def invoke(_, arguments, name=declared["name"]):
        return await asyncio.to_thread(call_tool, name, arguments)

    parts = {"description": declared["description"], "params_json_schema": declared["parameters"]}
    return FunctionTool(name=declared["name"], on_invoke_tool=invoke, strict_json_schema=False, **parts)


async def main():
    set_tracing_disabled(True)
    tools = [as_tool(tool["function"]) for tool in json.loads(os.environ["AGENTENV_SESSION"])["tools"]]
    async with AsyncOpenAI() as client:
        kind = OpenAIResponsesModel if "--responses" in sys.argv else OpenAIChatCompletionsModel
        model = kind(model="any", openai_client=client)
        helper = Agent(name="helper", instructions="You estimate.", model=model)
        asks = helper.as_tool(tool_name="estimate", tool_description="Estimates a number.")
        manager = Agent(name="manager", instructions="You calculate.", model=model, tools=[*tools, asks])
        if "--stream" in sys.argv:
            result = Runner.run_streamed(manager, sys.stdin.read(), max_turns=20)
            async for _ in result.stream_events():
                pass
        else:
            result = await Runner.run(manager, sys.stdin.read(), max_turns=20)
        assert result.final_output


asyncio.run(main())
