"""Small environments and agents that several tests of the core use. All of them keep the contract."""

import asyncio
import random
import threading
import warnings
from typing import Any, ClassVar

import agentenv as ae
from agentenv.errors import AgentError, SandboxError, VerifierError
from agentenv.protocols import AsyncAgent, Fidelity
from agentenv.types import message_text

__all__ = [
    "Boxed",
    "BrokenModel",
    "Counted",
    "Dice",
    "Dynamic",
    "Flaky",
    "Guess",
    "GuessingAgent",
    "LocalDice",
    "MemorySandbox",
    "Notes",
    "SlowGuessingAgent",
    "call",
    "guess",
    "signature",
    "texts",
    "the_state",
    "transcript",
]


class Guess(ae.ToolEnv):
    """Guess a number from 1 to 100."""

    max_steps = 7

    class State(ae.State):
        target: int = 0

    def start(self, task):
        self.state.target = int(self.np_random.integers(1, 101))
        return "I am thinking of a number from 1 to 100."

    @ae.tool
    def guess(self, number: int) -> str:
        """Submit one guess."""
        if number == self.state.target:
            return self.finish("correct", reward=1.0)
        return "higher" if number < self.state.target else "lower"


class Dice(ae.ToolEnv):
    """Roll dice; every roll draws from the episode's random numbers. Holding ends the episode with the total."""

    max_steps = 8

    class Task(ae.Task):
        goal: int = 20

    class State(ae.State):
        rolls: list[int] = []

    def start(self, task):
        return f"Reach {task.goal}."

    @ae.tool
    def roll(self, sides: int = 6) -> str:
        """Roll one die.

        Args:
            sides: of the die, at least 2.
        """
        if sides < 2:
            msg = f"sides must be at least 2, got {sides}"
            raise ae.ToolError(msg)
        self.state.rolls.append(int(self.np_random.integers(1, sides + 1)))
        self.add_reward(-0.125, name="cost")
        return f"{self.state.rolls[-1]}, total {sum(self.state.rolls)}"

    @ae.tool
    def hold(self) -> str:
        """Stop rolling."""
        total = sum(self.state.rolls)
        return self.finish(f"held at {total}", reward=float(total >= self.task.goal))


class LocalDice(Dice):
    """Dice whose snapshots say that they cannot travel."""

    fidelity = Fidelity.LOCAL


class Notes(ae.ToolEnv):
    """Files in a real sandbox: commands change them, and a fork has a copy of them."""

    max_steps = 6
    sandbox: Any

    def make_sandbox(self) -> Any:
        from agentenv.sandboxes import SandboxSpec, open_sandbox

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the subprocess back end says that it isolates nothing
            return open_sandbox(SandboxSpec(base={"note": "0"}), backend="subprocess", require="none")

    def start(self, task):
        return "There is a file called note."

    @ae.tool
    def append(self, number: int) -> str:
        """Add a number to the note and read it.

        Args:
            number: what to add.
        """
        result = self.sandbox.exec(["sh", "-c", f"echo {number} >> note; cat note"])
        return result.stdout


class MemorySandbox:
    """Files in a dictionary, with as many failures as a test orders. Counts those that are open."""

    opened: ClassVar[set[int]] = set()

    def __init__(self, files=None):
        self.files = dict(files or {})
        self.dead = False
        self.opened.add(id(self))

    def write(self, path, content):
        if self.dead:
            msg = "the sandbox died"
            raise SandboxError(msg)
        self.files[path] = content

    def exec(self, argv, **_):
        self.write("", "")
        return argv

    def snapshot(self, *, processes=False):
        return dict(self.files)

    def restore(self, snapshot):
        self.write("", "")
        self.files = dict(snapshot)

    def fork(self, n):
        return [MemorySandbox(self.files) for _ in range(n)]

    def close(self):
        self.opened.discard(id(self))


class Boxed(ae.ToolEnv):
    """Writes into a `MemorySandbox`."""

    max_steps = 5
    sandbox: Any

    def make_sandbox(self) -> Any:
        return MemorySandbox()

    def start(self, task):
        self.sandbox.write("log", "")
        return "Write."

    @ae.tool
    def write(self, text: str) -> str:
        """Append to the log."""
        self.sandbox.write("log", self.sandbox.files["log"] + text)
        return self.sandbox.files["log"]


