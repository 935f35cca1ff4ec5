"""Episode statistics: sums that add up, the environment's own threshold, and no crash where nothing went through."""

import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.cli.rollout import summarize
from agentenv.stats import EpisodeStats, Tally, episode_stats, episodes
from agentenv.tree import EpisodeTree, Node
from agentenv.types import Action


def chain(rewards, *, threshold=0.5, truncated=False):
    """A tree of one episode; `None` is a failure."""
    tree = EpisodeTree((), success_threshold=threshold)
    above = 0
    for i, reward in enumerate(rewards):
        end = i + 1 == len(rewards) and reward is not None
        above = tree.add(
            above, Action("x"), reward=reward, terminated=end and not truncated, truncated=end and truncated
        )
    return tree


def test_one_success_in_nine_is_one_ninth_whatever_the_batches():
    trees = [chain([0.0, float(i == 8)]) for i in range(9)]
    parts = [episode_stats(trees[:4]), episode_stats(trees[4:8]), episode_stats(trees[8:])]
    total = reduce(EpisodeStats.__add__, parts)
    assert total == episode_stats(trees)
    assert total.roots.success == pytest.approx(1 / 9)
    assert total.roots.standard_error == pytest.approx(math.sqrt(1 / 9 * 8 / 9 / 9))


@pytest.mark.parametrize(
    ("rewards", "threshold", "succeeded"),
    [([0.4], 0.5, False), ([0.3, 0.3], 0.5, True), ([0.5], 0.5, False), ([0.4], 0.3, True), ([-1.0], -2.0, True)],
)
def test_success_is_a_return_above_the_environments_threshold(rewards, threshold, succeeded):
    tree = chain(rewards, threshold=threshold)
    (episode,) = episodes(tree)
    assert episode.succeeded is succeeded is tree.succeeded(episode.leaf)
    assert bool(tree.arrays().succeeded[episode.leaf]) is succeeded
    assert episode_stats([tree]).roots.successes == succeeded


def test_continuations_are_counted_apart():
    """Half of the full episodes succeed; the continuations all start from the failure and change nothing in that."""
    tree = EpisodeTree(())
    lost = tree.add(0, Action("a"), reward=0.0)
    tree.add(lost, Action("b"), reward=0.0, terminated=True)
    tree.add(0, Action("c"), reward=1.0, terminated=True)
    for _ in range(6):
        tree.add(lost, Action("d"), reward=0.0, truncated=True)
    stats = episode_stats([tree])
    assert (stats.roots.episodes, stats.roots.success, stats.roots.mean_steps) == (2, 0.5, 1.5)
    assert (stats.continuations.episodes, stats.continuations.success) == (6, 0.0)
    assert stats.continuations.truncated_share == 1.0 and stats.roots.truncated == 0
    assert stats.everything.episodes == 8
    assert (stats.trees, stats.even_trees, stats.broken_trees) == (1, 0, 0)


def test_later_rollouts_from_the_root_can_be_counted_as_continuations():
    """An allocator that has seen the outcome may choose the root, more often in some trees than in others."""
    tree = EpisodeTree(())
    tree.add(0, Action("a"), reward=0.0, terminated=True)
    for _ in range(3):
        tree.add(0, Action("b"), reward=1.0, terminated=True)
    assert episode_stats([tree]).roots.success == 0.75
    planned = episode_stats([tree], num_rollouts=1)
    assert (planned.roots.success, planned.continuations.success, planned.continuations.episodes) == (0.0, 1.0, 3)


def test_a_continuation_of_a_continuation_is_one_too():
    tree = EpisodeTree(())
    first = tree.add(0, Action("a"), reward=0.0)
    tree.add(first, Action("b"), reward=0.0, terminated=True)
    second = tree.add(first, Action("c"), reward=0.0)
    tree.add(second, Action("d"), reward=1.0, terminated=True)
    tree.add(second, Action("e"), reward=1.0, terminated=True)
    assert [episode.anchor for episode in episodes(tree)] == [0, first, second]


def test_of_a_rollout_that_was_started_again_the_last_attempt_counts():
    tree = EpisodeTree(())
    for attempt, reward in ((0, None), (1, None), (2, 1.0)):
        tree.append(Node(0, Action("x"), (), reward, terminated=reward is not None, rollout=0, attempt=attempt))
    for attempt in (0, 1, 2):
        tree.append(Node(0, Action("x"), (), None, rollout=1, attempt=attempt))
    tally = episode_stats([tree]).roots
    assert (tally.episodes, tally.success, tally.failed, tally.retries) == (1, 1.0, 1, 4)


