"""Imitation: the model learns the agent's own tokens, in the contexts in which the agent will act."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_chat import CONVERSATIONS, random_model, tiny

import agentenv as ae
from agentenv.agents import TransformersAgent
from agentenv.agents.chat import ChatFormat
from agentenv.protocols import Context
from agentenv.trainers.imitation import Example, Phase, encode_conversation, imitate, play_script
from agentenv.trainers.tiny import make_tiny_model
from agentenv.types import Action, ToolCall


class Sum(ae.ToolEnv):
    """Add two numbers, then say the sum."""

    max_steps = 4

    class State(ae.State):
        a: int = 0

    def start(self, task: Any) -> str:
        self.state.a = int(self.np_random.integers(1, 10))
        return f"Compute {self.state.a} + 1."

    @ae.tool
    def calculate(self, expression: str) -> str:
        """Compute."""
        return str(sum(map(int, expression.split("+"))))

    @ae.tool
    def submit(self, answer: str) -> str:
        """Say the sum."""
        return self.finish("over", reward=float(answer == str(self.state.a + 1)))


def act(name: str, **arguments: Any) -> Action:
    return Action(tool_calls=(ToolCall(name, arguments),))


def test_a_script_is_played_up_to_its_last_action():
    env = Sum()
    conversation = play_script(env, [act("calculate", expression="3 + 1"), act("submit", answer="4")], seed=3)
    assert [message["role"] for message in conversation] == ["user", "assistant", "tool", "assistant"]
    assert conversation[2]["content"] == "4"
    assert len(play_script(env, [Action("hm")])) == 2
    with pytest.raises(ValueError, match="it ended with action 0 of 2"):
        play_script(env, [act("submit", answer="4"), act("submit", answer="4")])
    with pytest.raises(ValueError, match="actions must hold at least one action"):
        play_script(env, [])


def test_encoding_is_what_the_agent_sees_and_marks_what_it_samples():
    model, tokenizer = tiny()
    agent = TransformersAgent(model, tokenizer)
    for conversation in CONVERSATIONS[::17]:
        example = encode_conversation(agent.chat, conversation)
        ids, covered = (), 0
        own: list[int] = []
        for number in (1, 3):
            ids = agent.chat.prompt(Context(tuple(conversation[:number]), (), ids, covered))
            action = agent.chat.action_ids(conversation[number])
            own += range(len(ids), len(ids) + len(action))
            ids, covered = ids + action, number + 1
        assert example.token_ids == ids
        assert [i for i, sampled in enumerate(example.sampled) if sampled] == own
        assert agent.chat.decode(ids) == tokenizer.apply_chat_template(conversation, tokenize=False)
        (call,) = agent.chat.parse([ids[i] for i in own][-4:]).tool_calls
        assert call.name == "submit"


def test_a_conversation_must_end_with_the_assistant():
    with pytest.raises(ValueError, match="conversation must end with a message of the assistant"):
        encode_conversation(ChatFormat(tiny()[1]), CONVERSATIONS[0][:3])


def likelihood(model: Any, example: Example) -> tuple[float, float]:
    """Mean log-probability of the sampled tokens and of the given ones."""
    ids = torch.tensor([example.token_ids])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    sampled = torch.tensor(example.sampled[1:])
    return logprobs[sampled].mean().item(), logprobs[~sampled].mean().item()


def test_it_learns_the_actions_and_only_them():
    model, tokenizer = make_tiny_model(CONVERSATIONS, hidden_size=64, num_layers=2, num_heads=2)
    model.eval()
    phases = [Phase("one", CONVERSATIONS[::2], 40), Phase("two", CONVERSATIONS[1::2], 20)]
    losses = imitate(model, tokenizer, phases, batch_size=16, progress=False)
    assert len(losses) == 60
    assert not model.training
    assert losses[0] > 3
    assert np.mean(losses[-5:]) < 0.7
    sampled, given = likelihood(model, encode_conversation(ChatFormat(tokenizer), CONVERSATIONS[9]))
    assert sampled > -0.8
    assert given < -4  # the question and the tool's answer were not trained
    agent = TransformersAgent(model, tokenizer, max_new_tokens=12, temperature=0.0)
    (action,) = agent.act([Context((CONVERSATIONS[9][0],))])
    assert [call.name for call in action.tool_calls] == ["calculate"]


def test_the_first_loss_is_the_mean_over_sampled_tokens_without_padding():
    model, tokenizer = random_model()
    chat = ChatFormat(tokenizer)
    conversations = [CONVERSATIONS[0][:2], CONVERSATIONS[44]]  # of different lengths
    examples = [encode_conversation(chat, conversation) for conversation in conversations]
    sizes = np.array([sum(example.sampled) for example in examples])
    expected = -np.average([likelihood(model, example)[0] for example in examples], weights=sizes)
    losses = imitate(model, tokenizer, [Phase("both", conversations, 1)], batch_size=2, progress=False)
    assert losses[0] == pytest.approx(expected, rel=1e-5)


def test_the_same_seed_gives_the_same_weights():
    weights: list[torch.Tensor] = []
    for seed in (1, 1, 2):
        model, tokenizer = random_model()
        imitate(model, tokenizer, [Phase("few", CONVERSATIONS, 3)], batch_size=4, seed=seed, progress=False)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_progress_bar_shows_phase_and_loss(capsys: Any):
    model, tokenizer = random_model()
    imitate(model, tokenizer, [Phase("careful play", CONVERSATIONS[:8], 3)], batch_size=4)
    shown = capsys.readouterr().out
    assert "imitating careful play" in shown
    assert "3/3" in shown


def test_nothing_to_imitate_is_refused():
    model, tokenizer = tiny()
    with pytest.raises(ValueError, match=r"phases must have updates and conversations, got \[\('empty', 5, 0\)\]"):
        imitate(model, tokenizer, [Phase("empty", [], 5)])
    with pytest.raises(ValueError, match="phases must have updates and conversations"):
        imitate(model, tokenizer, [])
