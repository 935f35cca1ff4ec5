"""Shell commands and tool calls as RTMC's signatures see them."""

import pytest

from agentenv.credit.file_signatures import FileStep, action_signature
from agentenv.envs.code_repair import describe_call, describe_command
from agentenv.types import ToolCall


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("sed -n 100,299p core.py", FileStep("view", "core.py", (100, 299))),
        ("sed -n '7p' core.py", FileStep("view", "core.py", (7, 7))),
        ("cat src/a.py", FileStep("view", "src/a.py")),
        ("cd src && cat ./a.py", FileStep("view", "a.py")),
        ("head -n 5 /workspace/a.py", FileStep("view", "a.py")),
        ("PAGER=cat sudo env X=1 cat a.py", FileStep("view", "a.py")),
        ("grep -rn foo src/", FileStep("search", "src")),
        ("ls", FileStep("search", ".")),
        ("find . -name '*.py' | head", FileStep("search", ".")),
        ("python -m pytest tests/t.py -q", FileStep("test", "tests/t.py", outcome="ok")),
        ("python3.11 -m unittest", FileStep("test", "all", outcome="ok")),
        ("pytest", FileStep("test", "all", outcome="ok")),
        ("touch new.py", FileStep("create", "new.py")),
        ("mkdir -p a/b", FileStep("create", "a/b")),
        ("git diff", FileStep("execute", "git:diff", outcome="ok")),
        ("python3 x.py > /dev/null", FileStep("execute", "python3", outcome="ok")),
        ("make all 2>&1", FileStep("execute", "make", outcome="ok")),
        ("cd src", FileStep("think")),
        ("", FileStep("think")),
        ("export A=1; B=2", FileStep("think")),
    ],
)
def test_commands(command, step):
    assert describe_command(command, "ok") == step


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("sed -i s/a/b/ m.py", "m.py"),
        ("echo x > m.py", "m.py"),
        ("printf '%s' x >> pkg/m.py", "pkg/m.py"),
        ("cat > m.py <<'EOF'\nx = 1 > 2\nEOF", "m.py"),
        ("cp a.py b.py", "b.py"),
        ("rm a.py", "a.py"),
        ("git checkout m.py", "m.py"),
    ],
)
def test_commands_that_change_files_carry_their_text(command, path):
    step = describe_command(command)
    assert (step.kind, step.path, step.old) == ("modify", path, command)
    assert action_signature(step) != action_signature(describe_command(command.replace(".py", "2.py")))


@pytest.mark.parametrize(
    "command", ["echo 'open", ";;;", "|", "&&", "\n\n", "> ", "<<", "'", "a" * 10_000, "\u2603 > \u2603"]
)
def test_any_text_is_some_command(command):
    assert describe_command(command) == describe_command(command)


@pytest.mark.parametrize(
    ("name", "arguments", "signature"),
    [
        ("read_file", {"path": "core.py"}, "view:full@core.py"),
        ("read_file", {"path": "core.py", "start": 100, "end": 299}, "view:partial[1-2]@core.py"),
        ("search", {"pattern": "x", "path": "src/"}, "search@src"),
        ("write_file", {"path": "new.py", "content": "x"}, "create@new.py"),
        ("run_tests", {}, "test@all:error"),
        ("submit", {}, "finish"),
        ("run", {"command": "pytest tests/t.py"}, "test@tests/t.py:error"),
        ("no_such_tool", {}, "execute@no_such_tool:error"),
        ("read_file", "not json", "view:full"),
    ],
)
def test_tool_calls(name, arguments, signature):
    assert action_signature(describe_call(ToolCall(name, arguments), "error")) == signature
