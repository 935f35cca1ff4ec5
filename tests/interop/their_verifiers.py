"""Environments of verifiers, version 0, as people write them: one turn, several turns, tools."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false

from typing import Any

import verifiers as vf
from datasets import Dataset

__all__ = ["Guessing", "load_environment"]

ROWS = 6


class Guessing(vf.MultiTurnEnv):
    """Guess a number; `higher` or `lower` until it is right."""

    async def setup_state(self, state: Any) -> Any:
        state["target"] = int(state["answer"])
        return state

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        said = (messages[-1].content or "").strip()
        if said == "break":
            raise KeyError(said)
        if said not in {str(number) for number in range(10)}:
            return [{"role": "user", "content": "a number, please"}]
        if int(said) == state["target"]:
            state["final_env_response"] = [{"role": "user", "content": "right"}]
            return state["final_env_response"]
        return [{"role": "user", "content": "higher" if int(said) < state["target"] else "lower"}]


def right(completion: Any, answer: str) -> float:
    """Whether the answer was said."""
    return float(any(m.role == "assistant" and (m.content or "").strip() == answer for m in completion))


def exact(completion: Any, answer: str) -> float:
    """Whether the number that was said is right; breaks where none was."""
    return float(int(completion[-1].content) == int(answer))


def judged(completion: Any) -> float:
    """What a judge says who is never there."""
    msg = f"no judge for {len(completion)} messages"
    raise ConnectionError(msg)


def double(number: int) -> int:
    """Doubles a number.

    Args:
        number: what to double.
    """
    return 2 * number


def fail(number: int) -> int:
    """Breaks, always."""
    msg = f"no {number} here"
    raise LookupError(msg)


def load_environment(kind: str = "turns", max_turns: int = 4) -> vf.Environment:
    """Returns one of them."""
    rows = [{"question": f"Guess number {i}.", "answer": str(i + 3)} for i in range(ROWS)]
    about: dict[str, Any] = {"dataset": Dataset.from_list(rows), "rubric": vf.Rubric(funcs=[right])}
    if kind == "one":
        return vf.SingleTurnEnv(**about, system_prompt="Say a number.")
    if kind in {"exact", "judged"}:
        about["rubric"] = vf.RubricGroup([vf.Rubric(funcs=[exact if kind == "exact" else judged])])
        return vf.SingleTurnEnv(**about)
    if kind == "stops":
        return vf.ToolEnv(tools=[double, fail], stop_errors=[LookupError], max_turns=max_turns, **about)
    if kind == "tools":
        return vf.ToolEnv(tools=[double, fail], max_turns=max_turns, **about)
    return Guessing(max_turns=max_turns, **about)
