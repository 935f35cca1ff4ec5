"""The two models that people declare inside an environment: its state, and its task."""

from collections.abc import Sequence
from numbers import Integral  # numpy's integers are
from typing import Any

import pydantic

from agentenv.errors import TaskError

__all__ = ["State", "Task", "read_task"]


class State(pydantic.BaseModel):
    """Everything of an environment that changes during an episode. Subclass it inside the environment.

    Every field needs a default. Fields may hold anything that pickles.
    """

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="forbid")


class Task(pydantic.BaseModel):
    """One problem, with its hidden reference. Subclass it inside the environment; it never changes.

    Attributes:
        id: names the task within its data set; a digest of the task where empty.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str = ""


def read_task(value: Any, model: type[pydantic.BaseModel] | None, tasks: Sequence[Any] = ()) -> Any:
    """Returns the task that `reset(options={"task": value})` means.

    Args:
        value: a task, a mapping that fits `model`, or an index into `tasks`.
        model: the environment's `Task`; `None` where tasks have no declared shape.
        tasks: what an index points into.

    Raises:
        TaskError: the index is out of range, or the value does not fit; the message names field, rule and value.
    """
    if isinstance(value, Integral) and len(tasks):
        index = int(value)
        if not 0 <= index < len(tasks):
            msg = f"options['task'] must be an index in [0, {len(tasks)}), got {index}"
            raise TaskError(msg)
        value = tasks[index]
    if model is None or isinstance(value, model):
        return value
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'task'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        msg = f"options['task'] does not fit {model.__qualname__}: {problems}; got {value!r:.200}"
        raise TaskError(msg) from None
