"""What an endpoint's refusal means: ask again, give up on this row, or stop before more is lost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from slmops.teachers.replies import Fault

_SECRET = re.compile(r"\b(sk|key|pk)-[\w*.-]{6,}|(?<=Bearer )\S+")
_LONGEST_DETAIL = 200
_OVERLOADED = (429, 503, 529)
_TRANSIENT = (408, 409, 425, *_OVERLOADED)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit", "insufficient balance", "credit balance is too low")
_STOPS = {
    401: ("the API key is refused", "set the environment variable to a valid key"),
    402: ("the account has no credit", "top it up; the same command continues and pays nothing twice"),
    403: ("access is denied", "ask the provider for access to this model, or choose another"),
    404: ("no such model or address", "check the model's name and the base URL (it ends with /v1)"),
    405: ("no such address", "check the base URL (it ends with /v1)"),
}


def fault_of_status(status: int, headers: Mapping[str, str], body: str) -> Fault:
    """What an HTTP status other than 200 means."""
    detail = clean(_message(body) or f"HTTP {status}")
    retry_after = seconds_to_wait(headers)
    if any(word in body.lower() for word in _NO_MONEY):
        status = 402
    if status in _STOPS:
        kind, fix = _STOPS[status]
        return Fault(kind, detail, action="stop", fix=fix)
    if status == 429:
        return Fault("rate limit", detail, overload=True, retry_after=retry_after)
    if status in _TRANSIENT or status >= 500:
        return Fault(f"server error {status}", detail, overload=status in _OVERLOADED, retry_after=retry_after)
    if 300 <= status < 400:
        return Fault("the address moved", detail, action="stop", fix="give the new base URL")
    return Fault(f"refused with {status}", detail, action="reject")


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` (seconds or a date, RFC 9110 10.2.3) or ``retry-after-ms`` says; ``None`` without a sensible one."""
    exact, usual = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if exact is not None:
            return max(0.0, float(exact) / 1000)
        return None if usual is None else max(0.0, float(usual))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(usual)).timestamp() - time.time())
    except ValueError:
        return None


def clean(text: str) -> str:
    """One short line without anything that looks like a key."""
    line = _SECRET.sub("***", " ".join(text.split()))
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 1] + "…"


def _message(body: str) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return "" if body.lstrip().startswith("<") else body
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or error)
    return str(error)
