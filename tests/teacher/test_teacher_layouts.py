from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

import pytest
from hostile_responses import FORMS, LAYOUTS, calls_of, keys_of, pair_of, settings
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from btrm.judges.base import request_seed
from btrm.records import PreferencePair
from btrm.teacher.base import Call, RowKey
from btrm.teacher.layouts import make_calls
from btrm.teacher.marks import draw_marks

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_form = pytest.mark.parametrize("form", FORMS)


def some_pairs(count: int, first: int = 0) -> dict[int, PreferencePair]:
    return {n: pair_of(n, f"one {n}", f"two {n}") for n in range(first, first + count)}


def asked(calls: list[Call]) -> Counter[RowKey]:
    return Counter(key for call in calls for key in call.keys)


@each_layout
@effort(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_missing_row_is_asked_for_once(layout: str, data: st.DataObject) -> None:
    pairs = {number: pair_of(number, "one", "two") for number in sorted(data.draw(st.sets(st.integers(0, 30))))}
    missing = [key for key in keys_of(pairs, 3) if data.draw(st.booleans())]
    found = asked(list(make_calls(settings(layout, "tags", n_samples=3), pairs, missing)))
    assert set(found.values()) <= {1}
    if layout == "pairwise":  # a pair is asked as a whole where either side is missing
        missing = [(label, side, sample) for label, _, sample in missing for side in (0, 1)]
    assert set(found) == set(missing)


@each_layout
@each_form
def test_calls_do_not_depend_on_shards(layout: str, form: str) -> None:
    config, pairs = settings(layout, form, n_samples=2), some_pairs(16)
    whole = {call.text_hash: call for call in calls_of(config, pairs)}
    for size in (1, 4, 8) if layout != "batched" else (4, 8):
        shards = [dict(islice(pairs.items(), first, first + size)) for first in range(0, 16, size)]
        assert {call.text_hash: call for shard in shards for call in calls_of(config, shard)} == whole


@each_layout
def test_a_rerun_asks_what_is_missing_in_the_same_words(layout: str) -> None:
    config, pairs = settings(layout, "tags", n_samples=2), some_pairs(16)
    calls = calls_of(config, pairs)
    done = {key for call in calls[::3] for key in call.keys}
    rest = list(make_calls(config, pairs, (key for key in keys_of(pairs, 2) if key not in done)))
    assert rest == [call for number, call in enumerate(calls) if number % 3]


def test_a_batch_keeps_to_its_stretch_wherever_shards_are_cut() -> None:
    config, pairs = settings("batched", "tags"), some_pairs(16)
    numbers = {pair.label_id: number for number, pair in pairs.items()}
    for cut in range(1, 16):
        for shard in (dict(islice(pairs.items(), cut)), dict(islice(pairs.items(), cut, None))):
            for call in calls_of(config, shard):
                assert len({numbers[item.label_id] // 4 for item in call.items}) == 1


def test_a_batch_never_holds_both_sides_of_what_is_compared() -> None:
    pairs = some_pairs(400)
    for number in range(0, 400, 2):  # a second person's label of the same pair stands beside the first
        pairs[number + 1] = replace(pairs[number], label_id=f"{pairs[number].pair_id}-1")
    first: list[int] = []
    for call in calls_of(settings("batched", "tags"), pairs):
        sides = defaultdict[str, set[int]](set)
        for item in call.items:
            sides[item.pair_id].add(item.side)
        assert all(len(shown) == 1 for shown in sides.values())
        assert len(call.items) == 4 and all(item.shown_first is None for item in call.items)
        first.append(call.items[0].side)
    assert 30 < sum(first[::2]) < 70  # which side comes first is drawn


@each_form
def test_both_sides_and_all_samples_share_what_stands_before_the_response(form: str) -> None:
    pair = pair_of(0, "the first", "the second", "CONTEXT")
    calls = calls_of(settings("pointwise", form, n_samples=2), {0: pair})
    assert len({(call.system, call.context, str(call.schema)) for call in calls}) == 1
    assert pair.context in calls[0].context and "first" not in calls[0].context
    assert [call.question.split("\n")[1] for call in calls] == ["the first", "the first", "the second", "the second"]
    assert len({call.text_hash for call in calls}) == 4


def test_a_context_reads_the_same_though_one_response_knows_its_mark() -> None:
    config, pair = settings("pointwise", "tags"), pair_of(0, "the first", "the second")
    known = calls_of(config, {0: pair})[0].context.split('"')[1]
    one, two = calls_of(config, {0: replace(pair, responses=("the first", f"the second {known}"))})
    assert one.context == two.context and known not in one.context


def test_two_of_one_name_have_two_marks() -> None:
    marks = draw_marks(0, [("a", "b"), ("a", "b"), ("ab",)], [""])
    assert len(set(marks)) == 3 and marks == draw_marks(0, [("a", "b"), ("a", "b"), ("ab",)], ["unrelated"])


@each_form
def test_a_pair_is_shown_in_the_order_that_is_recorded(form: str) -> None:
    firsts: list[int] = []
    for seed in (0, 1):
        calls = calls_of(settings("pairwise", form, seed=seed), some_pairs(300))
        for call in calls:
            one, two = call.items
            assert (one.shown_first, two.shown_first, one.side + two.side) == (True, False, 1)
            assert call.question.index(call.responses[0]) < call.question.index(call.responses[1])
            assert call.responses[0].startswith(("one", "two")[one.side])
        firsts.append(sum(call.items[0].side for call in calls))
        again = {
            call.items[0].label_id: call.items[0].side
            for call in calls_of(settings("pairwise", form, seed=seed), some_pairs(300))
        }
        assert again == {call.items[0].label_id: call.items[0].side for call in calls}
    assert all(110 < first < 190 for first in firsts) and firsts[0] != firsts[1]


def test_samples_of_a_pair_take_turns_in_who_is_shown_first() -> None:
    for samples in (2, 3):
        orders: dict[str, list[int]] = defaultdict(list)
        for call in calls_of(settings("pairwise", "tags", n_samples=samples), some_pairs(20)):
            assert [item.shown_first for item in call.items] == [True, False]
            orders[call.items[0].label_id].append(call.items[0].side)
        assert {tuple(order) for order in orders.values()} == {(0, 1, 0)[:samples], (1, 0, 1)[:samples]}


def test_everybody_who_labelled_a_pair_has_it_in_the_same_order() -> None:
    pairs = some_pairs(20)
    others = {n: replace(pair, label_id=f"{pair.pair_id}-9") for n, pair in pairs.items()}
    config = settings("pairwise", "tags")
    for one, other in zip(calls_of(config, pairs), calls_of(config, others), strict=True):
        assert [item.side for item in one.items] == [item.side for item in other.items]


@each_layout
@each_form
def test_marks_are_new_names_in_each_call(layout: str, form: str) -> None:
    config = settings(layout, form, n_samples=2)
    calls, again = (calls_of(config, some_pairs(50)) for _ in range(2))
    assert calls == again
    other = calls_of(config.model_copy(update={"seed": 1}), some_pairs(50))
    assert not {item.mark for call in calls for item in call.items} & {
        item.mark for call in other for item in call.items
    }
    for call in calls:
        marks = [item.mark for item in call.items]
        assert len(set(marks)) == len(marks)
        for mark in marks:
            assert mark not in call.system + "".join(call.responses)
            assert (
                call.question.count(f'<response id="{mark}">\n') == call.question.count(f'</response id="{mark}">') == 1
            )


@each_layout
def test_samples_have_seeds_of_their_own(layout: str) -> None:
    calls = calls_of(settings(layout, "tags", n_samples=3, seed=5), some_pairs(40))
    assert len({call.seed for call in calls}) == len(calls)
    if layout == "pointwise":
        item = calls[4].items[0]
        assert (item.side, calls[4].sample) == (1, 1)
        assert calls[4].seed == request_seed(5, item.label_id, 1, 3) + 1


@each_layout
def test_what_was_answered_before_and_forgotten_is_asked_with_another_seed(layout: str) -> None:
    config, pairs = settings(layout, "tags", n_samples=2), some_pairs(8)
    calls = calls_of(config, pairs)
    again = calls[1]
    seeds = {again.seed}
    for times in (1, 2):
        earlier = {again.keys[0]: times}
        found = list(make_calls(config, pairs, keys_of(pairs, 2), earlier))
        assert found == list(make_calls(config, pairs, keys_of(pairs, 2), earlier))
        changed = [(one, other) for one, other in zip(calls, found, strict=True) if one != other]
        assert [(one, replace(other, seed=one.seed)) for one, other in changed] == [(again, again)]
        seeds.add(changed[0][1].seed)
    assert len(seeds) == 3
    assert list(make_calls(config, pairs, keys_of(pairs, 2), {again.keys[0]: 0})) == calls


class Endless(Mapping[int, PreferencePair]):
    """As many pairs as one wants, none of which is kept."""

    def __getitem__(self, number: int) -> PreferencePair:
        return pair_of(number, "one " * 100, "two " * 100)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return 1_000_000


@each_layout
def test_calls_are_made_as_they_are_wanted(layout: str) -> None:
    pairs, read = Endless(), 0

    def missing() -> Iterator[RowKey]:
        nonlocal read
        for number in pairs:
            read += 1
            label = pairs[number].label_id
            yield from ((label, 0, 0), (label, 1, 0))

    calls = make_calls(settings(layout, "tags"), pairs, missing())
    next(calls)
    assert read <= 6  # a batch's pairs, and the one that shows that they are all
    tracemalloc.start()
    for _ in islice(calls, 1000):
        pass
    assert tracemalloc.get_traced_memory()[1] < 300_000
    tracemalloc.stop()


def test_rows_that_are_not_in_the_pairs_order_are_no_request() -> None:
    pairs = some_pairs(3)
    with pytest.raises(AssertionError, match="not among the pairs"):
        list(make_calls(settings("pointwise", "tags"), pairs, reversed(keys_of(pairs))))
