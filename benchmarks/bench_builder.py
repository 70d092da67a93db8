"""The pointwise builder against the script that one would first write: speed, and memory as the data grow.

    python benchmarks/bench_builder.py [--pairs 160000]

The data are made here, in HH's own format and at about its lengths. Each variant runs in its own process; the plain one
writes the same rows (the same ids, prompts and keys), which is checked line by line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET = 2.0
# Growth of the peak between an eighth of the rows and all of them.
FLAT_MB = 8.0
PROMPT = "hh_score100_v1"
TEXT = "the a of to and I you it is that in for with how can would could please tell me more about this thing"
WORDS = TEXT.split()


def make_file(path: Path, n_pairs: int) -> None:
    """Write `n_pairs` conversations of one to four exchanges, 100-900 characters a turn."""
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(10, 100))) + rng.choice([".", '"quoted".', "\n\n- naïve"])

    with path.open("w", encoding="utf-8") as file:
        for number in range(n_pairs):
            turns = [f"\n\nHuman: {number} {text()}"]
            for _ in range(rng.randint(0, 3)):
                turns.append(f"\n\nAssistant: {text()}\n\nHuman: {text()}")
            context = "".join(turns)
            row = {side: f"{context}\n\nAssistant: {text()}" for side in ("chosen", "rejected")}
            file.write(json.dumps(row) + "\n")


def plain(source: Path, out: Path) -> None:
    """What one would first write: read all rows, make all dicts, write them out."""
    from btrm.prompts import get_prompt

    prompt = get_prompt(PROMPT)
    with source.open(encoding="utf-8") as file:
        data = [json.loads(line) for line in file]
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for item in data:
        context, chosen = item["chosen"].rsplit("\n\nAssistant:", 1)
        other, rejected = item["rejected"].rsplit("\n\nAssistant:", 1)
        if context != other or not chosen.strip() or not rejected.strip():
            continue
        context, chosen, rejected = context.strip(), chosen.strip(), rejected.strip()
        responses = plain_order(chosen, rejected)
        pair_id = plain_hash("anthropic_hh", "train", context, *responses)
        occurrence = seen.get(pair_id, 0)
        seen[pair_id] = occurrence + 1
        for side, response in enumerate(responses):
            row = {
                "messages": prompt.messages(context, response),
                "pair_id": pair_id,
                "label_id": f"{pair_id}-{occurrence}",
                "side": side,
                "preferred_side": responses.index(chosen),
            }
            rows.append(row)
    with out.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def plain_order(chosen: str, rejected: str) -> list[str]:
    import zlib

    responses = sorted([chosen, rejected])
    return responses[::-1] if zlib.crc32("".join(responses).encode()) & 1 else responses


def plain_hash(*parts: str) -> str:
    text = "".join(f"{len(part.encode())}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ours(source: Path, out: Path) -> None:
    from btrm.data.build_dataset import build_dataset, parse_args

    flags = f"--dataset anthropic_hh --split train --prompt {PROMPT} --data-files {source} --out {out}"
    build_dataset(parse_args(flags.split()))


def child(variant: str, source: Path, out: Path) -> None:
    """Run one variant in this process and print its CPU seconds and peak memory (MB) as JSON."""
    wall, cpu = time.perf_counter(), time.process_time()
    {"plain": plain, "ours": ours}[variant](source, out)
    # VmHWM is this process image's own; ru_maxrss would count what the parent held at the fork
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    times = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps({**times, "peak_mb": peak}))


def measure(variant: str, source: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", variant, "--source", str(source), "--out", str(out)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def same_files(first: Path, second: Path) -> bool:
    with first.open("rb") as a, second.open("rb") as b:
        return all(json.loads(x) == json.loads(y) for x, y in zip(a, b, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=160_000, help="pairs (two rows each) at full size")
    parser.add_argument("--rounds", type=int, default=2, help="times each variant runs; the best counts")
    parser.add_argument("--child", choices=["plain", "ours"])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.source, args.out)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), args.pairs, args.rounds)


def compare(folder: Path, n_pairs: int, rounds: int) -> int:
    small, full = folder / "small.jsonl", folder / "full.jsonl"
    make_file(small, n_pairs // 8)
    make_file(full, n_pairs)
    outs = {variant: folder / f"{variant}.rows.jsonl" for variant in ("plain", "ours")}
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):  # in turn, so that both meet the same noise
        for variant, out in outs.items():
            found = measure(variant, full, out)
            if variant not in best or found["cpu_s"] < best[variant]["cpu_s"]:
                best[variant] = found
    same = same_files(outs["plain"], outs["ours"])
    growth = best["ours"]["peak_mb"] - measure("ours", small, folder / "small.rows.jsonl")["peak_mb"]
    for variant, found in best.items():
        print(f"{variant:<6} {2 * n_pairs} rows: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()))
    ratio = best["plain"]["cpu_s"] / best["ours"]["cpu_s"]
    print(f"builder: {ratio:.2f}x the plain script (>= {TARGET}); memory from {n_pairs // 8} to {n_pairs} pairs: "
          f"{growth:+.1f} MB (<= {FLAT_MB}); same rows: {same}")  # fmt: skip
    return 0 if ratio >= TARGET and growth <= FLAT_MB and same else 1


if __name__ == "__main__":
    sys.exit(main())
