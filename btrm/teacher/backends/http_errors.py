"""What an API's errors mean: which pass, which are this request's own, and which stop everyone.

The classes of the SDKs change with their HTTP library; status, headers and body do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from btrm.teacher.backends.waits import retry_after_s
from btrm.teacher.base import Fault, HaltCause, HaltError, RequestError, TeacherError, TransientError

_LONGEST_MESSAGE = 500
# Libraries that the SDKs speak HTTP with: what they raise, and these errors, are a connection that failed.
_HTTP = {"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "anyio", "h11", "ssl"}
_LOST = {"APIConnectionError", "OSError"}
_UNSENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ClientConnectorError", "ConnectionTimeoutError"}
_GARBLED = {"JSONDecodeError", "DecodingError", "UnknownApiResponseError", "ValidationError"}

_QUOTA = re.compile(r"insufficient_quota|billing|spend_limit")
_AUTH = {"invalid_api_key", "authentication_error", "permission_error", "organization_on_hold", "API_KEY_INVALID"}
_MODEL = {"model_not_found", "not_found_error"}
_LONG = {"context_length_exceeded", "string_above_max_length", "request_too_large"}
_POLICY = {"content_policy_violation", "content_filter", "moderation_blocked", "invalid_prompt"}
_QUOTA_TEXT = re.compile(
    r"credit balance is too low|usage limits?\b|insufficient (?:credits|balance|quota)|enable billing|limit: 0\b", re.I
)
_MODEL_TEXT = re.compile(r"not a valid model|model\W.{0,200}(?:does not exist|not found|not supported for)", re.I)
_LONG_TEXT = re.compile(
    r"prompt is too long|context (?:length|window)|maximum input length|input token count|request too large", re.I
)
_POLICY_TEXT = re.compile(r"content (?:filtering|management|usage) policy|content policy|flagged|safety system", re.I)
_FAULTS: dict[int, Fault] = {
    408: "timeout", 409: "server_error", 425: "server_error", 429: "rate_limited", 503: "overloaded", 504: "timeout",
    529: "overloaded",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """An API's error: its status, the names that it gives itself (type, code, reason), and what it says."""

    status: int
    message: str
    names: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after_s: float | None = None


def error_of(problem: Problem) -> TeacherError:
    """Return what a problem means for the call, or for everyone."""
    text = " ".join(problem.message.split())[:_LONGEST_MESSAGE] or "no message"
    said = f"{problem.status} {text}" + ("; check model and base_url" if problem.status == 404 else "")
    if cause := _halts(problem):
        return HaltError(said, cause)
    if problem.names & _LONG or problem.status == 413 or (_bad(problem) and _LONG_TEXT.search(problem.message)):
        return RequestError(said, "prompt_too_long")
    if _flagged(problem):
        return RequestError(said, "content_filter")
    if problem.status in _FAULTS or problem.status >= 500:
        wait_s = problem.retry_after_s
        wait_s = retry_after_s(problem.headers) if wait_s is None else wait_s
        return TransientError(said, _FAULTS.get(problem.status, "server_error"), wait_s)
    return RequestError(said)


def _bad(problem: Problem) -> bool:
    return 400 <= problem.status < 500


def _flagged(problem: Problem) -> bool:
    """Say whether it is what the request says that the API does not like; some answer 403 then."""
    by_text = problem.status in {400, 403, 422} and _POLICY_TEXT.search(problem.message)
    return bool(problem.names & _POLICY or by_text)


def _halts(problem: Problem) -> HaltCause | None:
    """Return why nobody who asks so will be answered."""
    if not _bad(problem):
        return None
    if problem.status == 402 or any(map(_QUOTA.search, problem.names)) or _QUOTA_TEXT.search(problem.message):
        return "quota"
    if problem.status == 401 or problem.names & _AUTH or (problem.status == 403 and not _flagged(problem)):
        return "auth"
    missing = problem.names & _MODEL or (problem.status == 400 and _MODEL_TEXT.search(problem.message))
    return "model" if problem.status == 404 or missing else None


def lost(error: Exception) -> TransientError | None:
    """Return what an exception without a status means; None for an error of ours.

    Nobody was there, no answer came in time, the connection was lost, or the answer is broken.
    """
    kinds = [(kind.__module__, kind.__name__) for kind in type(error).__mro__]
    if unsent := _unsent(error):
        return TransientError(f"the server cannot be reached ({unsent})", "unreachable")
    if any("Timeout" in name for _, name in kinds):
        return TransientError(f"no answer in time ({kinds[0][1]})", "timeout")
    if isinstance(error, UnicodeDecodeError) or any(name in _GARBLED for _, name in kinds):
        return TransientError(f"an answer that cannot be read ({kinds[0][1]})", "garbled")
    if any(name in _LOST or module.partition(".")[0] in _HTTP for module, name in kinds):
        return TransientError(f"the connection was lost ({kinds[0][1]})", "connection")
    return None


def _unsent(error: BaseException | None) -> str | None:
    """Return the name of what says that nothing was sent: an HTTP library's error, which an SDK's own may hide."""
    while error is not None:
        for kind in type(error).__mro__:
            if kind.__name__ in _UNSENT and kind.__module__.partition(".")[0] in _HTTP:
                return kind.__name__
        error = error.__cause__
    return None


def read_json(data: bytes | str) -> dict[str, Any]:
    """Return an answer's object. Raises TransientError for what is none."""
    try:
        value = json.loads(data)
    except ValueError:
        raise TransientError("an answer that is not JSON", "garbled") from None
    if not isinstance(value, dict):
        raise TransientError(f"an answer that is not an object but {type(value).__name__}", "garbled")
    return cast("dict[str, Any]", value)