def test_rewritten_history_is_counted_from_the_tokens():
    tree = EpisodeTree(())
    first = tree.add(0, Action("a", token_ids=(4, 5), prompt_token_ids=(1, 2, 3)), reward=0.0)
    second = tree.add(first, Action("b", token_ids=(7,), prompt_token_ids=(1, 2, 3, 4, 5, 6)), reward=0.0)
    tree.add(second, Action("c", token_ids=(9,), prompt_token_ids=(1, 2, 3, 6, 7, 8)), reward=0.0)
    stats = episode_stats([tree])
    assert (stats.prompts, stats.rewritten_prompts, stats.rewritten_tokens) == (2, 1, 4)
    assert stats.rewritten_share == (stats + episode_stats([EpisodeTree(())])).rewritten_share == 0.5
    assert summarize([tree], 1)["rewritten prompts"] == 0.5
    assert "rewritten prompts" not in summarize([EpisodeTree(())], 1)


def test_what_agents_broke_is_counted_apart_from_failures():
    """Also in attempts that were started again; whatever else an environment calls so is not counted."""
    tree = EpisodeTree(())
    first = tree.add(0, Action("a"), reward=0.0, info={"breakages": ["the sandbox was lost"]})
    tree.add(first, Action("b"), reward=0.0, terminated=True, info={"breakages": ["lost again", "and its grading"]})
    tree.add(first, Action("c"), reward=1.0, terminated=True, info={"breakages": 7})
    stats = episode_stats([tree])
    assert (stats.breakages, stats.everything.failed, stats.roots.episodes) == (3, 0, 1)
    assert (stats + stats).breakages == 6
    assert summarize([tree], 1)["breakages"] == 3
    assert "breakages" not in summarize([EpisodeTree(())], 1)


def test_where_nothing_went_through_means_are_nan_and_nothing_crashes():
    stats = episode_stats([chain([0.0, None]), chain([None])])
    assert (stats.roots.episodes, stats.roots.failed, stats.trees, stats.broken_trees) == (0, 2, 0, 2)
    means = ["success", "standard_error", "mean_return", "std_return", "mean_steps", "truncated_share"]
    assert all(math.isnan(getattr(stats.roots, name)) for name in means)
    assert math.isnan(stats.even_share)
    assert math.isnan(stats.rewritten_share)
    assert episode_stats([]) == EpisodeStats()
    assert episode_stats([EpisodeTree(())]).roots == Tally()


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 0.25, -2.0, None]), min_size=1, max_size=4).map(
            lambda rewards: rewards[: rewards.index(None) + 1] if None in rewards else rewards
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_the_sum_of_the_parts_is_the_whole(all_rewards, size):
    trees = [chain(rewards) for rewards in all_rewards]
    parts = [episode_stats(trees[i : i + size]) for i in range(0, len(trees), size)]
    total = reduce(EpisodeStats.__add__, parts, EpisodeStats())
    returns = [sum(rewards) for rewards in all_rewards if None not in rewards]
    assert total.roots.failed == len(trees) - len(returns)
    if returns:
        assert total.roots.mean_return == pytest.approx(np.mean(returns))
        assert total.roots.std_return == pytest.approx(np.std(returns), rel=1e-12, abs=1e-12)
        assert total.roots.success == pytest.approx(np.mean(np.array(returns) > 0.5))


@pytest.mark.parametrize("shift", [0.0, 1e8, -1e12])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_large_returns_hide_no_deviation(shift, size):
    returns = [shift + x for x in (0.0, 1.0, 1.0, 0.0, 4.0, -2.0, 1.0)]
    parts = [episode_stats([chain([x]) for x in returns[i : i + size]]) for i in range(0, len(returns), size)]
    total = reduce(EpisodeStats.__add__, parts)
    assert total.roots.std_return == pytest.approx(np.std(returns), rel=1e-4)
    assert episode_stats([chain([x]) for x in (1e8, 1e8 + 1)]).roots.std_return == 0.5
    assert episode_stats([chain([x]) for x in returns[1:3]]).roots.std_return == 0.0
    assert episode_stats([chain([1e200]), chain([-1e200])]).roots.std_return == math.inf
