"""Every family of chat formats: an episode of five steps in a real environment, and the exact ids behind it."""

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from chat_families import FAMILIES, chat_of, tokenizer_of
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl.chat_template_utils import add_response_schema

import agentenv as ae
from agentenv.agents import TransformersAgent
from agentenv.agents.chat import ChatFormat
from agentenv.agents.drift import Drift, measure_drift
from agentenv.agents.parsers import PARSERS
from agentenv.agents.templates import _short
from agentenv.agents.text_protocol import write_as_text
from agentenv.errors import ModelError
from agentenv.protocols import Context
from agentenv.rollout import Rollout
from agentenv.stats import episode_stats
from agentenv.trainers.layout import lay_out
from agentenv.tree import Anchor, EpisodeTree
from agentenv.types import Action, Message, ToolCall, message_text

THINKS = ("qwen3", "glm4_5", "gpt_oss")
"""Families whose template knows reasoning."""

EQUAL = {"qwen3": 3, "glm4_5": 3, "gpt_oss": 2, "mistral": 3, "llama3_1": 2}
"""How many of the five prompts of exact history are the template's own rendering; all, where a template only appends.
Then come a user's message after reasoning (Qwen3, GLM) or before which the tools are written (Mistral), and two calls
in one message, which gpt-oss' template cuts to one and that of Llama refuses."""


class Places(ae.ToolEnv):
    """A conversation with a system message, whose tools say little."""

    def start(self, rng):
        system: Message = {"role": "system", "content": "Be brief."}
        user: Message = {"role": "user", "content": "Where is it?"}
        return [system, user]

    @ae.tool
    def look(self, place: str) -> str:
        """Look at a place.

        Args:
            place: its name.
        """
        return f"{place} is\n wet."

    @ae.tool
    def answer(self, place: str) -> str:
        """Answer, and end.

        Args:
            place: its name.
        """
        return self.finish("bye", reward=1.0)


def said(*places: str, name: str = "look") -> Message:
    return Action(
        "", tuple(ToolCall(name, {"place": place}, f"call_{i}") for i, place in enumerate(places))
    ).to_message()


class Recites:
    """An agent that samples five given texts: it renders and parses as a model does, without one.

    The first is reasoning with a call in it, and a call; then come two calls, a broken one, one that is cut, and the
    answer.
    """

    def __init__(self, name: str, history: Any, *, thinks: bool = True) -> None:
        self.family, self.chat, self.thinks = FAMILIES[name], chat_of(name, history=history), thinks
        self.seen: list[tuple[Context, tuple[int, ...], tuple[int, ...]]] = []

    def written(self, message: Message, tools: Any) -> str:
        ids = self.chat.action_ids(message, tools=tools)
        text = self.chat.decode(ids[:-1])
        return re.sub(r"\A\s*<think>\s*</think>\s*", "", text) if self.thinks else text

    def texts(self, tools: Any) -> list[str]:
        one, family = self.written(said("Oslo"), tools), self.family
        try:
            two = self.written(said("Rome", "Bern"), tools)
        except ModelError:
            two = family.joint.join(self.written(said(place), tools) for place in ("Rome", "Bern"))
        thought = one if family.parser != "harmony" else 'to=functions.look {"place": "Oslo"}'
        hm = f"{family.thought[0]}Shall I? {thought}{family.thought[1]}" if self.thinks else ""
        again = f"{family.thought[0]}So on.{family.thought[1]}" if hm and self.chat.rewrites else ""
        after = "\n" if family.template == "glm4moe" and hm else ""
        return [
            hm + after + one,
            again + after + two,
            family.broken,
            "I was cu",
            self.written(said("Oslo", name="answer"), tools),
        ]

    def script(self, tools: Any) -> list[tuple[int, ...]]:
        ends = [self.chat.action_ids(said("Oslo"), tools=tools)[-1:]] * 5
        ends[2] = self.chat.encode("<|user|>") if self.family.template == "glm4moe" else ends[2]
        ends[3] = ()
        return [self.chat.encode(text) + end for text, end in zip(self.texts(tools), ends, strict=True)]

    def act(self, contexts):
        (context,) = contexts
        step = sum(message["role"] == "assistant" for message in context.messages)
        prompt, ids = self.chat.prompt(context), self.script(context.tools)[step]
        self.seen.append((context, tuple(prompt), ids))
        action = self.chat.parse(ids, tools=context.tools)
        return [replace(action, token_ids=ids, logprobs=(-0.5,) * len(ids), prompt_token_ids=prompt)]

    def play(self) -> Any:
        with Rollout(Places, self) as rollout:
            return rollout.grow([None], 1)[0]


