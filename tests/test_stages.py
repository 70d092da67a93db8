from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from counting_stage import CountingConfig

from btrm import stages
from btrm.config import ConfigError
from btrm.launch.local import write_request
from btrm.locks import exclusive
from btrm.runs import MANIFEST, Resources, RunManifest, read_manifest, verify
from btrm.stage_table import STAGES, Stage, get_stage


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("counting_stage", "CountingConfig", "run_counting", "counts")
    trainer = Stage("counting_stage", "CountingConfig", "run_counting", "counts", frozen_inputs=True)
    monkeypatch.setitem(STAGES, "counting", stage)
    monkeypatch.setitem(STAGES, "training", trainer)
    monkeypatch.setitem(STAGES, "derived", dataclasses.replace(stage, derived=True))


def run(root: Path, stage: str = "counting", name: str | None = None, **fields: object) -> RunManifest | None:
    prepared = stages.prepare(name or stage, CountingConfig.build(fields), Resources(), root, stage)
    return None if prepared.done else stages.execute(write_request(prepared))


def test_a_complete_stage_is_skipped_and_a_runtime_knob_changes_nothing(tmp_path: Path) -> None:
    manifest = run(tmp_path)
    assert manifest is not None and manifest.results == {"total": 3}
    assert manifest.outputs["total.txt"].rows == 1 and "parts/2" in manifest.outputs
    assert run(tmp_path, batch=7) is None
    assert verify(tmp_path) == []


def test_a_raised_extent_extends_and_keeps_what_was_won(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "counting/parts/1").stat()
    manifest = run(tmp_path, count=5)
    assert manifest is not None and manifest.results == {"total": 10}
    assert (tmp_path / "counting/parts/1").stat().st_ino == before.st_ino


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"complete with other settings; factor was 1, now 2"):
        run(tmp_path, factor=2)


def test_what_is_derived_is_made_anew_with_other_settings(tmp_path: Path) -> None:
    first = run(tmp_path, "derived")
    other = CountingConfig(factor=2)
    assert stages.prepare("derived", other, Resources(), tmp_path, "derived").note == "anew"
    (tmp_path / "derived" / MANIFEST).unlink()  # killed half-way
    assert stages.prepare("derived", other, Resources(), tmp_path, "derived").note == "anew"
    again = run(tmp_path, "derived", factor=2)
    assert first is not None and again is not None and again.fingerprint != first.fingerprint
    assert run(tmp_path, "derived", factor=2) is None and verify(tmp_path) == []


@pytest.mark.parametrize(("stage", "note"), [("derived", "anew"), ("counting", "complete")])
def test_what_is_derived_is_made_anew_by_another_btrm(tmp_path: Path, stage: str, note: str) -> None:
    run(tmp_path, stage)
    path = tmp_path / stage / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "packages": {**manifest["packages"], "btrm": "0.0.1"}}))
    assert stages.prepare(stage, CountingConfig(), Resources(), tmp_path, stage).note == note


def test_kill_and_rerun_completes_with_nothing_twice(tmp_path: Path) -> None:
    prepared = stages.prepare("counting", CountingConfig(kill_at=2), Resources(), tmp_path)
    request = write_request(prepared)
    code = "import counting_stage, sys; from btrm import stages; from pathlib import Path\n"
    code += "from btrm.stage_table import STAGES, Stage\n"
    code += "STAGES['counting'] = Stage('counting_stage', 'CountingConfig', 'run_counting', '')\n"
    code += "stages.execute(Path(sys.argv[1]))"
    here = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", code, str(request)], env={"PYTHONPATH": here}, check=False)
    assert killed.returncode == -9
    assert read_manifest(tmp_path / "counting") is None
    with pytest.raises(ConfigError, match="half-done with other settings; factor"):
        run(tmp_path, factor=3)
    manifest = run(tmp_path)
    assert manifest is not None and manifest.results == {"total": 3}
    writers = [(tmp_path / f"counting/parts/{n}").read_text().split()[1] for n in range(3)]
    assert writers[0] == writers[1] != writers[2]
    assert not (tmp_path / "counting/.attempts").exists()


