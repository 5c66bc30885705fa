#!/bin/bash
# Resolve what the operator's and the router's image install, anew: requirements/{operator,router}.txt.
# Versions that the developer's environment pins are kept, so that the images hold what the tests ran with.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    out=$1; shift
    # Our own core is installed from source beside the rest: it is resolved here, and left out of the list.
    uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --constraint requirements/dev.txt \
        --override <(echo "paceline-core @ file://$PWD/runtime/paceline_core") --no-emit-package paceline-core \
        --output-file "requirements/$out.txt" "$@"
}
compile operator operator/pyproject.toml
compile router runtime/pyproject.toml <(grep '^vllm-router==' requirements/dev.in)