def own_rendering(name: str, context: Context) -> tuple[int, ...]:
    """What the tokenizer's template makes of a conversation by transformers alone, control tokens in it as text."""
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    messages: list[Any] = list(context.messages)
    tools = list(context.tools)
    if family.parser == "text":
        messages, tools = write_as_text(messages, tools), []
        if name == "plain":
            first = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            messages = [{"role": "user", "content": first}, *messages[2:]]
    plain = [_as_templates_expect(message, name) for message in messages]
    text = tokenizer.apply_chat_template(plain, tools=tools or None, add_generation_prompt=True, tokenize=False)
    return tuple(token for part in text.split(CUT) for token in tokenizer.encode(part, add_special_tokens=False))


CUT = "\ufdd1"


def _as_templates_expect(message: Message, name: str) -> dict[str, Any]:
    short: Any = _short if name == "mistral" else str
    new: dict[str, Any] = {**message}
    if reasoning := message.get("reasoning"):
        new |= {"reasoning_content": reasoning, "thinking": reasoning}
    if message["role"] != "assistant":
        for token in sorted((*FAMILIES[name].special, *FAMILIES[name].tags), key=len, reverse=True):
            new["content"] = new["content"].replace(token, token[0] + CUT + token[1:])
    if "tool_call_id" in new:
        new["tool_call_id"] = short(new["tool_call_id"])
    if "tool_calls" in new:
        calls = [ToolCall.parse(call) for call in new["tool_calls"]]
        new["tool_calls"] = [
            {"id": short(call.id), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return new


BOTH = pytest.mark.parametrize("history", ["exact", "template"])
EVERY = pytest.mark.parametrize("name", FAMILIES)


@BOTH
@EVERY
def test_five_steps_are_read_answered_and_stored(name, history):
    agent = Recites(name, history)
    tree = agent.play()
    family = FAMILIES[name]
    assert agent.chat.parser is PARSERS["tool_call" if family.parser == "text" else family.parser]
    steps = tree.nodes[1:]
    calls = [[(call.name, call.arguments) for call in node.action.tool_calls] for node in steps]
    oslo, answer = ("look", {"place": "Oslo"}), ("answer", {"place": "Oslo"})
    two = [("look", {"place": "Rome"}), ("look", {"place": "Bern"})]
    broken = [("look", '{"place": }')] if family.parser == "harmony" else []
    assert calls == [[oslo], two, broken, [], [answer]]
    assert "Shall I?" in steps[0].action.reasoning
    assert [node.action.content for node in steps[:2]] == ["", ""]
    assert [message_text(message) for message in steps[1].observation] == ["Rome is\n wet.", "Bern is\n wet."]
    assert family.says in message_text(steps[2].observation[0])
    assert steps[3].action.content == "I was cu"
    assert [len(node.info.get("mistakes", ())) for node in steps] == [0, 0, 1, 1, 0]
    assert (steps[4].reward, steps[4].terminated) == (1.0, True)
    for node, (context, prompt, ids) in enumerate(agent.seen):
        assert tree.prompt_token_ids(node) == prompt, "the tree stores what was seen"
        assert tree.token_ids(node + 1) == prompt + ids
        assert "mark" not in agent.chat.decode(prompt)
        new = context.messages[context.covered :]
        assert all(word in agent.chat.decode(prompt) for message in new for word in message_text(message).split()[:3])


@EVERY
def test_exact_history_keeps_what_was_sampled(name):
    for thinks in (True, False):
        agent = Recites(name, "exact", thinks=thinks)
        tree = agent.play()
        assert all(tree.prompt(node).kept == tree.length(node) for node in range(5))
        assert (episode_stats([tree]).rewritten_prompts, episode_stats([tree]).prompts) == (0, 4)
        if thinks == (name in THINKS):
            equal = [own_rendering(name, context) == prompt for context, prompt, _ in agent.seen[: EQUAL.get(name, 5)]]
            assert all(equal), equal


@EVERY
def test_template_history_is_what_the_template_writes(name):
    agent = Recites(name, "template")
    tree = agent.play()
    for context, prompt, _ in agent.seen[: 2 if name == "llama3_1" else 5]:
        assert prompt == own_rendering(name, context)
    stats = episode_stats([tree])
    assert stats.prompts == 4
    assert 1 <= stats.rewritten_prompts <= 4
    assert stats.rewritten_tokens >= 5


@BOTH
@EVERY
def test_rows_hold_exactly_what_was_seen_and_sampled(name, history):
    agent = Recites(name, history)
    tree = agent.play()
    rows = lay_out([tree])
    trained: dict[int, int] = {}
    for row, nodes in enumerate(rows.nodes):
        for node in set(nodes[rows.trained[row]].tolist()):
            places = np.flatnonzero((nodes == node) & rows.trained[row])
            _, prompt, ids = agent.seen[node - 1]
            assert tuple(rows.token_ids[row, : places[0]]) == prompt
            assert tuple(rows.token_ids[row, places]) == ids
            assert list(places) == list(range(len(prompt), len(prompt) + len(ids)))
            trained[node] = trained.get(node, 0) + 1
    assert trained == dict.fromkeys(range(1, 6), 1), "every action is trained once"
    assert len(rows) == 1 if history == "exact" else len(rows) == 1 + episode_stats([tree]).rewritten_prompts


@EVERY
def test_drift_counts_what_the_template_would_write_otherwise(name):
    tools = Places().tools
    exact, followed = Recites(name, "exact"), Recites(name, "template")
    drift, none = (measure_drift([agent.play()], agent.chat, tools=tools) for agent in (exact, followed))
    if name == "llama3_1":
        assert drift == none == Drift(refused=1)
        return
    assert none == Drift(1, tokens=len(followed.seen[-1][1]))
    assert (drift.prompts, drift.different, drift.refused) == (1, 1, 0)
    assert drift.tokens == len(exact.seen[-1][1])
    assert drift.dropped - drift.added == drift.tokens - none.tokens
    assert drift.dropped >= 5
    assert drift + none == Drift(2, 1, 0, drift.tokens + none.tokens, drift.dropped, drift.added)


def test_drift_leaves_out_what_is_unknown():
    tree = Recites("hermes", "exact").play()
    silent = EpisodeTree(tree.nodes[0].observation)
    silent.add(0, tree.nodes[1].action, tree.nodes[1].observation, reward=0.0)
    assert measure_drift([silent], chat_of("hermes")) == Drift()
    assert episode_stats([silent]).prompts == 0


# ---------------------------------------------------------------------- a real model


def model_of(name: str) -> Any:
    config = Qwen3Config(
        vocab_size=len(tokenizer_of(name)), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).eval()


@BOTH
@pytest.mark.parametrize("name", ["qwen3", "mistral", "glm4_5", "gpt_oss", "plain"])
def test_a_sampling_model_sees_and_trains_the_same_tokens(name, history):
    options: dict[str, Any] = {"parser": "text"} if FAMILIES[name].parser == "text" else {}
    tokenizer, model = tokenizer_of(name), model_of(name)
    stops = tokenizer.convert_tokens_to_ids(list(FAMILIES[name].ends))
    agent = TransformersAgent(
        model, tokenizer, max_new_tokens=12, stop_token_ids=stops, history=history, temperature=0.8, **options
    )
    with Rollout(Places, agent, max_steps=4) as rollout:
        trees = rollout.grow([None], 3)
        rollout.extend(trees, [Anchor(0, node, 2) for node in (1, 2)])
    (tree,) = trees
    rows = lay_out(trees)
    actions: list[Any] = [node.action for node in tree.nodes[1:]]
    assert rows.trained.sum() == sum(len(action.token_ids) for action in actions)
    if history == "template":
        for node in range(1, len(tree)):
            if tree.prompt(node) is not None:
                assert tree.prompt_token_ids(node) == agent.chat.render(tree.messages(node), tools=Places().tools)
    else:
        assert len(rows) == len(tree.leaves())
    with torch.no_grad():
        for row in range(len(rows)):
            ids = torch.tensor(rows.token_ids[row : row + 1, : rows.lengths[row]])
            logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1] / 0.8, -1)
            taken = logprobs.gather(1, ids[0, 1:, None])[:, 0].numpy()
            here = rows.trained[row, 1 : rows.lengths[row]]
            np.testing.assert_allclose(taken[here], rows.logprobs[row, 1 : rows.lengths[row]][here], atol=2e-5)


