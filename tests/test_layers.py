"""Imports go only downward, and heavy packages are imported inside the functions that need them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import btrm

ROOT = Path(btrm.__file__).parent
FOUNDATION = (
    "checks",
    "config",
    "progress",
    "plugins",
    "records",
    "runs",
    "publishing",
    "locks",
    "checkpoints",
    "score_text",
    "hub",
    "images",
    "leases",
    "staging",
    "stopping",
    "versions",
    "work",
)
LAYERS = (
    FOUNDATION,
    ("prompts", "scores", "edge_tags", "environment", "rewards", "metrics"),
    ("data", "judges", "teacher", "train", "report"),
    ("stage_inputs", "stage_table", "stages"),
    ("launch", "show", "onebox"),
    ("container",),
    ("operate",),
    ("submit",),
    ("cli",),
)
HEAVY = {
    "torch",
    "vllm",
    "swift",
    "wandb",
    "transformers",
    "datasets",
    "pandas",
    "matplotlib",
    "peft",
    "pyarrow",
    "submitit",
    "anthropic",
    "google",
    "httpx",
    "openai",
}


def layer(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if "_shipped" not in path.parts and path.name != "__init__.py"]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_every_import_goes_downward() -> None:
    upward: list[str] = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported(node):
                parts = name.split(".")
                if parts[0] == "btrm" and len(parts) > 1 and layer(parts[1]) > layer(room(path)):
                    upward.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} imports {name}")
    assert not upward


def test_heavy_packages_are_not_imported_at_the_top() -> None:
    at_the_top = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        for node in ast.parse(path.read_text()).body
        for name in imported(node)
        if name.split(".")[0] in HEAVY and path.name not in {"swift_adapter.py", "swift_grpo.py", "swift_pairs.py"}
    ]
    assert not at_the_top


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, btrm.cli, btrm.submit; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-c", code, *sorted(HEAVY)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
