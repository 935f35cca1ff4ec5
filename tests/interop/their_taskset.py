"""A taskset of verifiers, version 1, as people write them: tasks with tools that keep a state."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUntypedFunctionDecorator=false, reportUnknownParameterType=false

from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf

__all__ = ["Doublings"]


class Data(vf.TaskData):
    answer: int = 0


class State(vf.State):
    calls: int = 0


class Tools(vf.Toolset[vf.ToolsetConfig, State]):
    TOOL_PREFIX = None

    @vf.tool
    async def double(self, number: int) -> int:
        """Doubles a number."""
        self.state.calls += 1
        return 2 * number


class Config(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class Doubling(vf.Task[Data, State, Config]):
    @classmethod
    def toolsets(cls, config: Any) -> list[Any]:
        return [Tools(config.tools)]

    @vf.reward(weight=1.0)
    async def right(self, trace: Any) -> float:
        return float(trace.branches[-1].messages[-1].content == str(self.data.answer))

    @vf.metric
    async def used(self, trace: Any) -> float:
        return float(trace.state.calls)


class Doublings(vf.Taskset[Doubling, vf.TasksetConfig]):
    def load(self) -> Iterator[Doubling]:
        for number in range(4):
            yield Doubling(Data(prompt=f"Double {number}.", system_prompt="Use it.", answer=2 * number), Config())


class Counting(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward(weight=1.0)
    async def exact(self, trace: Any) -> float:
        """Breaks where no number was said; a judge of negative numbers is never there."""
        if self.data.answer < 0:
            raise ConnectionError(self.data.answer)
        return float(int(trace.branches[-1].messages[-1].content) == self.data.answer)


class Countings(vf.Taskset[Counting, vf.TasksetConfig]):
    def load(self) -> Iterator[Counting]:
        for number in (3, -3):
            yield Counting(Data(prompt=f"Say {number}.", answer=number), vf.TaskConfig())


if __name__ == "__main__":
    Tools.run()
