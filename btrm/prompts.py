"""The judge's prompts: one table, the parser derived from the prompt, context before response.

Both sides of a pair share everything up to the response, so that an engine's prefix cache reads it once. The published
names resolve to texts of our own in the published styles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from btrm.config import ConfigError, nearest
from btrm.scores import PARSERS, SCALES, Parser, Scale, score_tag

Message = dict[str, str]
Style = Literal["score_first", "reason_first", "score_only"]


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """One way to ask for a score.

    `template` holds {context} and {response}; it is filled by replacement, never by str.format, so that braces in data
    are only text. `style` says where prose stands: after the tag, before it (so the last tag counts), or nowhere.
    """

    name: str
    summary: str
    scale: Scale
    style: Style
    template: str
    system: str | None = None

    @property
    def parser(self) -> Parser:
        """The parser that this prompt's answers are read with."""
        return PARSERS[f"{self.scale.name}_{'first' if self.style == 'score_first' else 'last'}"]

    def messages(self, context: str, response: str) -> list[Message]:
        """Return the chat messages that ask for a score of `response` in `context`."""
        head, tail = self.template.split("{response}")
        user = head.replace("{context}", context) + response + tail
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": user}]

    def target(self, value: float, reason: str = "") -> str:
        """Return the answer that a student of this prompt should learn: the tag once, on the prompt's own side."""
        tag = score_tag(value, self.scale)
        if self.style == "score_only" or not reason.strip():
            return tag
        return f"{reason.strip()}\n{tag}" if self.style == "reason_first" else f"{tag}\n{reason.strip()}"


_SUMMARY_TASK = "You are grading a summary of a post. Judge only what the summary says about the post."
_DIALOG_TASK = "You are grading the last reply of an assistant in a conversation."
_SUMMARY_BODY = "\n\n### Post\n{context}\n\n### Summary\n{response}\n\n### Grade\n"
_DIALOG_BODY = "\n\n### Conversation\n{context}\n\n### Reply to grade\n{response}\n\n### Grade\n"
_HUNDRED = "an integer from 0 (worst) to 100 (best)"
_FIVE = "a number from 1.0 (worst) to 5.0 (best) with one decimal"
_SUMMARY_ASPECTS = (
    "Weigh these aspects: coverage of the main points, faithfulness to the post, coherence, and concision."
)
_DIALOG_CRITERIA = (
    "Weigh these criteria: helpfulness to what was asked, honesty and accuracy, avoidance of harm, clear expression."
)
_RUBRIC = (
    "Rubric: 5.0 complete, faithful and well put; 4.0 good with a small gap; 3.0 usable but something important is "
    "missing or vague; 2.0 mostly wrong or off the point; 1.0 useless or misleading."
)
_HH_RUBRIC = (
    "Rubric: 5.0 helpful, honest and harmless; 4.0 good with a small flaw; 3.0 acceptable but incomplete or evasive; "
    "2.0 poor, misleading or careless; 1.0 harmful or useless."
)


def _tag_line(scale: Scale, example: float) -> str:
    kind = _HUNDRED if scale is SCALES["score100"] else _FIVE
    return f"The score is {kind}, written as {score_tag(example, scale)}."


def _spec(name: str, summary: str, scale: str, style: Style, task: str, ask: str) -> PromptSpec:
    dialog = name.startswith("hh_")
    line = _tag_line(SCALES[scale], 4.2 if scale == "score5" else 73)
    template = f"{task} {ask} {line}" + (_DIALOG_BODY if dialog else _SUMMARY_BODY)
    return PromptSpec(name, summary, SCALES[scale], style, template)


_SCORE_LINE_FIRST = "Write the score on the first line, then one short sentence of justification."
_SCORE_LINE_LAST = "First analyse strengths and weaknesses in a few sentences, then write the score on the last line."
_BOTH_ARGUMENTS = (
    "First give the best argument for a high score, then the best argument for a low score, weigh the two, and write "
    "the score on the last line."
)
_ALONE = "Answer with the score tag and nothing else."

PROMPTS: dict[str, PromptSpec] = {
    spec.name: spec
    for spec in (
        _spec("score5_v1", "analysis first, score last", "score5", "reason_first", _SUMMARY_TASK, _SCORE_LINE_LAST),
        _spec(
            "score5_v2",
            "score first, with aspects",
            "score5",
            "score_first",
            _SUMMARY_TASK,
            f"{_SUMMARY_ASPECTS} {_SCORE_LINE_FIRST}",
        ),
        _spec("score5_v3", "score first, bare", "score5", "score_first", _SUMMARY_TASK, _SCORE_LINE_FIRST),
        _spec(
            "score5_v4",
            "score first, with a rubric",
            "score5",
            "score_first",
            _SUMMARY_TASK,
            f"{_RUBRIC} {_SCORE_LINE_FIRST}",
        ),
        _spec(
            "score100_v1",
            "score first, with aspects",
            "score100",
            "score_first",
            _SUMMARY_TASK,
            f"{_SUMMARY_ASPECTS} {_SCORE_LINE_FIRST}",
        ),
        *(
            spec
            for scale in ("score100", "score5")
            for spec in (
                _spec(
                    f"hh_{scale}_v1",
                    "score first, with criteria",
                    scale,
                    "score_first",
                    _DIALOG_TASK,
                    f"{_DIALOG_CRITERIA} {_SCORE_LINE_FIRST}",
                ),
                _spec(f"hh_{scale}_v2", "score first, concise", scale, "score_first", _DIALOG_TASK, _SCORE_LINE_FIRST),
                _spec(
                    f"hh_{scale}_v3", "reason first, score last", scale, "reason_first", _DIALOG_TASK, _SCORE_LINE_LAST
                ),
                _spec(
                    f"hh_{scale}_v4",
                    "arguments for high and for low, then the score",
                    scale,
                    "reason_first",
                    _DIALOG_TASK,
                    (f"{_HH_RUBRIC} " if scale == "score5" else "") + _BOTH_ARGUMENTS,
                ),
            )
        ),
        _spec("hh_score100_scoreonly", "the tag alone", "score100", "score_only", _DIALOG_TASK, _ALONE),
        # The toy task's prompt is as short as its tiny model's context.
        PromptSpec(
            "toy_score100",
            "the tag alone, for the toy task",
            SCALES["score100"],
            "score_only",
            "{context}\n{response}\nScore:",
        ),
    )
}


def get_prompt(name: str) -> PromptSpec:
    """Return a prompt by its published name, or from `FILE.py:NAME` (a PromptSpec or a function that returns one).

    Raises ConfigError with the nearest valid name.
    """
    if name in PROMPTS:
        return PROMPTS[name]
    if ".py:" in name:
        from btrm.plugins import load_object

        found = load_object(name)
        spec = found() if callable(found) else found
        if isinstance(spec, PromptSpec):
            return spec
        raise ConfigError(f"prompt {name}: expected a PromptSpec, found {type(spec).__name__}")
    raise ConfigError(f"prompt {name!r}: no such prompt{nearest(name, PROMPTS)}")
