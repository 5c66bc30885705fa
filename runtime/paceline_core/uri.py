"""Where a model comes from: the four forms of `spec.model.uri`, as values.
 Read by the launcher (fetch), the fleet (volumes, environment) and the operator (where to look for
config.json). The API server has refused most bad forms already; this parser is the same rule for whoever
starts without one.

    hf://org/name@revision    pvc://claim/path    s3://bucket/path    bundled://name
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final


class UriError(ValueError):
    """A model uri that cannot be used. The message says what to write."""


@dataclass(frozen=True, slots=True)
class HubUri:
    """A model of the Hugging Face Hub at a branch, tag or commit."""

    scheme: ClassVar[str] = "hf"

    repo: str
    """org/name"""
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes what it means."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def pinned(self, commit: str) -> HubUri:
        return HubUri(repo=self.repo, revision=commit)


@dataclass(frozen=True, slots=True)
class ClaimUri:
    """A folder in a PersistentVolumeClaim of the namespace."""

    scheme: ClassVar[str] = "pvc"

    claim: str
    path: str
    """relative, without . and .."""

    def __str__(self) -> str:
        return f"pvc://{self.claim}/{self.path}"


@dataclass(frozen=True, slots=True)
class S3Uri:
    """A folder in a bucket, streamed by vLLM."""

    scheme: ClassVar[str] = "s3"

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}"


@dataclass(frozen=True, slots=True)
class BundledUri:
    """A model inside the runtime image."""

    scheme: ClassVar[str] = "bundled"

    name: str

    def __str__(self) -> str:
        return f"bundled://{self.name}"


ModelUri = HubUri | ClaimUri | S3Uri | BundledUri

SMOLLM2: Final = "smollm2-135m-instruct"
BUNDLED_NAMES: Final = (SMOLLM2,)

_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*)@(?P<revision>[A-Za-z0-9][-A-Za-z0-9_./]*)"
)
_CLAIM = re.compile(r"(?P<claim>[a-z0-9]([-a-z0-9.]*[a-z0-9])?)/(?P<path>[A-Za-z0-9_.][-A-Za-z0-9_./]*)")
_S3 = re.compile(r"(?P<bucket>[a-z0-9][-a-z0-9.]{1,61}[a-z0-9])/(?P<path>\S+)")
_GGUF = re.compile(r"\.gguf$|^hf://[^@]*-gguf(@.*)?$", re.IGNORECASE)


def parse_uri(text: str) -> ModelUri:
    """The uri as a value; a UriError that says what to write for anything else. `str()` gives the text
    back."""
    if _GGUF.search(text):
        raise UriError(
            f"{text!r}: GGUF checkpoints are not served (vLLM dropped the format): write the uri of the "
            "safetensors checkpoint that the GGUF file was made from"
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme = ""
    match scheme:
        case "hf":
            return _hub(text, rest)
        case "pvc":
            return _claim(text, rest)
        case "s3":
            found = _S3.fullmatch(rest)
            if found is None:
                raise UriError(f"{text!r}: write s3://bucket/path, with the folder that holds config.json")
            return S3Uri(bucket=found["bucket"], path=found["path"])
        case "bundled":
            if rest not in BUNDLED_NAMES:
                raise UriError(f"{text!r}: no such bundled model: write bundled://{SMOLLM2}")
            return BundledUri(name=rest)
    raise UriError(
        f"{text!r}: unknown scheme: write hf://org/name@revision, pvc://claim/path, s3://bucket/path or "
        f"bundled://{SMOLLM2}"
    )


def _hub(text: str, rest: str) -> HubUri:
    if "@" not in rest:
        raise UriError(f"{text!r}: a revision is missing: write {text}@main, or a commit in place of main")
    found = _HUB.fullmatch(rest)
    if found is None:
        raise UriError(f"{text!r}: write hf://org/name@revision")
    return HubUri(repo=found["repo"], revision=found["revision"])


def _claim(text: str, rest: str) -> ClaimUri:
    found = _CLAIM.fullmatch(rest)
    if found is None or ".." in rest.split("/"):
        raise UriError(f"{text!r}: write pvc://claim/path, with the folder that holds config.json")
    return ClaimUri(claim=found["claim"], path=found["path"])
