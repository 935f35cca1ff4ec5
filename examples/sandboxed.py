"""A sandboxed environment: every task has files of its own, commands cannot get out, and the whole place forks.

python examples/sandboxed.py
"""

import agentenv as ae
from agentenv.protocols import Sandbox
from agentenv.sandboxes import open_sandbox


class Shell(ae.ToolEnv):
    """Answer a question about some files."""

    max_steps = 8

    class Task(ae.Task):
        """Files by path, a question about them, and its answer."""

        files: dict[str, str]
        question: str
        answer: str

    def make_sandbox(self) -> Sandbox:
        """Opens a folder with the task's files; called before `start`, in every episode."""
        return open_sandbox(base=self.task.files)

    def start(self, task: Task) -> str:
        """Asks."""
        return task.question

    @ae.tool
    def run(self, command: str) -> str:
        """Run a shell command in the folder with the files."""
        assert self.sandbox is not None  # made by make_sandbox
        done = self.sandbox.exec(["sh", "-c", command], timeout_s=10)
        return (done.stdout + done.stderr).strip() or f"exit code {done.exit_code}"

    @ae.tool
    def answer(self, text: str) -> str:
        """Give the answer."""
        return self.finish("thank you", reward=float(text.strip() == self.task.answer))


TASK = Shell.Task(
    files={"log/mon.txt": "ok\nbad\nbad\n", "log/tue.txt": "bad\nok\n"}, question="How many lines are bad?", answer="3"
)


def call(name: str, text: str) -> ae.Action:
    """Makes an action of one tool call."""
    return ae.Action(tool_calls=(ae.ToolCall(name, {"command" if name == "run" else "text": text}),))


def main() -> None:
    """Lets one fork destroy everything; the other one does not notice."""
    env = Shell(tasks=[TASK])
    env.reset(seed=0)
    careless, careful = env.fork(2)
    for fork, command in ((careless, "rm -r log; ls | wc -l"), (careful, "cat log/*.txt | grep -c bad")):
        said = fork.step(call("run", command))[0][0]["content"]
        _, reward, *_ = fork.step(call("answer", str(said)))
        print(f"$ {command}\n{said}\nreward {reward:g}")
        fork.close()
    print("network:", env.step(call("run", "ls /sys/class/net"))[0][0]["content"])
    env.close()


if __name__ == "__main__":
    main()
