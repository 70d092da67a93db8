"""What a GPU makes of a judge: tokens a second, and the share of its peak that the model's arithmetic takes (MFU).

The arithmetic of one token at position t is 2 N + 4 L d t operations: two for each of the N weights that multiply, and
of L layers of width d the products of queries with t keys and of weights with t values (Kaplan et al. 2020, appendix of
arXiv 2001.08361; PaLM's MFU, arXiv 2204.02311, counts the same). Tokens that a prefix cache holds are not counted: MFU
is about work that was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Dense bfloat16 peaks, operations a second, as NVIDIA's data sheets give them.
PEAKS = {
    "A100": 312e12,
    "A10": 125e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}


@dataclass(frozen=True, slots=True)
class Model:
    """What the arithmetic needs of a model: weights that multiply (embeddings only look up), layers, width."""

    weights: int
    layers: int
    width: int

    def operations(self, begin: int, end: int) -> float:
        """Return the operations of the tokens at positions begin..end-1 of one sequence."""
        seen = (end * (end - 1) - begin * (begin - 1)) / 2
        return 2.0 * self.weights * (end - begin) + 4.0 * self.layers * self.width * seen


def read_model(folder: Path) -> Model:
    """Return a model's figures from its config and the shapes of its weights."""
    from transformers import AutoConfig

    from btrm.judges.adapter import read_shapes

    config: Any = AutoConfig.from_pretrained(folder)
    shapes = {n: s for path in sorted(folder.glob("model*.safetensors")) for n, s in read_shapes(path).items()}
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and "embed_tokens" not in name}
    weights = sum(rows * columns for rows, columns in matrices.values())
    if not any("lm_head" in name for name in matrices):  # tied: the embedding multiplies at the end
        weights += config.vocab_size * config.hidden_size
    return Model(weights, config.num_hidden_layers, config.hidden_size)


def describe(model: Model, spans: list[tuple[int, int]], seconds: float) -> dict[str, Any]:
    """Return tokens a second and MFU of spans of sequences (begin, end) that were computed in some wall seconds."""
    import torch

    name = torch.cuda.get_device_name()
    peak = next((peak for key, peak in PEAKS.items() if key in name), None)
    done = sum(model.operations(begin, end) for begin, end in spans)
    tokens = sum(end - begin for begin, end in spans)
    mfu = None if peak is None else done / seconds / peak
    return {"gpu": name, "tokens_per_second": tokens / seconds, "mfu": mfu}
