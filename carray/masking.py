"""Hides passwords, tokens and keys in whatever carray says or keeps: the one place that knows them.

`masked` is called where text leaves: by `CarrayError`, the log and the board of a study, fields of
records that hold prose, and what is sent to the tracking store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

MASK = "***"
LEAST_LENGTH = 8  # of a secret found by its value: a shorter one is a common word

_SECRET = (
    r"(?:(?:pg)?password|passwd|(?<=[_-])pwd|secret(?:_key)?|token|api_?key|access_key(?:_id)?|sig)"
)
_NAME = re.compile(rf"(?:^|[_-]){_SECRET}$", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"(://[^\s:/@'\"]*):[^\s'\"\\]+@"), rf"\1:{MASK}@"),  # user:PASSWORD@host
    (re.compile(rf"((?:\b|[_-]){_SECRET})=[^\s&'\",;\\]+", re.IGNORECASE), rf"\1={MASK}"),
    (re.compile(r"(X-Amz-[A-Za-z-]+)=[^\s&'\"\\]+"), rf"\1={MASK}"),  # a signed address
    (re.compile(r"(uthorization\W+(?:Bearer|Basic)) [\w.~+/=-]+"), rf"\1 {MASK}"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{20,}\b"), MASK),
)
_URL_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s]+)@")


def masked(text: str) -> str:
    """Return `text` with `***` in place of every secret in it.

    A secret is known by where it stands (in an URL, after `password=`), by its shape (an AWS key),
    or because a variable of the environment holds it.
    """
    if not text:
        return ""  # as most reasons of records are: hundreds are read at once
    for value in sorted(_secrets_of_environment(), key=len, reverse=True):
        text = text.replace(value, MASK)
    for pattern, shown in _IN_TEXT:
        text = pattern.sub(shown, text)
    return text


def is_secret_name(name: str) -> bool:
    """Say whether a variable or parameter of this name holds a secret."""
    return bool(_NAME.search(name))


def _secrets_of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [value] if is_secret_name(name) else _URL_PASSWORD.findall(value)
        for each in found:
            yield from {one for one in (each, unquote(each)) if len(one) >= LEAST_LENGTH}


MaskedText = Annotated[str, AfterValidator(masked)]
"""A field of a record whose text may come from anywhere: an error, a command line."""