# ---------------------------------------------------------------------- transformers' response parsing


def with_response_template(name: str, **options: Any) -> ChatFormat:
    tokenizer = add_response_schema(copy.copy(tokenizer_of(name)))
    stops = tokenizer.convert_tokens_to_ids(list(FAMILIES[name].ends))
    return ChatFormat(tokenizer, stop_token_ids=stops, **options)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_instruct_2507", "llama3_1", "glm4_5", "gpt_oss"])
def test_a_response_template_is_taken_by_name_and_not_where_it_loses_something(name):
    recites, tools = Recites(name, "exact"), Places().tools
    asked = with_response_template(name, parser="response")
    by_choice = with_response_template(name)
    assert (by_choice.parser is PARSERS[FAMILIES[name].parser]) == (name in {"glm4_5", "gpt_oss"})
    call = recites.chat.action_ids(said("Oslo"), tools=tools)
    assert asked.parse(call, tools=tools) == recites.chat.parse(call, tools=tools)
    for ids in recites.script(tools):
        assert by_choice.parse(ids, tools=tools) == recites.chat.parse(ids, tools=tools)
    text = recites.texts(tools)[0]
    cut = by_choice.encode(text[: text.rfind("Oslo") + 2])
    action = by_choice.parse(cut, tools=tools)
    assert all(isinstance(made.arguments, str) for made in action.tool_calls), "a call that was cut is not made"
    assert "Shall I?" not in action.content
    assert action.content or action.tool_calls


