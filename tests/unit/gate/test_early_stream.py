"""Which held requests may be given a byte before their answer."""

from __future__ import annotations

import pytest

from paceline_runtime.gate.early_stream import asks_for_stream


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        pytest.param(b'{"model": "m", "stream": true}', True, id="a stream"),
        pytest.param(b'{"stream": false}', False, id="no stream"),
        pytest.param(b'{"model": "m"}', False, id="not said"),
        pytest.param(b'{"messages": [{"content": "\\"stream\\": true"}]}', False, id="in a prompt"),
        pytest.param(b'{"options": {"stream": true}}', False, id="of something else"),
        pytest.param(b'{"stream": "true"}', False, id="a text"),
        pytest.param(b'["stream"]', False, id="a list"),
        pytest.param(b'{"stream": true', False, id="broken"),
        pytest.param(b'\xff"stream"', False, id="not text"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_only_who_asked_for_a_stream(body: bytes, asks: bool) -> None:
    assert asks_for_stream(body) is asks
