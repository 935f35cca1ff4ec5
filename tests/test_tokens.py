"""Token ids that grow: equal to tuples in all that is asked of them, and never shared wrongly."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.tokens import TokenIds
from agentenv.tree import relative_prompt

EIGHT = (8,)
IDS = st.lists(st.integers(0, 9), max_size=6).map(tuple)


@given(IDS, st.lists(st.tuples(st.integers(0, 50), IDS), max_size=8))
def test_whatever_is_added_to_whichever_it_equals_the_tuple(first, additions):
    grown, tuples = [TokenIds(first)], [first]
    for which, more in additions:
        i = which % len(grown)
        grown.append(grown[i] + more)
        tuples.append(tuples[i] + more)
    for ids, expected in zip(grown, tuples, strict=True):
        assert ids == expected and expected == ids
        assert (len(ids), tuple(ids), hash(ids), repr(ids)) == (len(expected), expected, hash(expected), repr(expected))
        assert pickle.loads(pickle.dumps(ids)) == expected
        assert [ids[i] for i in range(-len(ids), len(ids))] == [expected[i] for i in range(-len(ids), len(ids))]
        for part in (slice(None), slice(1, 3), slice(-2, None), slice(None, None, -1), slice(5, 0, -2), slice(0, 99)):
            assert ids[part] == expected[part]
        for i, other in enumerate(grown):
            assert (ids == other) == (expected == tuples[i])
            assert relative_prompt(other, ids) == relative_prompt(tuples[i], expected)
            assert not ids.extends(other) or expected[: len(other)] == tuples[i]


def test_adding_copies_nothing():
    ids = TokenIds(range(1000))
    longer = ids + (7,) * 10
    assert longer.extends(ids) and not ids.extends(longer)
    assert longer._ids is ids._ids
    other = ids + EIGHT
    assert other._ids is not ids._ids, "two ways to go on need memory of their own"
    assert longer[-1] == 7
    assert other[-1] == 8


def test_threads_that_go_on_from_one_state_do_not_mix():
    ids = TokenIds(range(100))

    def go_on(number):
        mine, numbers = ids, (number,)
        for _ in range(50):
            mine = mine + numbers
        return mine

    with ThreadPoolExecutor(8) as pool:
        for number, grown in enumerate(pool.map(go_on, range(64))):
            assert grown == (*range(100), *[number] * 50)


def test_an_index_out_of_range_is_named():
    ids = TokenIds((1, 2, 3)) + EIGHT
    short = ids[:2]
    assert short == (1, 2)
    with pytest.raises(IndexError, match=r"token index must be in \[-4, 4\), got 4"):
        ids[4]
    base = TokenIds((1,))
    assert base + EIGHT == (1, 8)
    with pytest.raises(IndexError):
        base[1]
    assert EIGHT + base == (8, 1)
    assert all(base != other for other in ([1], "1"))