def test_a_response_parser_needs_a_response_template():
    with pytest.raises(ModelError, match=r"'response' \(of a tokenizer with a response_template\).*got 'response'"):
        chat_of("hermes", parser="response")


# ---------------------------------------------------------------------- tools as text


def test_tools_as_text_written_out():
    chat = chat_of("plain")
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    first: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    start = chat.decode(chat.prompt(Context(tuple(first), tuple(tools))))
    assert start.startswith("<|user|>\nYou can call tools.")
    assert '{"name": "look", "parameters": {"type": "object", "properties": {}}}\n\nBe brief.\n\nWhere?</s>' in start
    assert start.endswith("</s>\n<|assistant|>\n")
    answers: Any = [{"role": "tool", "content": word, "tool_call_id": word} for word in ("one", "two")]
    messages: Any = (*first, said("Oslo", "Rome"), *answers, {"role": "user", "content": "go on"})
    sampled = chat.action_ids(messages[2], tools=tools)
    later = chat.prompt(Context(messages, tuple(tools), (1, *sampled), 3))
    assert chat.decode(later[1 + len(sampled) :]) == (
        "\n<|user|>\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>\ngo on</s>\n"
        "<|assistant|>\n"
    )


def test_a_system_message_goes_to_the_user_only_where_its_role_is_refused():
    system: Any = {"role": "system", "content": "Be brief."}
    user: Any = {"role": "user", "content": "Where?"}
    folded = chat_of("plain")
    assert folded.decode(folded.prompt(Context((system, user)))) == "<|user|>\nBe brief.\n\nWhere?</s>\n<|assistant|>\n"
    assert folded.decode(folded.prompt(Context((system,)))) == "<|user|>\nBe brief.</s>\n<|assistant|>\n"
    kept = chat_of("hermes")
    assert "<|im_start|>system\nBe brief.<|im_end|>" in kept.decode(kept.prompt(Context((system, user))))


def test_a_template_that_drops_calls_is_named_before_anybody_imitates_it():
    with pytest.raises(ModelError, match="must write all calls of a message, and lost one of 'look'"):
        chat_of("gpt_oss").action_ids(said("Rome", "Bern"), tools=Places().tools)
    reasoned = Action("", (ToolCall("look", {"place": "Rome"}, "call_0"),), reasoning="hm").to_message()
    chat = chat_of("gpt_oss")
    action = chat.parse(chat.action_ids(reasoned, tools=Places().tools), tools=Places().tools)
    assert action.to_message() == reasoned


@EVERY
def test_a_template_that_rewrites_says_so(name):
    assert chat_of(name).rewrites == (name in {*THINKS, "mistral"})
