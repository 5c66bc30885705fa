"""Fetch a model from the Hugging Face Hub: first the few files that can refuse it, then the rest.

Uses HF_TOKEN and HF_HOME of the environment. With a volume at HF_HOME the files of a commit are fetched
once, and a later start of that commit needs no hub. Imported only for hf:// models: the client library is
heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from paceline_core import CheckpointFacts, HubUri, file_format_of, weights_bytes_of_index
from paceline_runtime.launch.checkpoint_files import INDEX, read_json
from paceline_runtime.launch.failure import Refused, StartFailure

log = structlog.get_logger(__name__)

_COMPLETE = ".paceline-complete"
"""Marks a snapshot whose fetch has ended."""

_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]
_WEIGHTS = {"safetensors": "*.safetensors", "bin": "*.bin"}


@dataclass(frozen=True, slots=True)
class Fetched:
    folder: Path
    commit: str


def fetch(uri: HubUri, *, check: Callable[[CheckpointFacts], None]) -> Fetched:
    """The folder of a snapshot, complete. `check` raises for facts that cannot be served, before weights
    are fetched."""
    if uri.is_pinned and (folder := _cached(uri)) is not None:
        log.info("model_cached", uri=str(uri))
        return Fetched(folder, uri.revision)
    try:
        return _download(uri, check)
    except GatedRepoError as error:
        raise StartFailure(
            f"{uri}: access is restricted: ask for it on the hub, and name a Secret with the key `token` in "
            "spec.model.secretRef",
            stage="fetch",
        ) from error
    except RevisionNotFoundError as error:
        raise StartFailure(f"{uri}: no such revision: correct spec.model.uri", stage="fetch") from error
    except RepositoryNotFoundError as error:
        raise StartFailure(
            f"{uri}: no such model, or it is private: correct spec.model.uri, or name a Secret with the key "
            "`token` in spec.model.secretRef",
            stage="fetch",
        ) from error
    except (Refused, StartFailure):
        raise
    except Exception as error:  # the client lets its transport's own errors through
        raise StartFailure(f"{uri}: the hub did not give it: {error}", stage="fetch") from error


def _cached(uri: HubUri) -> Path | None:
    """The snapshot's folder if a fetch of this commit has ended; one that was broken off lacks files."""
    mark = try_to_load_from_cache(uri.repo, _COMPLETE, revision=uri.revision)
    return Path(mark).parent if isinstance(mark, str) else None


def _download(uri: HubUri, check: Callable[[CheckpointFacts], None]) -> Fetched:
    info = HfApi().model_info(uri.repo, revision=uri.revision, files_metadata=True)
    commit = info.sha or uri.revision
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    file_format = file_format_of(name for name in sizes if "/" not in name)

    def small(name: str) -> Path | None:
        return Path(hf_hub_download(uri.repo, name, revision=commit)) if name in sizes else None

    config, index = small("config.json"), small(INDEX)
    index_document = read_json(index) if index is not None else None
    check(
        CheckpointFacts.parse(
            read_json(config) if config is not None else None,
            weights_bytes=weights_bytes_of_index(index_document) if index_document is not None else None,
            file_format=file_format,
        )
    )
    patterns = [*_SMALL_FILES, _WEIGHTS.get(file_format or "", "*.safetensors")]
    log.info("model_fetch", uri=str(uri), commit=commit, bytes=sum(sizes.values()))
    folder = Path(
        snapshot_download(uri.repo, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"])
    )
    (folder / _COMPLETE).touch()
    return Fetched(folder, commit)
