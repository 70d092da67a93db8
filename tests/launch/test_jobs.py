from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.launch.jobs import Job, controller, gpu_hours, make_jobs, window
from btrm.launch.submission import PlannedStep
from btrm.runs import Resources

GPU = Resources(nodes=2, gpus=8, time_min=90)


def step(
    name: str, elements: int | None = None, needs: tuple[str, ...] = (), parallelism: int | None = None
) -> PlannedStep:
    return PlannedStep(
        name=name,
        stage="judge",
        config={},
        resources=GPU,
        needs=needs,
        elements=elements,
        parallelism=parallelism,
    )


def elements(job: Job) -> list[int]:
    return [job.first + index for first, last in job.indices for index in range(first, last)]


def sent_once(steps: list[PlannedStep], max_array: int, room: int) -> list[int]:
    """Send windows until nothing is left, as the controller does; check each; return the elements in order."""
    left = {s.name: set(range(s.elements)) for s in steps if s.elements is not None}
    whole: set[str] = set()  # steps with a commit sent
    order: list[int] = []
    for _ in range(2000):
        todo = [s for s in steps if s.name not in whole]
        if not todo:
            return order
        jobs = make_jobs(todo, max_array, left)
        chosen = window(jobs, room)
        assert chosen and sum(job.count for job in chosen) <= room
        there = {job.key for job in jobs}
        before: set[str] = set()
        for job in chosen:
            assert all(key in before or key not in there for key in (*job.after, *job.behind))
            planned = next(other for other in jobs if other.key == job.key)
            if job.count == planned.count:
                before.add(job.key)
            if job.kind == "array":
                assert all(last <= max_array for _, last in job.indices)
                assert left[job.step] >= set(elements(job))
                left[job.step] -= set(elements(job))
                order += [e for e in elements(job) if job.step == "one"]
            else:
                assert not left.get(job.step)
                whole.add(job.step)
    raise AssertionError("never ends")


@settings(deadline=None)
@given(
    one=st.integers(0, 120),
    two=st.integers(1, 40),
    max_array=st.integers(1, 60),
    room=st.integers(1, 90),
    parallelism=st.none() | st.integers(1, 20),
)
def test_every_element_is_sent_once_and_nothing_before_what_it_needs(
    one: int, two: int, max_array: int, room: int, parallelism: int | None
) -> None:
    steps = [
        step("first"),
        step("one", one, ("first",), parallelism),
        step("two", two, ("one",), parallelism),
        step("last", None, ("one", "two")),
    ]
    assert sent_once(steps, max_array, room) == list(range(one))


@settings(deadline=None)
@given(missing=st.sets(st.integers(0, 500)), max_array=st.integers(1, 60), parallelism=st.integers(1, 30))
def test_arrays_hold_what_is_missing_within_the_cluster_s_limit(
    missing: set[int], max_array: int, parallelism: int
) -> None:
    jobs = make_jobs([step("judge", 501, (), parallelism)], max_array, {"judge": missing})
    arrays = [job for job in jobs if job.kind == "array"]
    assert [e for job in arrays for e in elements(job)] == sorted(missing)
    assert len(arrays) <= -(-501 // max_array)
    assert all(0 <= first < last <= max_array for job in arrays for first, last in job.indices)
    assert jobs[-1].kind == "commit" and jobs[-1].after == tuple(job.key for job in arrays)


@settings(deadline=None)
@given(count=st.integers(1, 400), max_array=st.integers(1, 60), parallelism=st.integers(1, 30))
def test_no_more_elements_run_at_a_time_than_asked(count: int, max_array: int, parallelism: int) -> None:
    """%N of arrays that can run together sum to N; where there are more arrays than N, each waits for one before it."""
    arrays = make_jobs([step("judge", count, (), parallelism)], max_array)[:-1]
    begin = [job for job in arrays if not job.behind]
    assert sum(job.parallelism or 0 for job in begin) == parallelism
    width = {job.key: job.parallelism or 0 for job in arrays}
    followed = [job.behind[0] for job in arrays if job.behind]
    assert len(set(followed)) == len(followed)
    assert all(width[job.key] <= width[job.behind[0]] for job in arrays if job.behind)


def test_sbatch_is_given_ranges_and_the_share_of_n() -> None:
    missing = [0, 1, 2, 7, 12, 13]
    first, second, commit = make_jobs([step("judge", 20, (), 5)], 10, {"judge": missing})
    assert (first.array, first.first, first.count) == ("0-2,7%3", 0, 4)
    assert (second.array, second.first, second.count) == ("2-3%2", 10, 2)
    assert commit.array == "" and commit.resources.time_min == 90


def test_a_window_cuts_the_last_array_and_leaves_out_what_waits_for_it() -> None:
    jobs = make_jobs([step("pairs"), step("judge", 5, ("pairs",)), step("eval", None, ("judge",))], 3)
    assert [job.key for job in window(jobs, None)] == ["pairs", "judge.0", "judge.1", "judge.commit", "eval"]
    assert [(job.key, job.array) for job in window(jobs, 5)] == [("pairs", ""), ("judge.0", "0-2"), ("judge.1", "0")]
    assert window(jobs, 0) == []


def test_steps_that_are_complete_are_waited_for_no_more() -> None:
    (job,) = make_jobs([step("eval", None, ("judge",))], 10)
    assert job.after == ()


def test_gpu_hours_are_those_of_all_elements_for_their_whole_time() -> None:
    jobs = make_jobs([step("judge", 10)], 4)
    assert gpu_hours(jobs) == pytest.approx(10 * 2 * 8 * 1.5)


def test_the_controller_asks_for_no_more_time_than_the_steps() -> None:
    assert controller([short()]).resources.time_min == 10 and controller([]).resources.time_min == 30


@pytest.mark.parametrize(("longest", "asked"), [(None, 60), (1440, 60), (45, 45)])
def test_the_commit_of_many_short_elements_has_its_time_where_the_cluster_gives_it(
    longest: int | None, asked: int
) -> None:
    assert make_jobs([short()], 10, longest_min=longest)[-1].resources.time_min == asked
    assert make_jobs([step("judge", 4)], 10, longest_min=longest)[-1].resources.time_min == min(longest or 90, 90)


def short() -> PlannedStep:
    return step("judge", 4).model_copy(update={"resources": GPU.model_copy(update={"time_min": 10})})


def test_a_hundred_thousand_elements() -> None:
    plan = [step("judge", 100_000, (), 64)]
    tracemalloc.start()
    started = time.perf_counter()
    jobs = make_jobs(plan, 1001)
    texts = [job.array for job in jobs]
    took, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(jobs) == 100 + 1 and sum(job.count for job in jobs) == 100_001 and texts[0] == "0-1000%1"
    assert took < 10 and peak < 100e6
    assert replace(jobs[0], parallelism=None).array == "0-1000"
