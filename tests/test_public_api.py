"""The public surface: what may not change by accident."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import agentenv as ae

ROOT = Path(ae.__file__).resolve().parent

PUBLIC = [
    "Action",
    "Agent",
    "AgentEnvError",
    "Context",
    "Env",
    "EpisodeTree",
    "InfrastructureError",
    "Message",
    "ReplayEnv",
    "Sandbox",
    "Snapshot",
    "SnapshotError",
    "State",
    "Task",
    "TaskError",
    "ToolCall",
    "ToolEnv",
    "ToolError",
    "TreeArrays",
    "env_ids",
    "make",
    "register",
    "tool",
]

PARAMETERS = {
    "Action": [
        "content",
        "tool_calls",
        "token_ids",
        "logprobs",
        "prompt_token_ids",
        "finish_reason",
        "reasoning",
        "usage",
        "weight_version",
    ],
    "Action.parse": ["value"],
    "Action.to_message": ["self"],
    "Agent.act": ["self", "contexts"],
    "Context": ["messages", "tools", "token_ids", "covered", "seed", "max_tokens"],
    "Env.__init__": ["self", "tasks", "max_steps", "render_mode"],
    "Env.action_signature": ["self", "action"],
    "Env.add_reward": ["self", "value", "name"],
    "Env.advance": ["self", "action", "snapshot"],
    "Env.begin": ["self", "seed", "options", "snapshot"],
    "Env.close": ["self"],
    "Env.draw_task": ["self"],
    "Env.finish": ["self", "reply", "reward"],
    "Env.fork": ["self", "n"],
    "Env.make_sandbox": ["self"],
    "Env.note_breakage": ["self", "text"],
    "Env.note_mistake": ["self", "text"],
    "Env.render": ["self"],
    "Env.reseed": ["self", "seed"],
    "Env.reset": ["self", "seed", "options"],
    "Env.respond": ["self", "action"],
    "Env.restore": ["self", "snapshot"],
    "Env.same_state": ["self"],
    "Env.sample_task": ["self"],
    "Env.sandbox_content": ["self"],
    "Env.snapshot": ["self"],
    "Env.spawn": ["self"],
    "Env.start": ["self", "task"],
    "Env.state_signature": ["self"],
    "Env.step": ["self", "action"],
    "EpisodeTree": [
        "observation",
        "task_id",
        "env_id",
        "task",
        "state_signature",
        "metadata",
        "success_threshold",
        "snapshot",
    ],
    "EpisodeTree.add": [
        "self",
        "parent",
        "action",
        "observation",
        "reward",
        "terminated",
        "truncated",
        "state_signature",
        "action_signature",
        "info",
        "snapshot",
    ],
    "EpisodeTree.arrays": ["self"],
    "Snapshot": [
        "env_id",
        "step_count",
        "phase",
        "task",
        "random_state",
        "state",
        "sandbox",
        "fidelity",
        "origin",
    ],
    "ToolCall": ["name", "arguments", "id"],
    "ToolEnv.on_text": ["self", "text"],
    "ToolEnv.respond": ["self", "action"],
    "TreeArrays": [
        "parents",
        "rewards",
        "terminated",
        "truncated",
        "tree_ids",
        "state_ids",
        "action_ids",
        "valid",
        "thresholds",
    ],
    "ReplayEnv.__init__": ["self", "env", "adapter", "markov", "success_threshold", "options"],
    "TreeArrays.build": [
        "parents",
        "rewards",
        "state_ids",
        "action_ids",
        "tree_ids",
        "terminated",
        "truncated",
        "valid",
        "thresholds",
    ],
    "TreeArrays.from_trees": ["trees"],
    "env_ids": [],
    "make": ["env_id", "options"],
    "register": ["env_id", "entry_point"],
    "tool": ["function"],
}


def test_the_names_at_the_root():
    assert ae.__all__ == PUBLIC == sorted(PUBLIC)
    assert len(PUBLIC) <= 25
    assert all(hasattr(ae, name) for name in PUBLIC)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_of_what_is_public(name):
    value = ae
    for part in name.split("."):
        value = getattr(value, part)
    assert list(inspect.signature(value).parameters) == PARAMETERS[name]  # pyright: ignore[reportArgumentType]


def test_every_callable_of_the_root_is_pinned():
    plain = {name for name in PUBLIC if not name.endswith("Error")} - {"Message", "Sandbox", "State", "Task"}
    assert plain <= {name.partition(".")[0] for name in PARAMETERS}
    pinned = {name.partition(".")[2] for name in PARAMETERS if name.startswith("Env.")} - {"__init__"}
    own = {name for cls in ae.Env.__mro__ if cls.__module__.startswith("agentenv.") for name in vars(cls)}
    assert pinned == {name for name in own if inspect.isfunction(getattr(ae.Env, name)) and not name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented_and_has_one_home(name):
    value = getattr(ae, name)
    assert inspect.getdoc(value)
    home = importlib.import_module(value.__module__)
    assert name in home.__all__


def modules():
    """Every module of the package, the linked folders included, by name and file."""
    for path in sorted(ROOT.rglob("*.py"), key=str):
        yield path.relative_to(ROOT.parent), path
    for link in ("agents", "credit", "sandboxes", "trainers"):
        for path in sorted((ROOT / link).rglob("*.py"), key=str):
            yield Path("agentenv", link, path.relative_to(ROOT / link)), path


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=[str(name) for name, _ in modules()])
def test_every_module_lists_its_names_sorted_and_they_exist(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    listed = [ast.literal_eval(node.value or "") for node in assigned if "__all__" in map(ast.unparse, targets(node))]
    if not any(not isinstance(node, ast.Expr) for node in tree.body):
        return  # a docstring alone
    assert len(listed) == 1, "the module needs one __all__"
    names = listed[0]
    assert names == sorted(set(names), key=rank), "constants, then classes, then the rest"
    bound = {name for node in ast.walk(tree) for name in bound_by(node)}
    assert set(names) <= bound | {"__version__"}


def targets(node):
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def rank(name):
    """Sorts as ruff does (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def bound_by(node):
    """The names that a statement binds."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name for alias in node.names]
        case ast.Name(ctx=ast.Store()):
            return [node.id]
        case _:
            return []


LIGHT = [
    name
    for _, name, _ in pkgutil.walk_packages([str(ROOT)], "agentenv.")
    if not name.startswith(("agentenv.trainers", "agentenv.agents", "agentenv.cli", "agentenv.sandboxes.guest."))
    and name.partition("interop.verifiers_")[2] not in {"tasks", "v0", "v1"}  # whose package is where .ci/peers puts it
]


@pytest.mark.parametrize("name", LIGHT)
def test_every_name_that_a_module_lists_can_be_had(name):
    module = importlib.import_module(name)
    for listed in getattr(module, "__all__", []):
        assert hasattr(module, listed), listed
