"""Orders, cycles and chains."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.storyboard.order import cycles, longest_chain, ordered


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({}, []),
        ({"a": [], "b": [], "c": []}, ["a", "b", "c"]),
        ({"a": ["c"], "b": [], "c": []}, ["b", "c", "a"]),
        ({"a": ["b"], "b": ["c"], "c": [], "d": []}, ["c", "b", "a", "d"]),
        ({"a": ["b"], "b": ["a"], "c": ["a"], "d": []}, ["d"]),
        ({"a": ["elsewhere"]}, ["a"]),
    ],
)
def test_each_comes_after_what_it_needs_else_in_the_given_order(needs: dict[str, list[str]], order: list[str]) -> None:
    assert ordered(needs) == order


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        ({"a": [], "b": ["a"]}, []),
        ({"a": ["a"]}, [["a", "a"]]),
        ({"a": ["b"], "b": ["a"]}, [["a", "b", "a"]]),
        ({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}, [["a", "b", "c", "a"]]),
        ({"d": ["a"], "a": ["b"], "b": ["a"]}, [["a", "b", "a"]]),
        ({"a": ["a"], "b": ["b"]}, [["a", "a"], ["b", "b"]]),
    ],
)
def test_cycles_are_found(needs: dict[str, list[str]], found: list[list[str]]) -> None:
    assert cycles(needs) == found


def test_the_longest_chain_has_most_shots_then_most_seconds() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["c"], "f": []}
    assert longest_chain(needs, {"a": 5, "b": 3, "c": 4, "d": 5, "e": 5, "f": 15}) == ("a", "c", "e")
    assert longest_chain({}, {}) == ()


NAMES = st.sampled_from("abcdefgh")


@given(st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4)))
def test_all_is_ordered_or_some_cycle_tells_why(needs: dict[str, list[str]]) -> None:
    order = ordered(needs)
    for n, name in enumerate(order):
        assert {need for need in needs[name] if need in needs} <= set(order[:n])
    found = cycles(needs)
    assert bool(found) == (len(order) < len(needs))
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(need in needs[name] for name, need in itertools.pairwise(cycle))


def test_a_long_chain_needs_no_recursion() -> None:
    needs = {f"s{n}": [f"s{n - 1}"] if n else [] for n in range(5000)}
    assert len(longest_chain(needs, dict.fromkeys(needs, 5))) == 5000
    needs["s0"] = ["s4999"]
    assert len(cycles(needs)[0]) == 5001