class Counted(Dice):
    """Counts the environments that are open. Dice otherwise."""

    opened: ClassVar[set[int]] = set()
    lock: ClassVar = threading.Lock()

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.lock:
            self.opened.add(id(self))

    def close(self):
        super().close()
        with self.lock:
            self.opened.discard(id(self))


class Flaky(Dice):
    """The verifier fails in a share of the steps, by the episode's random numbers; restore and reset fail on order."""

    failing_restores: ClassVar[int] = 0
    failing_resets: ClassVar[int] = 0
    share: ClassVar[float] = 0.3

    @ae.tool
    def roll(self, sides: int = 6) -> str:
        """Roll one die."""
        if self.np_random.random() < self.share:
            msg = "the verifier did not answer"
            raise VerifierError(msg)
        return super().roll(sides)

    def start(self, task):
        if Flaky.failing_resets > 0:
            Flaky.failing_resets -= 1
            msg = "no verifier yet"
            raise VerifierError(msg)
        return super().start(task)

    def restore(self, snapshot, /):
        if Flaky.failing_restores > 0:
            Flaky.failing_restores -= 1
            msg = "the sandbox did not come back"
            raise SandboxError(msg)
        super().restore(snapshot)


class Dynamic(ae.Env):
    """No tools: echoes text, ends on `bye`, and takes any task."""

    def start(self, task):
        return f"task {task}"

    def respond(self, action) -> ae.Message | str:
        if action.content == "bye":
            return self.finish("bye", reward=1.0)
        return {"role": "user", "content": action.content}


class GuessingAgent:
    """Rolls or holds by the context's seed, and says so in tokens."""

    honors = frozenset({"max_tokens"})

    def act(self, contexts):
        return [self.choose(context) for context in contexts]

    def choose(self, context):
        draw = random.Random(context.seed)
        name = "hold" if draw.random() < 0.25 else "roll"
        arguments = {"sides": draw.randint(2, 20)} if name == "roll" else {}
        prompt = (*context.token_ids, *(1000 + len(message_text(m)) for m in context.messages[context.covered :]))
        ids = tuple(draw.randrange(1000) for _ in range(min(draw.randint(1, 4), context.max_tokens or 4)))
        logprobs = tuple(-draw.random() for _ in ids)
        return ae.Action("", (ae.ToolCall(name, arguments, "call_0"),), ids, logprobs, prompt, "stop")


class SlowGuessingAgent(AsyncAgent):
    """The same behind a server with random delays."""

    def __init__(self):
        self.jitter = random.Random(7)
        self.waiting = self.most_waiting = 0

    async def respond(self, context):
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(self.jitter.random() * 0.003)
        self.waiting -= 1
        return self.choose(context)

    def choose(self, context):
        return GuessingAgent().choose(context)


class BrokenModel(GuessingAgent):
    """Fails as a model server does, in the calls with these numbers."""

    def __init__(self, failing):
        self.failing = set(failing)
        self.calls = -1

    def act(self, contexts):
        self.calls += 1
        if self.calls in self.failing:
            msg = "the model server did not answer"
            raise AgentError(msg)
        return super().act(contexts)


def call(name, /, **arguments):
    """An assistant message with one tool call."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def guess(number):
    """A guess of `Guess`."""
    return call("guess", number=number)


def texts(observation):
    """The text of an observation."""
    return "\n".join(message_text(message) for message in observation)


def the_state(env):
    """All of an environment that the laws are about."""
    return (env.step_count, env.np_random.bit_generator.state, env.state_signature(), env.task)


def signature(tree):
    """All that a tree records, without its snapshots: equal exactly where trees are."""
    return (
        tree.task_id,
        tree.env_id,
        tree.task,
        tree.metadata,
        list(tree.nodes),
        [tree.prompt(i) for i in range(len(tree))],
    )


def transcript(env, actions):
    """What an environment answers to actions, until the episode ends."""
    answers = []
    for action in actions:
        answers.append(env.step(action)[:4])
        if answers[-1][2] or answers[-1][3]:
            break
    return answers