def test_inputs_that_grew_extend_a_stage_but_not_a_trainer(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, "counting", "second", base="@counting/total.txt")
    run(tmp_path, "training", base="@counting/total.txt")
    run(tmp_path, count=4)
    assert run(tmp_path, "counting", "second", base="@counting/total.txt") is not None
    with pytest.raises(ConfigError, match=r"trained on other inputs; @counting/total\.txt has other content"):
        run(tmp_path, "training", base="@counting/total.txt")


def test_a_half_done_trainer_refuses_inputs_that_grew(tmp_path: Path) -> None:
    run(tmp_path)
    prepared = stages.prepare("training", CountingConfig(base="@counting/total.txt"), Resources(), tmp_path)
    write_request(prepared)
    (tmp_path / "training/checkpoint-1").mkdir()
    run(tmp_path, count=4)
    with pytest.raises(ConfigError, match=r"half-trained on other inputs; @counting/total\.txt has other content"):
        run(tmp_path, "training", base="@counting/total.txt")


def test_missing_inputs_say_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"python -m btrm\.submit pairs --run"):
        run(tmp_path, base="@pairs/train.rows.jsonl")
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"not an output of counting; did you mean total\.txt\?"):
        run(tmp_path, "training", base="@counting/totals.txt")


def test_a_directory_is_held_by_one_process(tmp_path: Path) -> None:
    with exclusive(tmp_path / "counting"), pytest.raises(ConfigError, match=r"another process is working here \(pid"):
        run(tmp_path)


def test_verify_names_what_was_changed_or_lost(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "counting/total.txt").write_text("4")
    (tmp_path / "counting/parts/0").unlink()
    problems = "\n".join(verify(tmp_path))
    assert "total.txt: sha256 differs" in problems and "parts/0: missing" in problems
    (tmp_path / "counting" / MANIFEST).unlink()
    assert "nothing is complete" in verify(tmp_path)[0]


def test_verify_sees_an_input_that_changed_since(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("1")
    run(tmp_path / "run", base=str(tmp_path / "data.txt"))
    assert stages.verify_run(tmp_path / "run") == []
    (tmp_path / "data.txt").write_text("2")
    assert "has changed since" in stages.verify_run(tmp_path / "run")[0]


def test_verify_asks_for_no_input_that_an_older_btrm_did_not_have(tmp_path: Path) -> None:
    data, manifest = tmp_path / "data.txt", tmp_path / "run/counting" / MANIFEST
    data.write_text("1")
    run(tmp_path / "run", base=str(data))
    data.unlink()
    assert "no such file" in stages.verify_run(tmp_path / "run")[0]
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "inputs": {}}))
    assert stages.verify_run(tmp_path / "run") == []


def test_every_stage_has_its_config_and_function() -> None:
    for stage in [s for s in STAGES.values() if s.module != "counting_stage"]:
        assert stage.config.model_fields and callable(stage.run)


def test_an_unknown_stage_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean judge"):
        get_stage("juge")


def test_a_manifest_names_the_image_and_the_code_of_a_job_and_an_old_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BTRM_IMAGE", "BTRM_IMAGE_SHA256", "BTRM_CODE", "APPTAINER_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    outside = run(tmp_path)
    assert outside is not None and (outside.image, outside.image_sha256, outside.code) == (None, None, None)
    for name, value in {"BTRM_IMAGE": "/x.sif", "BTRM_IMAGE_SHA256": "5" * 64, "BTRM_CODE": "c" * 16}.items():
        monkeypatch.setenv(name, value)
    inside = run(tmp_path, name="inside")
    assert inside is not None and (inside.image, inside.image_sha256, inside.code) == ("/x.sif", "5" * 64, "c" * 16)
    path = tmp_path / "counting" / MANIFEST
    old = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in old.items() if key not in {"image_sha256", "code"}}))
    assert read_manifest(tmp_path / "counting") == outside and verify(tmp_path) == []
