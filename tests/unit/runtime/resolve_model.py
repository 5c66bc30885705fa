"""Resolve the model uri given as argument and print what came of it, in a process whose settings are its
own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from paceline_runtime.launch.failure import Refused, StartFailure
from paceline_runtime.launch.model_source import resolve
from tests.unit.runtime.pod import options


def main(uri: str) -> dict[str, object]:
    try:
        model = resolve(options(Path(), model_uri=uri, emulation=None))
    except Refused as error:
        return {"refused": error.field}
    except StartFailure as error:
        return {"failed": str(error)}
    facts = model.facts
    return {"path": model.loaded_from.path, "revision": facts.revision, "heads": facts.attention_heads}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
