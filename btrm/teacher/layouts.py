"""How pairs become calls: one response a call, several of different pairs, or both of one pair.

Who stands with whom, in which order and under which marks follows from the seed, the pairs' numbers and what they hold,
never from what has been answered or which share asks: a rerun asks what is missing in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

from btrm.judges.base import request_seed
from btrm.prompts import get_prompt
from btrm.records import PreferencePair, stable_hash
from btrm.teacher.base import Call, Form, Item, Layout, RowKey
from btrm.teacher.config import TeacherConfig
from btrm.teacher.forms import question_line, schema_of
from btrm.teacher.marks import delimited, draw_marks
from btrm.teacher.teacher_prompts import get_teacher_prompt

_NONE: Mapping[RowKey, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Shown:
    """One response as a call shows it."""

    pair: PreferencePair
    side: int
    shown_first: bool | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What its mark is drawn for."""
        return self.pair.label_id, str(self.side)

    @property
    def response(self) -> str:
        """The text itself."""
        return self.pair.responses[self.side]


@dataclass(frozen=True, slots=True)
class _Missing:
    """A pair with the rows that it lacks: (side, sample)."""

    number: int
    pair: PreferencePair
    rows: tuple[tuple[int, int], ...]


def make_calls(
    config: TeacherConfig,
    pairs: Mapping[int, PreferencePair],
    missing: Iterable[RowKey],
    earlier: Mapping[RowKey, int] = _NONE,
) -> Iterator[Call]:
    """Yield the calls that ask for the missing rows; these, and the pairs, come in the order of the pairs' numbers.

    `earlier` are rows whose answers are forgotten, and how many each has had: they are asked for with another seed, or
    the same answer would come. Calls about one pair stand side by side. Nothing is read ahead beyond one call's pairs.
    """
    maker = CallMaker.of(config, earlier)
    return _MAKERS[config.call_layout](maker, _by_pair(pairs, missing))


def _by_pair(pairs: Mapping[int, PreferencePair], missing: Iterable[RowKey]) -> Iterator[_Missing]:
    numbers = iter(pairs)
    for label, keys in groupby(missing, key=lambda key: key[0]):
        number = next((number for number in numbers if pairs[number].label_id == label), None)
        assert number is not None, f"{label}: not among the pairs, or not in their order"
        yield _Missing(number, pairs[number], tuple([(side, sample) for _, side, sample in keys]))


@dataclass(frozen=True, slots=True)
class CallMaker:
    """What all calls of a stage have in common, and how one is made of it."""

    seed: int
    n_samples: int
    batch_size: int
    layout: Layout
    form: Form
    system: str
    schema: Mapping[str, Any] | None
    earlier: Mapping[RowKey, int]

    @classmethod
    def of(cls, config: TeacherConfig, earlier: Mapping[RowKey, int]) -> CallMaker:
        """Return what a config's calls are made by."""
        student, layout, form = get_prompt(config.prompt), config.call_layout, config.call_form
        return cls(
            config.seed,
            config.n_samples,
            config.batch_size,
            layout,
            form,
            get_teacher_prompt(config.teacher_prompt, student.name).system(student.scale, layout, form),
            schema_of(layout, student.scale) if form == "schema" else None,
            earlier,
        )

    def about_pair(self, pair: PreferencePair, sides: Sequence[int], sample: int) -> Call:
        """Return a call about one pair's responses, shown in this order; its context stands apart, for caches."""
        shown = [_Shown(pair, side, None if len(sides) == 1 else side == sides[0]) for side in sides]
        data = [pair.context, *pair.responses]
        # Its mark is drawn apart from both responses, so that the context reads the same in both sides' calls.
        place, *marks = draw_marks(self.seed, [("context", pair.context), *(s.name for s in shown)], data)
        blocks = [delimited("response", mark, s.response) for s, mark in zip(shown, marks, strict=True)]
        return self._call(shown, marks, sample, delimited("context", place, pair.context) + "\n\n", blocks)

    def about_several(self, shown: Sequence[_Shown], sample: int) -> Call:
        """Return a call about responses of several pairs, each with its context."""
        data = [text for s in shown for text in (s.pair.context, s.response)]
        marks = draw_marks(self.seed, [s.name for s in shown], data)
        blocks = [
            f"{delimited('context', mark, s.pair.context)}\n{delimited('response', mark, s.response)}"
            for s, mark in zip(shown, marks, strict=True)
        ]
        return self._call(shown, marks, sample, "", blocks)

    def _call(
        self, shown: Sequence[_Shown], marks: Sequence[str], sample: int, context: str, blocks: Sequence[str]
    ) -> Call:
        items = [
            Item(s.pair.label_id, s.pair.pair_id, s.side, mark, s.shown_first)
            for s, mark in zip(shown, marks, strict=True)
        ]
        names = [item.label_id for item in items]
        label = names[0] if len(names) == 1 else stable_hash(*names)
        if earlier := max(self.earlier.get((item.label_id, item.side, sample), 0) for item in items):
            label = stable_hash(label, f"after {earlier}")
        return Call(
            items=tuple(items),
            sample=sample,
            layout=self.layout,
            form=self.form,
            system=self.system,
            context=context,
            question="\n\n".join([*blocks, question_line(self.layout, self.form, marks)]),
            schema=self.schema,
            seed=request_seed(self.seed, label, items[0].side, self.n_samples) + sample,
            responses=tuple(s.response for s in shown),
        )


def _pointwise(maker: CallMaker, pairs: Iterator[_Missing]) -> Iterator[Call]:
    for lacking in pairs:
        for side, sample in lacking.rows:
            yield maker.about_pair(lacking.pair, (side,), sample)


def _pairwise(maker: CallMaker, pairs: Iterator[_Missing]) -> Iterator[Call]:
    """Ask for a whole pair wherever one of its sides is missing.

    Samples take turns in who is shown first, so that a liking for one place cancels.
    """
    for lacking in pairs:
        drawn = _drawn_side(maker.seed, "shown first", lacking.pair)
        for sample in sorted({sample for _, sample in lacking.rows}):
            first = drawn ^ (sample & 1)
            yield maker.about_pair(lacking.pair, (first, 1 - first), sample)


def _batched(maker: CallMaker, pairs: Iterator[_Missing]) -> Iterator[Call]:
    """Ask about the pairs of a stretch of numbers in two calls a sample, each with one side of each pair.

    The side is drawn for what is compared, not for its label: where several people labelled one pair, its two sides do
    not meet either.
    """
    for _, stretch in groupby(pairs, key=lambda lacking: lacking.number // maker.batch_size):
        members = [(lacking, _drawn_side(maker.seed, "batch", lacking.pair)) for lacking in stretch]
        for sample in sorted({sample for lacking, _ in members for _, sample in lacking.rows}):
            for turn in (0, 1):
                wanted = [(lacking, side ^ turn) for lacking, side in members]
                shown = [_Shown(lacking.pair, side) for lacking, side in wanted if (side, sample) in lacking.rows]
                if shown:
                    yield maker.about_several(shown, sample)


_MAKERS: dict[Layout, Callable[[CallMaker, Iterator[_Missing]], Iterator[Call]]] = {
    "pointwise": _pointwise,
    "pairwise": _pairwise,
    "batched": _batched,
}


def _drawn_side(seed: int, purpose: str, pair: PreferencePair) -> int:
    """Return 0 or 1, the same for the same seed and pair."""
    return int(stable_hash(purpose, str(seed), pair.pair_id), 16) & 1
