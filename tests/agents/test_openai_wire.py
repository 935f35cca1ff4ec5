"""What goes to a server of chat completions and what comes back, with the quirks that servers have."""

from typing import Any

import pytest
from openai_server import completion, guess

from agentenv.agents.openai_wire import GarbledAnswerError, read_completion, write_messages
from agentenv.types import ToolCall, Usage


def test_a_conversation_is_written_with_ids_valid_arguments_and_both_names_of_reasoning():
    messages: list[Any] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "reasoning": "hm", "tool_calls": [
            ToolCall("guess", {"number": 1}).to_dict(), ToolCall("guess", "{broken").to_dict()]},
        {"role": "tool", "content": "low", "name": "guess"},
        {"role": "tool", "content": "no JSON", "name": "guess"},
        {"role": "assistant", "content": "so", "thinking": "well"},
    ]  # fmt: skip
    _, first, low, broken, second = write_messages(messages)
    assert [call["id"] for call in first["tool_calls"]] == ["call_0_0", "call_0_1"]
    assert [call["function"]["arguments"] for call in first["tool_calls"]] == [
        '{"number": 1}',
        '{"arguments": "{broken"}',
    ]
    assert (low["tool_call_id"], broken["tool_call_id"]) == ("call_0_0", "call_0_1")
    assert first["reasoning"] == first["reasoning_content"] == "hm" and second["reasoning"] == "well"
    assert "thinking" not in second and "tool_calls" not in second
    assert not {"reasoning", "reasoning_content"} & write_messages(messages, reasoning=False)[1].keys()


def test_calls_with_ids_of_their_own_keep_them_whatever_the_order_of_the_answers():
    calls = [ToolCall("guess", {}, "b").to_dict(), ToolCall("guess", {}, "a").to_dict()]
    _, *answers = write_messages([{"role": "assistant", "content": "", "tool_calls": calls},
                                  {"role": "tool", "content": "1", "tool_call_id": "a"},
                                  {"role": "tool", "content": "2"}])  # fmt: skip
    assert [answer["tool_call_id"] for answer in answers] == ["a", "b"]


USED = {"prompt_tokens": 9, "completion_tokens": 2}
QUIRKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null content": (completion(None, [guess()]), {"content": "", "calls": [("guess", {"number": 50}, "c1")]}),
    "a mapping": (
        completion("", [guess(function={"name": "guess", "arguments": {"number": 5}})]),
        {"calls": [("guess", {"number": 5}, "c1")]},
    ),
    "no ids": (completion("", [guess(id=None), guess(id="")]), {"ids": ["call_3_0", "call_3_1"]}),
    "ids twice": (completion("", [guess(), guess()]), {"ids": ["c1", "call_3_1"]}),
    "null arguments": (
        completion("", [guess(function={"name": "guess", "arguments": None})]),
        {"calls": [("guess", {}, "c1")]},
    ),
    "the old form": (completion(None, function_call={"name": "guess", "arguments": "{}"}), {"ids": ["call_3_0"]}),
    "reasoning": (completion("a", reasoning="hm"), {"content": "a", "reasoning": "hm"}),
    "reasoning_content": (completion("a", reasoning_content="hm"), {"reasoning": "hm"}),
    "thoughts in the text": (completion("<think>hm</think>a"), {"content": "a", "reasoning": "hm"}),
    "parts": (completion([{"type": "text", "text": "a"}]), {"content": "a"}),
    "a refusal": (completion(None, refusal="I cannot."), {"content": "I cannot.", "finish": "stop"}),
    "tool calls end": (completion("", [guess()], "tool_calls"), {"finish": "stop"}),
    "cut": (completion("", [guess(function={"name": "guess", "arguments": '{"num'})], "length"),
            {"finish": "length", "calls": [("guess", '{"num', "c1")]}),
    "cut before its name": (completion("so", [{"id": "c", "function": {"name": None}}], "length"), {"calls": []}),
    "filtered": (completion("", None, "content_filter"), {"finish": "content_filter"}),
    "usage": (completion("a", usage=USED | {"prompt_tokens_details": {"cached_tokens": 4}}), {"usage": Usage(9, 4, 2)}),
    "usage of DeepSeek": (completion("a", usage=USED | {"prompt_cache_hit_tokens": 3}), {"usage": Usage(9, 3, 2)}),
    "no details": (completion("a", usage=USED | {"prompt_tokens_details": None}), {"usage": Usage(9, 0, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirks_of_servers(quirk):
    data, wanted = QUIRKS[quirk]
    action = read_completion(data, turn=3)
    found = {
        "content": action.content,
        "calls": [(call.name, call.arguments, call.id) for call in action.tool_calls],
        "ids": [call.id for call in action.tool_calls],
        "reasoning": action.reasoning,
        "finish": action.finish_reason,
        "usage": action.usage,
    }
    assert {name: found[name] for name in wanted} == wanted


def logprobs(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"content": list(entries)}


TOKENS: dict[str, tuple[dict[str, Any], Any, Any, Any]] = {
    "vLLM": (
        completion("a", token_ids=[5, 6], prompt_token_ids=[1, 2, 3],
                   logprobs=logprobs({"token": "a", "logprob": -0.5}, {"token": "", "logprob": -1})),
        (5, 6), (-0.5, -1.0), (1, 2, 3)),
    "ids as tokens": (
        completion("a", logprobs=logprobs({"token": "token_id:5", "logprob": -0.5},
                                          {"token": "token_id:6", "logprob": -1})),
        (5, 6), (-0.5, -1.0), None),
    "llama.cpp": (completion("a", logprobs=logprobs({"id": 5, "token": "a", "logprob": -0.5})), (5,), (-0.5,), None),
    "no ids": (completion("a", logprobs=logprobs({"token": "a", "logprob": -0.5})), None, None, None),
    "null": (completion("a", logprobs=None, token_ids=None), None, None, None),
    "not as many": (
        completion("a", token_ids=[5, 6], logprobs=logprobs({"token": "a", "logprob": -1})), (5, 6), None, None),
    "no number": (completion("a", token_ids=[5], logprobs=logprobs({"token": "a", "logprob": None})), (5,), None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    "entries",
    [{"usage": "many"}, {"usage": {"prompt_tokens": "9", "prompt_tokens_details": 3}}, {"logprobs": [1]},
     {"logprobs": {"content": [1, None]}}, {"token_ids": "1 2"}, {"token_ids": [None]}],
)  # fmt: skip
def test_additions_that_are_odd_are_left_out(entries):
    action = read_completion(completion("a", **entries))
    assert (action.content, action.token_ids, action.logprobs) == ("a", None, None)


@pytest.mark.parametrize("server", TOKENS)
def test_token_ids_and_log_probabilities(server):
    data, ids, values, prompt = TOKENS[server]
    action = read_completion(data)
    assert (action.token_ids, action.logprobs, action.prompt_token_ids) == (ids, values, prompt)


@pytest.mark.parametrize(
    "data", [[], 7, {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 3}]}, {"error": {"code": 500}},
             completion("", [{"id": "x", "function": {}}]), completion(5), completion("", "calls"), completion("", [7]),
             {"choices": {"0": 1}}, {"choices": [{"message": []}]}, completion("", {"a": 1})],
)  # fmt: skip
def test_what_is_no_completion_is_named(data):
    with pytest.raises(GarbledAnswerError):
        read_completion(data)
