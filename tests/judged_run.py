"""A run whose checkpoints only look like some: for commands that judge, with a rule in the engine's place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from btrm.checkpoints import write_mark
from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.judges.engine import EngineSpec
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.runs import RunManifest, StageRequest, fingerprint, now, outputs_of

STUDY = """
from btrm.data.pairs import PairsConfig
from btrm.judges.grid import JudgeConfig
from btrm.launch.plan import Experiment, Step
from btrm.metrics.evaluate import EvaluateConfig
from btrm.report.summary import SummarizeConfig
from btrm.runs import Resources
from btrm.train.grpo import GrpoConfig

SMALL = Resources(cpus=1, mem_gb=1, time_min=5)

def judged():
    judge = JudgeConfig(base={model!r}, n_pairs=12, seeds=(0, 1), part_pairs=3,
                        checkpoints={{"base": {model!r}, "grpo": "@grpo/checkpoints/checkpoint-*"}})
    return Experiment("judged", "judging alone", (
        Step("pairs", PairsConfig(n_pairs={{"train": 5, "validation": 5, "test": 20}}), SMALL),
        Step("grpo", GrpoConfig(model={model!r}), SMALL),
        Step("judge", judge, SMALL), Step("evaluate", EvaluateConfig(n_bootstrap=100), SMALL),
        Step("summarize", SummarizeConfig(n_bootstrap=100), SMALL)))
"""


class SkilledEngine:
    """Judges by the checkpoint's number: below 10 at random, else well."""

    asked: ClassVar[list[tuple[str, int]]] = []

    def __init__(self) -> None:
        self.adapter = "base"

    def select(self, adapter: Path | None) -> None:
        self.adapter = adapter.name if adapter else "base"

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        SkilledEngine.asked.append((self.adapter, len(requests)))
        step = self.adapter.rpartition("-")[2]
        rule = "rule_toy" if step.isdecimal() and int(step) >= 10 else "rule_random"
        return RuleJudge(RULES[rule], get_prompt("toy_score100")).ask(requests)


@contextmanager
def open_skilled(spec: EngineSpec) -> Generator[SkilledEngine]:
    del spec
    yield SkilledEngine()


def header(shapes: dict[str, list[int]]) -> bytes:
    text = json.dumps({k: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for k, s in shapes.items()}).encode()
    return len(text).to_bytes(8, "little") + text


def make_run(folder: Path) -> list[str]:
    """Write a study and a base model; return the flags that name the study and its run, FOLDER/run."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(header({"model.q_proj.weight": [8, 8]}))
    (folder / "study.py").write_text(STUDY.format(model=str(model)))
    return ["--experiment", f"{folder / 'study.py'}:judged", "--run", str(folder / "run")]


def add_checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    """Let the trainer of FOLDER/run leave a checkpoint."""
    path = folder / f"run/grpo/checkpoints/checkpoint-{step}"
    path.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(folder / "model"), "step": step}
    (path / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.model.q_proj.lora_{}.weight"
    shapes = {name.format("A"): [4, 8], name.format("B"): [8, 4]}
    (path / "adapter_model.safetensors").write_bytes(header(shapes))
    if whole:
        from btrm.checkpoints import base_identity

        write_mark(path, base_identity(str(folder / "model")), step)
    return path


def drop_checkpoint(folder: Path, step: int) -> None:
    shutil.rmtree(folder / f"run/grpo/checkpoints/checkpoint-{step}")


def begin_trainer(folder: Path) -> None:
    """Leave what a trainer writes first."""
    values = {"stage": "grpo", "name": "grpo", "root": str(folder / "run"), "config": {}, "resources": {}, "inputs": {}}
    request = StageRequest.build({**values, "fingerprint": "f"})
    write_json(folder / "run/grpo/stage.json", request.model_dump(mode="json"))


def complete_trainer(folder: Path) -> None:
    """Let the trainer commit what it has left."""
    directory = folder / "run/grpo"
    outputs = outputs_of(directory, {"checkpoints": None})
    values = {"stage": "grpo", "name": "grpo", "fingerprint": fingerprint("grpo", {}, {}), "config": {}, "inputs": {}}
    facts = {"results": {}, "resources": {}, "git": None, "image": None, "packages": {}, "host": "h", "job_ids": []}
    times = {"started": now(), "finished": now(), "seconds": 1.0}
    made = {name: output.model_dump() for name, output in outputs.items()}
    manifest = RunManifest.build({**values, "outputs": made, **facts, **times})
    write_json(directory / "manifest.json", manifest.model_dump(mode="json"))
