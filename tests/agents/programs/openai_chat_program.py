"""An agent program as people write them: the openai client, a loop, tools behind HTTP. Knows nothing of agentenv."""

import json
import os
import sys
import urllib.request

import openai


def call_tool(name, arguments):
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    url = f"{os.environ['AGENTENV_TOOLS_URL']}/{name}"
    request = urllib.request.Request(url, json.dumps(arguments).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["content"]


def main():
    session = json.loads(os.environ["AGENTENV_SESSION"])
    prompt = sys.stdin.read()
    stream = "--stream" in sys.argv
    messages = [{"role": "user", "content": prompt}]
    with openai.OpenAI() as client:
        for _ in range(20):
            ask = {"model": "any", "messages": messages, "tools": session["tools"], "temperature": 0.3}
            if stream:
                with client.chat.completions.stream(**ask) as events:
                    message = events.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(**ask).choices[0].message
            if not message.tool_calls:
                break
            calls = [call.model_dump(include={"id", "type", "function"}) for call in message.tool_calls]
            messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
            for call in message.tool_calls:
                answer = call_tool(call.function.name, json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": answer})


main()
