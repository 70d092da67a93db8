"""Stage `pairs`: a preference set becomes pairs.parquet and rows.jsonl, split by split, in one streaming pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, Self, cast

from pydantic import model_validator

from btrm.config import ConfigError, extent, runtime, setting, source
from btrm.data.detect import resolve
from btrm.data.items import Dropped, Query
from btrm.data.reading import BUFFER
from btrm.data.rows import RowEncoder
from btrm.data.sources import Sift, check_query, get_source
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.publishing import replace
from btrm.records import PreferencePair, write_pairs
from btrm.runs import StageConfig, StageResult, StageRun, sha256_file


class PairsConfig(StageConfig):
    """What to read and how to ask about it. More pairs or splits extend a run: the first pairs stay the same."""

    dataset: str = setting(
        "toy",
        "a data set's name (README), auto (by data_files' columns), or FILE.py:function",
        published="EVAL_DATASET",
    )
    prompt: str = setting("", "prompt of the pointwise rows; the data set's usual one by default")
    splits: tuple[str, ...] = extent((), "splits to write; all that the data set (or data_files) has by default")
    n_pairs: dict[str, int] = extent({}, "most pairs of each split, as split=N; all by default (toy needs them)")
    data_files: dict[str, str] = source({}, "original files, as split=FILE or split=FOLDER, instead of the hub")
    columns: dict[str, str] = setting({}, "mapped: which column is what, as role=column")
    options: dict[str, str] = setting(
        {},
        "the data set's own options (summarize_from_feedback: domain=tldr|cnndm|all; rm_bench, rewardbench2: "
        "pairs=all|matched; rmb: set=all|pairwise|bon; judgebench: responses=gpt|claude|all)",
    )
    seed: int = setting(0, "toy: seed of the generator", ge=0)
    label_noise: float = setting(0.0, "toy: share of training labels that are flipped", ge=0, le=1)
    # Not a setting: a run that is complete under `raise` met no malformed row, so `skip` would have made the same.
    on_error: Literal["raise", "skip"] = runtime("raise", "at a malformed row: stop, or leave it out and count it")
    batch: int = runtime(1024, "pairs in memory at a time", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Write what `auto` is and the data set's usual prompt into the config, so that the manifest records them."""
        values = {**values, "dataset": _resolved(values)}
        try:
            usual = get_source(str(values["dataset"]))
        except ConfigError:
            return values  # named below, with all other problems
        return {**values, "prompt": values.get("prompt") or usual.prompt or ""}

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[str] = []
        for check in (self._check_prompt, self._check_splits):
            try:
                problems += check()
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _check_prompt(self) -> list[str]:
        get_source(self.dataset)
        if not self.prompt:
            return [f"prompt: required for dataset {self.dataset}"]
        get_prompt(self.prompt)
        return []

    def _check_splits(self) -> list[str]:
        splits, given = self.chosen_splits, self.n_pairs
        if not splits:
            return [f"splits: dataset {self.dataset} does not say which it has; give splits or data_files"]
        for split in splits:
            check_query(self.dataset, self.query(split))
        problems = [f"n_pairs.{s}: not among splits {', '.join(splits)}" for s in given if s not in splits]
        problems += [f"n_pairs.{s}: expected at least 1, got {n}" for s, n in given.items() if n < 1]
        if self.dataset == "toy":
            problems += [f"n_pairs.{s}: toy has no end; say how many" for s in splits if s not in given]
        if self.data_files:
            problems += [f"data_files.{s}: not given" for s in splits if s not in self.data_files]
        return problems

    @property
    def chosen_splits(self) -> tuple[str, ...]:
        """The splits asked for; else those of the data files; else all that the data set has."""
        return self.splits or tuple(self.data_files) or get_source(self.dataset).splits

    def override(self, assignments: Iterable[str], where: str = "--set") -> Self:
        """Apply assignments; another data set starts from its own usual prompt and splits, not from the old one's."""
        given = list(assignments)
        values = {name: value for name, _, value in (item.partition("=") for item in given)}
        if values.get("dataset", values.get("EVAL_DATASET", self.dataset)) != self.dataset:
            usual = {"prompt": "prompt=", "splits": "splits=[]", "n_pairs": "n_pairs={}"}
            given += [text for name, text in usual.items() if name not in values]
        return super().override(given, where)

    def query(self, split: str, files: tuple[Path, ...] = ()) -> Query:
        """Return what to ask of the source for a split."""
        limit = self.n_pairs.get(split)
        return Query(split, limit, files, self.columns, self.options, self.seed, self.label_noise)


def _resolved(values: dict[str, Any]) -> str:
    """Return the data set's name; `auto` is found from the files, which must be there when the request is made."""
    given: Any = values.get("data_files")
    files = cast("dict[str, str]", given) if isinstance(given, dict) else {}
    return resolve(str(values.get("dataset", "toy")), tuple(Path(file).expanduser() for file in files.values()))


def run_pairs(config: PairsConfig, run: StageRun) -> StageResult:
    """Write {split}.pairs.parquet, {split}.rows.jsonl (ties have no row) and dropped.jsonl; return the counts.

    Everything is published at the end: a malformed row in the last split leaves nothing behind.
    """
    results: dict[str, Any] = {"prompt": config.prompt}
    written: dict[Path, int] = {}
    dropped = run.scratch("dropped.jsonl")
    with dropped.open("w", encoding="utf-8") as drops:
        for split in config.chosen_splits:
            results[split] = _write_split(config, run, split, drops, written)
    counts = [results[split] for split in config.chosen_splits]
    written[dropped] = sum(n for found in counts for reason, n in found.items() if reason.startswith("dropped_"))
    for path in written:
        replace(path, run.dir / path.name)
    if ".py:" in config.dataset:
        results["adapter_sha256"] = sha256_file(Path(config.dataset.rpartition(":")[0]).expanduser())
    return StageResult({path.name: rows for path, rows in written.items()}, results)


def _write_split(
    config: PairsConfig, run: StageRun, split: str, drops: IO[str], written: dict[Path, int]
) -> dict[str, int]:
    """Stream one split into two scratch files, noted in `written` with their rows; return its counts."""

    def on_drop(item: Dropped) -> None:
        drops.write(json.dumps({"split": split, **item.to_json()}, ensure_ascii=False) + "\n")

    files = (run.input(config.data_files[split]),) if config.data_files else ()
    query = config.query(split, files)
    sift = Sift(config.on_error, query.limit, on_drop)
    pairs = progress(sift.pairs(check_query(config.dataset, query).read(query)), query.limit, f"pairs {split}", "pair")
    rows_path = run.scratch(f"{split}.rows.jsonl")
    pairs_path = rows_path.with_name(f"{split}.pairs.parquet")
    with rows_path.open("wb", buffering=BUFFER) as rows:
        write_pairs(pairs_path, _with_rows(pairs, RowEncoder(get_prompt(config.prompt)), rows), config.batch)
    sift.check_any(f"dataset {config.dataset}, split {split}")
    n_rows = 2 * (sift.counts["pairs"] - sift.counts["ties"])
    written |= {pairs_path: sift.counts["pairs"], rows_path: n_rows}
    return {**sift.counts, "rows": n_rows}


def _with_rows(pairs: Iterator[PreferencePair], encoder: RowEncoder, rows: IO[bytes]) -> Iterator[PreferencePair]:
    """Pass pairs on while writing their rows: one pass over the source feeds both files."""
    for pair in pairs:
        rows.write(encoder.lines(pair))
        yield pair
