"""What a template does with earlier turns is found without being told which family it is of."""

import pytest
from chat_families import FAMILIES, chat_of

from agentenv.agents.history_probe import probe_history

APPENDS, REWRITES, REFUSES, UNKNOWN = "appends", "rewrites", "refuses", "unknown"
FOUND = {
    #            an answer, reasoning and one, a call, reasoning and one, several at once
    "qwen3": (REWRITES, REWRITES, REWRITES, APPENDS, REWRITES),  # empty thoughts are left out, too
    "qwen3_instruct_2507": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "qwen3_coder": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "llama3_1": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, REFUSES),
    "mistral": (REWRITES, UNKNOWN, APPENDS, UNKNOWN, APPENDS),  # tools go before the last message of the user
    "gemma3": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "deepseek_v3": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "glm4_5": (APPENDS, REWRITES, APPENDS, APPENDS, APPENDS),
    "gpt_oss": (REWRITES, REWRITES, APPENDS, APPENDS, REFUSES),
    "hermes": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "llama3": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
    "plain": (APPENDS, UNKNOWN, APPENDS, UNKNOWN, APPENDS),
}


def kind(habit):
    if habit.appends:
        return APPENDS
    return REFUSES if habit.drift.refused else REWRITES if habit.known else UNKNOWN


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_told_by_its_habits(name):
    habits = probe_history(chat_of(name))
    assert tuple(map(kind, habits)) == FOUND[name]
    for habit in habits:
        assert bool(habit.reason) == (kind(habit) == REFUSES)
        assert (habit.drift.dropped > 0) == (kind(habit) in {REWRITES, UNKNOWN})


def test_what_history_the_agent_was_made_with_does_not_matter():
    assert probe_history(chat_of("qwen3", history="template")) == probe_history(chat_of("qwen3"))


def test_without_tools_there_are_no_calls_to_try():
    chat = chat_of("llama3", parser=None)
    assert chat.tool_problem
    assert [habit.what for habit in probe_history(chat)] == ["an answer", "reasoning and an answer"]
