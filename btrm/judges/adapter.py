"""Whether weights are whole, and a LoRA adapter belongs to a base model, from the files' headers alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError

Shapes = dict[str, tuple[int, ...]]
_LORA = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])(?:\.[^.]+)?\.weight\Z")
_FEATURE_AXIS = {"A": 1, "B": 0}  # lora_A is (r, in), lora_B is (out, r); the base's weight is (out, in)


def read_shapes(path: Path) -> Shapes:
    """Return {tensor: shape} of a safetensors file by reading its header only; ConfigError where it was cut short."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = cast("dict[str, Any]", json.loads(file.read(min(length, size))))
        except ValueError:
            raise ConfigError(f"{path}: cut short, or no safetensors file ({size} bytes)") from None
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    whole = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size < whole:
        raise ConfigError(f"{path}: cut short: {size} bytes of {whole}")
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def model_shapes(folder: Path) -> Shapes:
    """Return {tensor: shape} of a full model's safetensors files: none for a hub's name or another format."""
    shapes: Shapes = {}
    for path in sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []:
        shapes |= read_shapes(path)
    return shapes


def check_adapter(folder: Path, base: str) -> int:
    """Return an adapter's highest rank; raise ConfigError where it is no LoRA or its layers do not fit `base`."""
    config = cast("dict[str, Any]", json.loads((folder / "adapter_config.json").read_text()))
    if config.get("peft_type", "LORA") != "LORA":
        raise ConfigError(f"{folder}: peft_type {config['peft_type']!r}: only LORA can be judged; merge it first")
    if beside := _beside_lora(config):
        raise ConfigError(
            f"{folder}: beside its LoRA it changes {beside}, which stays in the base that others share: merge it first"
        )
    weights = folder / "adapter_model.safetensors"
    if weights.exists():
        misfits = _misfits(read_shapes(weights), model_shapes(Path(base)), base)
        if misfits:
            raise ConfigError(f"{folder}: an adapter for another base: {'; '.join(misfits)}")
    ranks = [config.get("r", 0), *config.get("rank_pattern", {}).values()]
    return max(int(rank) for rank in ranks)


def _beside_lora(config: Mapping[str, Any]) -> str:
    """Return what of the base's own weights an adapter has: taken off, peft leaves them there, and vLLM takes none."""
    modules = [*(config.get("modules_to_save") or ())]
    tokens = ["single tokens"] if config.get("trainable_token_indices") else []
    biases = ["biases"] if config.get("bias", "none") != "none" else []
    return ", ".join([*modules, *tokens, *biases])


def _misfits(adapter: Shapes, model: Shapes, base: str) -> list[str]:
    """Compare each adapted layer's features with the base's weight of the same name; at most three are named."""
    problems: list[str] = []
    for name, shape in adapter.items():
        match = _LORA.match(name)
        if match is None or not model:
            continue
        target = model.get(f"{match['module']}.weight")
        if target is None:
            problems.append(f"adapts {match['module']}, which the base {base} does not have")
        elif len(shape) == 2 and len(target) == 2:
            axis = _FEATURE_AXIS[match["half"]]
            if shape[axis] != target[axis]:
                problems.append(f"{name} has {shape[axis]} features, the base {base} has {target[axis]}")
    return problems[:3]
