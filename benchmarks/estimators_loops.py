"""The dictionary-and-loop way: the estimators written as published codes write them, for the speed comparison.

Each function takes a batch as trainers hold it: one row per step, with the ids of its group and trajectory, text
signatures, and the reward. `LOOPS` are the tidy form: one pass, plain floats, dictionaries (as RTMC's port does).
`SCALARS` are the form of verl and verl-agent: rows are 0-dimensional torch tensors, and the rows of a group or of a
trajectory are found by comparing the whole column with its id, which takes quadratic time.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

__all__ = ["LOOPS", "SCALARS", "Rows"]


@dataclass
class Rows:
    """A batch of steps, trajectories in order, steps in order."""

    group: list[str]  # [R] prompt id of the row
    trajectory: list[str]  # [R] trajectory id of the row
    state: list[str]  # [R] signature of the state before the step
    action: list[str]  # [R] signature of the action
    reward: list[float]  # [R]


def _split(rows: Rows) -> dict[str, dict[str, list[int]]]:
    """Row numbers by group and trajectory."""
    out: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (group, trajectory) in enumerate(zip(rows.group, rows.trajectory, strict=True)):
        out[group][trajectory].append(i)
    return out


def _deviation(values: list[float], mean: float) -> float:
    return (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5


def grpo(rows: Rows) -> list[float]:
    """Group-standardized returns, copied to every step."""
    score: dict[str, float] = defaultdict(float)
    members: dict[str, dict[str, None]] = defaultdict(dict)
    for group, trajectory, reward in zip(rows.group, rows.trajectory, rows.reward, strict=True):
        score[trajectory] += reward
        members[group][trajectory] = None
    mean = {g: fmean(score[t] for t in ts) for g, ts in members.items()}
    deviation = {g: _deviation([score[t] for t in ts], mean[g]) for g, ts in members.items()}
    return [
        (score[trajectory] - mean[group]) / (deviation[group] + 1e-4)
        for group, trajectory in zip(rows.group, rows.trajectory, strict=True)
    ]


def rloo(rows: Rows) -> list[float]:
    """Leave-one-out returns, copied to every step."""
    score: dict[str, float] = defaultdict(float)
    members: dict[str, dict[str, None]] = defaultdict(dict)
    for group, trajectory, reward in zip(rows.group, rows.trajectory, rows.reward, strict=True):
        score[trajectory] += reward
        members[group][trajectory] = None
    total = {g: sum(score[t] for t in ts) for g, ts in members.items()}
    return [
        score[t] - (total[g] - score[t]) / (len(members[g]) - 1)
        for g, t in zip(rows.group, rows.trajectory, strict=True)
    ]


def _returns(rows: Rows, index: list[int], discount: float) -> list[float]:
    out, running = [0.0] * len(index), 0.0
    for place in range(len(index) - 1, -1, -1):
        running = rows.reward[index[place]] + discount * running
        out[place] = running
    return out


def gigpo(rows: Rows, *, discount: float = 0.95) -> list[float]:
    """Return against the group, plus return-to-go against the rows with the same state."""
    episode, step = [0.0] * len(rows.group), [0.0] * len(rows.group)
    for trajectories in _split(rows).values():
        score = {t: sum(rows.reward[i] for i in index) for t, index in trajectories.items()}
        mean = fmean(score.values())
        by_state: dict[str, list[int]] = defaultdict(list)
        for trajectory, index in trajectories.items():
            for i, value in zip(index, _returns(rows, index, discount), strict=True):
                episode[i], step[i] = score[trajectory] - mean, value
                by_state[rows.state[i]].append(i)
        for members in by_state.values():
            center = fmean(step[i] for i in members)
            for i in members:
                episode[i] += step[i] - center
    return episode


def rtmc(rows: Rows, *, discount: float = 0.99, prior_count: float = 2.0) -> list[float]:
    """Pooled first-visit action values minus smoothed pooled state values."""
    out = [0.0] * len(rows.group)
    for trajectories in _split(rows).values():
        tree: dict[tuple[str, str], list[float]] = {}
        wins = 0.0
        for index in trajectories.values():
            seen: set[tuple[str, str]] = set()
            wins += sum(rows.reward[i] for i in index)
            for i, value in zip(index, _returns(rows, index, discount), strict=True):
                pair = (rows.state[i], rows.action[i])
                if pair in seen:
                    continue
                seen.add(pair)
                entry = tree.setdefault(pair, [0.0, 0.0])
                entry[0] += 1
                entry[1] += value
        states: dict[str, list[float]] = {}
        for (state, _), (count, total) in tree.items():
            entry = states.setdefault(state, [0.0, 0.0])
            entry[0] += count
            entry[1] += total
        prior = wins / len(trajectories)
        for index in trajectories.values():
            for i in index:
                count, total = tree[rows.state[i], rows.action[i]]
                visits, returns = states[rows.state[i]]
                out[i] = total / count - (returns + prior_count * prior) / (visits + prior_count)
    return out


def salt(rows: Rows) -> list[float]:
    """GRPO advantages averaged over equal transitions."""
    plain = grpo(rows)
    out = [0.0] * len(plain)
    for trajectories in _split(rows).values():
        same: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for index in trajectories.values():
            for i, following in zip(index, [*index[1:], -1], strict=True):
                after = rows.state[following] if following >= 0 else "end"
                same[rows.state[i], rows.action[i], after].append(i)
        for members in same.values():
            mean = fmean(plain[i] for i in members)
            for i in members:
                out[i] = mean
    return out


def step_reward(rows: Rows, *, discount: float = 1.0) -> list[float]:
    """Return-to-go against the other trajectories at the same step number, over the group's deviation."""
    out = [0.0] * len(rows.group)
    for trajectories in _split(rows).values():
        values = {t: _returns(rows, index, discount) for t, index in trajectories.items()}
        longest = max(len(v) for v in values.values())
        total = [sum(v[t] for v in values.values() if t < len(v)) for t in range(longest)]
        flat = [x for v in values.values() for x in v]
        center = fmean(flat)
        deviation = (sum((x - center) ** 2 for x in flat) / len(flat)) ** 0.5
        for trajectory, index in trajectories.items():
            for t, i in enumerate(index):
                own = values[trajectory][t]
                out[i] = (own - (total[t] - own) / (len(values) - 1)) / (deviation + 1e-6)
    return out


