"""The Python door: every name opens, and says what it is for."""

from __future__ import annotations

import carray


def test_every_name_is_there_and_documented() -> None:
    assert sorted(carray._HOMES) == sorted(carray.__all__)
    for name in carray.__all__:
        assert getattr(carray, name).__doc__, name
