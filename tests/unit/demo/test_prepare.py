"""Before the demo spends half an hour: is there room for what it makes?"""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout
from e2e.demo.prepare import prepare

Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * 10**9, 63 * 10**9, 37 * 10**9))
    with pytest.raises(ClusterError, match=r"37 GB of the disk are free.*48 GB in all: make room"):
        prepare(Layout(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []
