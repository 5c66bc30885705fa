"""How a build step reaches the package indexes: as this machine does, by files mounted over the step's own.

Called by the builder. So a Dockerfile says nothing about mirrors or certificates, and nothing of them stays
in an image.
"""

from __future__ import annotations

import configparser
import io
import os
from collections.abc import Mapping
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def pip_conf(host: str, *, env: Mapping[str, str]) -> str:
    """The machine's pip.conf with what its environment says on top, and the machine's certificates."""
    settings = configparser.RawConfigParser()
    settings.read_string(host)
    if not settings.has_section("global"):
        settings.add_section("global")
    settings.set("global", "cert", str(CERTIFICATES))
    for variable, option in (("PIP_INDEX_URL", "index-url"), ("PIP_EXTRA_INDEX_URL", "extra-index-url")):
        if value := env.get(variable):
            settings.set("global", option, value)
    text = io.StringIO()
    settings.write(text)
    return text.getvalue()


def uv_toml(pip: str, *, env: Mapping[str, str]) -> str:
    """uv's settings: the system's certificates, and the same index as pip's unless it has one of its own."""
    settings = configparser.RawConfigParser()
    settings.read_string(pip)
    index = env.get("UV_DEFAULT_INDEX") or settings.get("global", "index-url", fallback="")
    lines = ["system-certs = true"]
    if index:
        lines += ["[[index]]", f'url = "{index}"', "default = true"]
    return "\n".join(lines) + "\n"


def mounts(folder: Path) -> list[str]:
    """Write the settings into ``folder``; return ``HOST:STEP[:ro]`` for each thing that a step shall see."""
    folder.mkdir(parents=True, exist_ok=True)
    host = Path("/etc/pip.conf")
    pip = pip_conf(host.read_text() if host.exists() else "", env=os.environ)
    (folder / "pip.conf").write_text(pip)
    (folder / "uv.toml").write_text(uv_toml(pip, env=os.environ))
    uv_cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    uv_cache.mkdir(parents=True, exist_ok=True)
    shared = [
        f"{folder}/pip.conf:/etc/pip.conf:ro",
        f"{folder}/uv.toml:/etc/uv/uv.toml:ro",
        f"{uv_cache}:/root/.cache/uv",
    ]
    return [*shared, f"{CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else shared
