"""A trainer's entry point that writes down what is really trained on: each micro-step's rows, rank by rank.

python -m recording_trainer ORDERS.json      # a list of orders, run in one process (group), one after the other
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from btrm.train import swift_adapter, swift_grpo
from btrm.train.options import read_order
from btrm.train.rank import rank
from btrm.versions import package_version


class Recorder(swift_grpo.PairGRPOTrainer):
    def split_by_mini_batches(self, samples: Any) -> Any:
        parts = super().split_by_mini_batches(samples)
        self.parts = [[(s.extra["label_id"], s.extra["side"]) for s in part] for part in parts]
        return parts

    def _prepare_inputs(self, inputs: Any) -> Any:
        batch = super()._prepare_inputs(inputs)
        index = next(i for i, held in enumerate(self._buffered_inputs) if held is batch)
        line = {"step": self.state.global_step, "micro": self._step, "index": index, "rows": self.parts[index]}
        line["advantages"] = batch["grpo_batch"].advantages[:, 0].tolist()
        path = Path(self.order.directory) / f"seen-{os.environ.get('RANK', '0')}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return batch


def main() -> None:
    swift_grpo.PairGRPOTrainer = Recorder  # found by name when the trainer is looked up
    Recorder.__name__ = "PairGRPOTrainer"
    told = f"{package_version('ms-swift')} {Recorder.__mro__[3].__name__}"
    Path(sys.argv[1]).with_suffix(".swift").write_text(told)
    leave, swift_adapter.leave = swift_adapter.leave, lambda _: None
    for path in json.loads(Path(sys.argv[1]).read_text()):
        swift_grpo.train_grpo(read_order(Path(path)))
    leave(Recorder)


if __name__ == "__main__":
    with rank():
        main()
