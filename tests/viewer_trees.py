"""Trees that the viewer's tests look at: small ones with everything on them, and large ones."""

from pathlib import Path

from agentenv import Action, EpisodeTree, ToolCall
from agentenv.cli.view import choose
from agentenv.serialize import write_trees
from agentenv.tree import Cost, Fork, Node
from agentenv.types import Observation
from agentenv.viewer import View

__all__ = ["HOSTILE", "long_tree", "message", "rich_tree", "view_of", "wide_tree", "write"]

HOSTILE = '<img src=x onerror="window.hit=1"></script><script>window.hit = 1</script>'


def message(text: str, role: str = "tool") -> Observation:
    return ({"role": role, "content": text},)


def rich_tree(task: str = "first", *, question: str = "Where to?", wins: bool = True) -> EpisodeTree:
    """Root - 1 - (2: won | 3 - 4: lost); rollout 1 went on at node 1, by hand; root - 5: broken."""
    tree = EpisodeTree(message(question, "user"), task_id=task, env_id="Maze-v0", metadata={"seed": 7})
    first = Action("I look.", (ToolCall("look", {"at": 12345678901234567890}),), (5, 6, 7), (-0.1, -2.5, -0.01),
                   (1, 2), "stop", reasoning="Maybe left.")  # fmt: skip
    a = tree.append(Node(0, first, message(HOSTILE), 0.25, info={"rewards": {"shaping": 0.25}, "mistakes": ["slow"]},
                         cost=Cost(tokens_sampled=3, agent_seconds=0.5)))  # fmt: skip
    tree.append(Node(a, Action("left now"), message("found it" if wins else "a wall"), 1.0 * wins, terminated=True))
    fork = Fork("hand", "agentenv replay --at 1", 0.625)
    b = tree.append(Node(a, Action("right now"), message("a hall"), 0.0, rollout=1, fork=fork))
    tree.append(Node(b, Action("right again"), message("a wall"), 0.0, truncated=True, rollout=1))
    tree.append(Node(0, Action("wait"), (), None, info={"failure": "SandboxError: gone"}, rollout=2))
    return tree


def wide_tree(nodes: int, steps: int = 10) -> EpisodeTree:
    """Rollouts of `steps` steps from the root and from steps of earlier ones; every third one succeeds."""
    tree = EpisodeTree(message("Count.", "user"), task_id="wide", env_id="Maze-v0")
    rollout = 0
    while len(tree) < nodes:
        node = 0 if rollout % 4 == 0 else 1 + (rollout * 7919) % (len(tree) - 1)
        while tree.nodes[node].ended:
            node = tree.nodes[node].parent
        depth = len(tree.path(node)) - 1
        for step in range(depth, steps):
            last = step == steps - 1
            node = tree.append(Node(node, Action(f"step {step} of rollout {rollout}"), message(f"seen {len(tree)}"),
                                    float(last and rollout % 3 == 0), terminated=last, rollout=rollout))  # fmt: skip
        rollout += 1
    return tree


def long_tree(steps: int, tokens: int, *, words: str = "lorem ipsum dolor sit amet ") -> EpisodeTree:
    """One episode of `steps` steps, each with an action of `tokens` tokens and an answer of as many words."""
    tree = EpisodeTree(message("Read.", "user"), task_id="long", env_id="Maze-v0")
    text = (words * (tokens // 5 + 1))[: 5 * tokens]
    ids = tuple(i % 50_000 for i in range(tokens))
    logprobs = tuple(-(i % 50) / 10 for i in range(tokens))
    node = 0
    for step in range(steps):
        action = Action(f"{step}: {text}", token_ids=ids, logprobs=logprobs)
        node = tree.add(node, action, message(f"{step} {text} end of {step}"), reward=float(step == steps - 1),
                        terminated=step == steps - 1)  # fmt: skip
    return tree


def write(path: Path, *trees: EpisodeTree) -> Path:
    write_trees(path, trees)
    return path


def view_of(path: Path, credit: tuple[str, ...] = ("rtmc",)) -> View:
    return View(path, choose=choose, estimators=("grpo", "rtmc"), credit=credit)
