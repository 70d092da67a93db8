from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import Config, ConfigError, extent, read_env_file, runtime, setting


class Inner(Config):
    temperature: float = setting(20.0, "margin temperature", published="BT_DELTA_TEMP", gt=0)


class Outer(Config):
    name: str = setting("a")
    steps: int = extent(10, published="MAX_STEPS", ge=1)
    seeds: tuple[int, ...] = extent((0, 1))
    extra: dict[str, str] = setting({})
    inner: Inner = Inner()
    batch: int | None = runtime(None)


def test_all_bad_fields_stand_in_one_message() -> None:
    with pytest.raises(ConfigError) as error:
        Outer.build({"stepz": 1, "steps": 0, "inner": {"temperature": -1}})
    message = str(error.value)
    assert "stepz: no such field; did you mean steps?" in message
    assert "Outer.steps" in message and "(got 0)" in message
    assert "inner.temperature" in message and "(got -1)" in message


def test_two_of_a_name_in_a_mapping_are_refused() -> None:
    with pytest.raises(ConfigError, match="a=1,b=2,a=3: two are called 'a'"):
        Outer().override(["extra=a=1,b=2,a=3"])


def test_override_takes_dots_published_names_lists_and_mappings() -> None:
    changed = Outer().override(
        ["BT_DELTA_TEMP=5", "MAX_STEPS=20", "seeds=3,4", "extra.lr_scheduler_type=cosine", "batch=none"]
    )
    assert Outer().override(["extra=a=1,b=x,y"]).extra == {"a": "1", "b": "x,y"}, "a comma may stand in a value"
    assert changed.inner.temperature == 5
    assert (changed.steps, changed.seeds, changed.extra) == (20, (3, 4), {"lr_scheduler_type": "cosine"})
    assert Outer().inner.temperature == 20, "a config is never changed in place"


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("inner.temprature=5", "inner.temperature"),
        ("steps", "expected field=value"),
        ("BT_DELTA_TMP=1", "BT_DELTA_TEMP"),
    ],
)
def test_override_names_the_nearest_valid_field(assignment: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Outer().override([assignment])


def test_roles_split_the_fields() -> None:
    assert Outer().by_role("extent") == {"steps": 10, "seeds": [0, 1]}
    assert set(Outer().by_role("setting")) == {"name", "extra", "inner.temperature"}


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_env_file(tmp_path: Path) -> None:
    path = tmp_path / "a.env"
    path.write_text('# comment\nexport A=1\nB="two words" \nC=x # trailing\nD=\n')
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "x", "D": ""}
    path.write_text("A=1\nnot a line\n")
    with pytest.raises(ConfigError, match=r"a\.env:2"):
        read_env_file(path)


def test_a_setting_that_came_later_leaves_identity_alone_at_its_default() -> None:
    class Grown(Config):
        first: int = setting(1)
        second: str | None = setting(None, later=True)

    assert Grown().identity() == {"first": 1}
    assert Grown(second="x").identity() == {"first": 1, "second": "x"} == Grown(second="x").by_role("setting")
