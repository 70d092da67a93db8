"""Frozen, strict configuration: one class a stage, every bad field in one message.

A field has one of five roles, and the role decides what a changed value means for a finished run:

- a *setting* is part of the run's identity: another value is another run;
- a *source* names an input (a stage's output, a file, a model): identity goes by where it came from, not by its path;
- an *extent* says how far to go (steps, seeds, pairs): another value extends or repeats the same run;
- *members* are inputs of which more may come (checkpoints to judge): more of them extend the run;
- a *runtime* knob changes speed or memory, never results.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

SECRET = "secret"  # the type of a validator's error (PydanticCustomError) whose value is not to be shown


class ConfigError(ValueError):
    """What the user asked for cannot be; the message lists every bad field with what is valid."""


def setting(
    default: Any = ..., help: str = "", *, published: str | None = None, later: bool = False, **constraints: Any
) -> Any:
    """Declare a field that is part of a run's identity; `published` is its name in the published tools.

    `later`: there were runs before it, which did what its default says; at its default it leaves identity as it was.
    """
    return _field("setting", default, help, published, constraints, later=later)


def source(default: Any = ..., help: str = "", *, published: str | None = None, **constraints: Any) -> Any:
    """Declare a field that names an input: `@STAGE/path` within the run, a path, or a hub name."""
    return _field("source", default, help, published, constraints)


def extent(default: Any = ..., help: str = "", *, published: str | None = None, **constraints: Any) -> Any:
    """Declare a field that says how far a run goes: raising it extends a finished run."""
    return _field("extent", default, help, published, constraints)


def members(
    default: Any = ..., help: str = "", *, published: str | None = None, once_source: bool = False, **constraints: Any
) -> Any:
    """Declare a {label: input} field that may gain entries in a finished run.

    `once_source`: it was a source, one input and part of identity; runs from then go on.
    """
    return _field("members", default, help, published, constraints, once_source=once_source)


def runtime(default: Any = ..., help: str = "", *, published: str | None = None, **constraints: Any) -> Any:
    """Declare a field that changes speed or memory but no result."""
    return _field("runtime", default, help, published, constraints)


def _field(
    role: str, default: Any, help: str, published: str | None, constraints: dict[str, Any], **marks: bool
) -> Any:
    extra = {"role": role, "published": published, **marks}
    return Field(default, description=help, json_schema_extra=cast(Any, extra), **constraints)


class Config(BaseModel):
    """Base of all configurations: immutable, unknown keys are errors, defaults are validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def build(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Validate `values`; raise ConfigError that names every bad field, its value and what is valid."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_explain(cls, error, where)) from None

    def override(self, assignments: Iterable[str], where: str = "--set") -> Self:
        """Return a copy with `field=value` assignments applied; dots reach into nested configs.

        Published names (BT_DELTA_TEMP) are accepted wherever the field declares one.
        """
        values = self.model_dump()
        known = flat_fields(type(self))
        published = {alias: path for path, info in known.items() if (alias := published_name(info))}
        problems: list[str] = []
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            path = published.get(key, key.replace("-", "_"))
            if not equals:
                problems.append(f"{where} {assignment!r}: expected field=value")
            elif path in known:
                _assign(values, path, parse_value(text, known[path]))
            elif not _assign_into_mapping(values, path, text):
                problems.append(f"{where} {key}: no such field{nearest(key, [*known, *published])}")
        if problems:
            raise ConfigError("\n".join(problems))
        return self.build(values, where)

    def by_role(self, *roles: str) -> dict[str, Any]:
        """Return the JSON-able values of the fields with these roles, nested configs flattened to dotted names."""
        dumped = self.model_dump(mode="json")
        chosen = {path for path, info in flat_fields(type(self)).items() if role(info) in roles}
        return {path: _lookup(dumped, path) for path in sorted(chosen)}

    def identity(self) -> dict[str, Any]:
        """Return the settings that make a run this run: those that came later count only where they are not default."""
        known = flat_fields(type(self))
        return {
            name: value
            for name, value in self.by_role("setting").items()
            if not (has_mark(known[name], "later") and value == known[name].default)
        }


def flat_fields(cls: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return {dotted name: field} of a config class, nested configs opened."""
    fields: dict[str, FieldInfo] = {}
    for name, info in cls.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            fields |= flat_fields(info.annotation, f"{prefix}{name}.")
        else:
            fields[prefix + name] = info
    return fields


def _extra(info: FieldInfo) -> dict[str, Any]:
    extra = info.json_schema_extra
    return cast(dict[str, Any], extra) if isinstance(extra, dict) else {}


def role(info: FieldInfo) -> str:
    """Return the field's role: setting, source, extent, members or runtime."""
    return str(_extra(info).get("role", "setting"))


def has_mark(info: FieldInfo, mark: str) -> bool:
    """Say whether a field was declared `later`, or `once_source`."""
    return bool(_extra(info).get(mark))


def published_name(info: FieldInfo) -> str | None:
    """Return the name that the published tools use for this field, if it has one."""
    return _extra(info).get("published")


def parse_value(text: str, info: FieldInfo) -> Any:
    """Turn the text of a flag into what the field's validator takes: JSON, none, comma lists, or the text itself."""
    if text.lower() in {"none", "null"} and type(None) in get_args(info.annotation):
        return None
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    kinds = str(info.annotation)
    if "dict[" in kinds and "=" in text:
        return _mapping(text)
    if "tuple[" in kinds or "list[" in kinds:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _mapping(text: str) -> dict[str, str]:
    """Read a=1,b=x,y as {a: 1, b: "x,y"}: a part without = belongs to the value before it.

    ConfigError for two of a name: one of them would be lost.
    """
    entries: list[str] = []
    for part in text.split(","):
        if "=" in part or not entries:
            entries.append(part)
        else:
            entries[-1] += f",{part}"
    found: dict[str, str] = {}
    for key, _, value in (entry.partition("=") for entry in entries):
        if found.setdefault(key.strip(), value) != value:
            raise ConfigError(f"{text}: two are called {key.strip()!r}")
    return found


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return '; did you mean X?' for the closest valid name, or the list of what is valid."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; valid: {', '.join(sorted(names))}"


def read_env_file(path: Path) -> dict[str, str]:
    """Read KEY=value lines (comments, `export`, quotes allowed) without touching os.environ.

    Raises ConfigError with file:line for a line that is none of these.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(f"{path}:{number}: expected KEY=value, got {raw!r}")
        value = value.strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        values[key.strip()] = value[1:-1] if quoted else value.split(" #", 1)[0].rstrip()
    return values


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    known = flat_fields(cls)
    lines: list[str] = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: no such field{nearest(path, known)}")
        elif item["type"] == "missing":
            lines.append(f"{path}: required, not given")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = path and item["type"] != SECRET
            lines.append(f"{path}: {message} (got {item['input']!r})" if shown else f"{path}: {message}".lstrip(": "))
    head = f"{where}: " if where else ""
    return "\n".join(f"{head}{cls.__name__}.{line}" for line in lines)


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        values = values[parent]
    values[leaf] = value


def _assign_into_mapping(values: dict[str, Any], path: str, text: str) -> bool:
    """Set `field.key` where the field is a plain mapping (swift.lr_scheduler_type=cosine)."""
    field, _, key = path.partition(".")
    if not key or not isinstance(values.get(field), dict) or any(isinstance(v, dict) for v in values[field].values()):
        return False
    values[field] = {**values[field], key: text}
    return True


def _lookup(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found[part]
    return found
