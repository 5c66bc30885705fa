"""Who may use a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline_runtime.gate.keys import Keys, KeysUnreadable


def mounted_secret(folder: Path, **keys: str) -> Path:
    """Files as the kubelet mounts a Secret: links into a directory that a link named ..data points to."""
    version = folder / "..2026_01_01"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for name, key in keys.items():
        (version / name).write_text(key)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def test_without_a_directory_everyone_is_admitted() -> None:
    assert Keys(None).admits(None)


def test_an_empty_directory_admits_nobody(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    assert not keys.admits(None)
    assert not keys.admits("Bearer ")
    assert not keys.admits("Bearer x")


def test_every_file_is_a_key_and_nothing_else_is(tmp_path: Path) -> None:
    keys = Keys(mounted_secret(tmp_path / "k", a="alpha\n", b="beta", empty="\n"))
    for good in ("Bearer alpha", "bearer beta", "Bearer  beta "):
        assert keys.admits(good)
    for bad in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "alpha",
        "Basic alpha",
        "Bearer alph",
        "Bearer alphabeta",
        "Bearer ü",
    ):
        assert not keys.admits(bad)


def test_a_directory_that_is_not_there_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(KeysUnreadable, match=r"apiKeySecretRef.*leave the option out"):
        Keys(tmp_path / "none")


def test_a_directory_that_goes_away_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    folder.mkdir()
    (folder / "a").write_text("alpha")
    keys = Keys(folder)
    (folder / "a").unlink()
    folder.rmdir()
    keys.reread()
    assert keys.admits("Bearer alpha")
    folder.mkdir()
    (folder / "b").write_text("beta")
    keys.reread()
    assert not keys.admits("Bearer alpha")
    assert keys.admits("Bearer beta")
