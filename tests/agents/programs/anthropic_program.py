"""An agent program as people write them: the anthropic client, streaming, a loop. Knows nothing of agentenv."""

import json
import os
import sys
import urllib.request

import anthropic


def call_tool(name, arguments):
    headers = {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"]}
    url = f"{os.environ['AGENTENV_TOOLS_URL']}/{name}"
    request = urllib.request.Request(url, json.dumps(arguments).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main():
    declared = [tool["function"] for tool in json.loads(os.environ["AGENTENV_SESSION"])["tools"]]
    tools = [{"name": t["name"], "description": t["description"], "input_schema": t["parameters"]} for t in declared]
    messages = [{"role": "user", "content": sys.stdin.read()}]
    with anthropic.Anthropic() as client:
        for _ in range(20):
            with client.messages.stream(model="any", max_tokens=256, messages=messages, tools=tools) as events:
                message = events.get_final_message()
            if message.stop_reason != "tool_use":
                break
            messages.append({"role": "assistant", "content": message.content})
            results = []
            for block in message.content:
                if block.type == "tool_use":
                    done = call_tool(block.name, block.input)
                    result = {"type": "tool_result", "tool_use_id": block.id, "content": done["content"]}
                    results.append(result | {"is_error": done["is_error"]})
            messages.append({"role": "user", "content": results})


main()
