"""Stage `pairs`: a preference set becomes pairs.parquet and rows.jsonl, split by split, in one streaming pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, Self, cast

from pydantic import model_validator

from btrm.config import ConfigError, extent, runtime, setting, source
from btrm.data.reading import BUFFER, Dropped, Query
from btrm.data.rows import RowEncoder
from btrm.data.sources import Sift, check_query, get_source
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.records import PreferencePair, write_pairs
from btrm.runs import StageConfig, StageResult, StageRun, replace, sha256_file


class PairsConfig(StageConfig):
    """What to read and how to ask about it. More pairs or splits extend a run: the first pairs stay the same."""

    dataset: str = setting("toy", "toy, summarize_from_feedback, anthropic_hh, mapped, or FILE.py:function")
    prompt: str = setting("", "prompt of the pointwise rows; the data set's usual one by default")
    splits: tuple[str, ...] = extent((), "splits to write; all that the data set (or data_files) has by default")
    n_pairs: dict[str, int] = extent({}, "most pairs of each split, as split=N; all by default (toy needs them)")
    data_files: dict[str, str] = source({}, "original files, as split=FILE or split=FOLDER, instead of the hub")
    columns: dict[str, str] = setting({}, "mapped: which column is what, as role=column")
    options: dict[str, str] = setting({}, "the data set's own options (summarize_from_feedback: domain=tldr|cnndm|all)")
    seed: int = setting(0, "toy: seed of the generator", ge=0)
    label_noise: float = setting(0.0, "toy: share of training labels that are flipped", ge=0, le=1)
    on_error: Literal["raise", "skip"] = setting("raise", "at a malformed row: stop, or leave it out and count it")
    batch: int = runtime(1024, "pairs in memory at a time", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Write the data set's usual prompt and splits into the config, so that the manifest records them."""
        try:
            usual = get_source(str(values.get("dataset", "toy")))
        except ConfigError:
            return values  # named below, with all other problems
        files = cast("dict[str, str]", values.get("data_files") or {})
        return {
            **values,
            "prompt": values.get("prompt") or usual.prompt or "",
            "splits": values.get("splits") or tuple(files) or usual.splits,
        }

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
        if not self.splits:
            return [f"splits: dataset {self.dataset} does not say which it has; give splits or data_files"]
        for split in self.splits:
            check_query(self.dataset, self.query(split))
        given, known = self.n_pairs, ", ".join(self.splits)
        problems = [f"n_pairs.{split}: not among splits {known}" for split in given if split not in self.splits]
        problems += [f"n_pairs.{split}: expected at least 1, got {n}" for split, n in given.items() if n < 1]
        if self.dataset == "toy":
            problems += [
                f"n_pairs.{split}: toy has no end; say how many" for split in self.splits if split not in given
            ]
        if self.data_files:
            problems += [f"data_files.{s}: not given" for s in self.splits if s not in self.data_files]
        return problems

    def query(self, split: str, files: tuple[Path, ...] = ()) -> Query:
        """Return what to ask of the source for a split."""
        limit = self.n_pairs.get(split)
        return Query(split, limit, files, self.columns, self.options, self.seed, self.label_noise)


def run_pairs(config: PairsConfig, run: StageRun) -> StageResult:
    """Write {split}.pairs.parquet, {split}.rows.jsonl (ties have no row) and dropped.jsonl; return the counts."""
    outputs: dict[str, int | None] = {}
    results: dict[str, Any] = {"prompt": config.prompt}
    dropped = run.scratch("dropped.jsonl")
    with dropped.open("w", encoding="utf-8") as drops:
        for split in config.splits:
            results[split] = _write_split(config, run, split, drops, outputs)
    replace(dropped, run.dir / dropped.name)
    outputs[dropped.name] = sum(n for s in config.splits for k, n in results[s].items() if k.startswith("dropped_"))
    if ".py:" in config.dataset:
        results["adapter_sha256"] = sha256_file(Path(config.dataset.rpartition(":")[0]).expanduser())
    return StageResult(outputs, results)


def _write_split(
    config: PairsConfig, run: StageRun, split: str, drops: IO[str], outputs: dict[str, int | None]
) -> dict[str, int]:
    """Stream one split into its two files; return its counts."""

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
    for path in (pairs_path, rows_path):
        replace(path, run.dir / path.name)
    outputs[pairs_path.name] = sift.counts["pairs"]
    outputs[rows_path.name] = 2 * (sift.counts["pairs"] - sift.counts["ties"])
    return {**sift.counts, "rows": 2 * (sift.counts["pairs"] - sift.counts["ties"])}


def _with_rows(pairs: Iterator[PreferencePair], encoder: RowEncoder, rows: IO[bytes]) -> Iterator[PreferencePair]:
    """Pass pairs on while writing their rows: one pass over the source feeds both files."""
    for pair in pairs:
        rows.write(encoder.lines(pair))
        yield pair