LOOPS: dict[str, Callable[[Rows], object]] = {
    "GRPO": grpo,
    "RLOO": rloo,
    "step reward": step_reward,
    "GiGPO": gigpo,
    "SALT": salt,
    "RTMC": rtmc,
}


def grpo_scalars(rows: Rows) -> Any:
    """GRPO over 0-dimensional tensors, as in verl's `compute_grpo_outcome_advantage`; one row per trajectory."""
    import torch

    totals: dict[str, float] = defaultdict(float)
    owner: dict[str, str] = {}
    for group, trajectory, reward in zip(rows.group, rows.trajectory, rows.reward, strict=True):
        totals[trajectory] += reward
        owner[trajectory] = group
    scores, index = torch.tensor(list(totals.values())), list(owner.values())
    by_group: dict[str, list[Any]] = defaultdict(list)
    for i in range(len(scores)):
        by_group[index[i]].append(scores[i])
    mean = {g: torch.mean(torch.tensor(v)) for g, v in by_group.items()}
    deviation = {g: torch.std(torch.tensor([v])) for g, v in by_group.items()}
    for i in range(len(scores)):
        scores[i] = (scores[i] - mean[index[i]]) / (deviation[index[i]] + 1e-6)
    place = {trajectory: i for i, trajectory in enumerate(totals)}
    return scores[torch.tensor([place[t] for t in rows.trajectory])]


def gigpo_scalars(rows: Rows, *, discount: float = 0.95) -> Any:
    """GiGPO over 0-dimensional tensors and whole-column comparisons, as in verl-agent's `core_gigpo`."""
    import torch

    group, trajectory = np.array(rows.group), np.array(rows.trajectory)
    reward, state = np.array(rows.reward, dtype=np.float32), np.array(rows.state, dtype=object)
    returns, scores = np.zeros(len(reward), dtype=np.float32), torch.zeros(len(reward))
    for name in np.unique(trajectory):
        where = np.where(trajectory == name)[0]
        running = 0.0
        for i in where[::-1]:
            running = reward[i] + discount * running
            returns[i] = running
        scores[where] = float(reward[where].sum())
    anchors = np.empty(len(reward), dtype=object)
    for name in np.unique(group):
        where = np.where(group == name)[0]
        for i in where:
            anchors[i] = (name, state[i])
    episode = _center(scores.clone(), list(zip(rows.group, rows.trajectory, strict=True)), rows.group)
    return episode + _center(torch.tensor(returns), None, list(anchors))


def _center(scores: Any, once: list[tuple[str, str]] | None, index: list[Any]) -> Any:
    import torch

    by_group: dict[Any, list[Any]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for i in range(len(scores)):
        if once is not None and once[i] in seen:
            continue
        by_group[index[i]].append(scores[i])
        if once is not None:
            seen.add(once[i])
    mean = {g: torch.mean(torch.tensor(v)) for g, v in by_group.items()}
    for i in range(len(scores)):
        scores[i] = scores[i] - mean[index[i]]
    return scores


SCALARS: dict[str, Callable[[Rows], object]] = {"GRPO": grpo_scalars, "GiGPO": gigpo_scalars}
