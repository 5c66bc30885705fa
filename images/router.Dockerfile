# The router pod: vllm-router and our gate, on pinned requirements; without vLLM, the emulated engine too.
# A pod names its own command: paceline-runtime or vllm-router.
#
# BASE_IMAGE is any Debian with Python 3.11.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
RUN python3 -c 'import ensurepip' 2>/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends python3-venv)
RUN python3 -m venv /tools && /tools/bin/pip install --quiet --no-cache-dir uv==0.13.9 \
 && python3 -m venv --without-pip /opt/venv

FROM tools AS requirements
COPY requirements/router.txt /src/requirements.txt
RUN /tools/bin/uv pip install --quiet --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
    --no-deps --requirement /src/requirements.txt

FROM tools AS ours
COPY runtime/paceline_core /src/paceline_core
COPY runtime/pyproject.toml /src/runtime/pyproject.toml
COPY runtime/paceline_runtime /src/runtime/paceline_runtime
RUN /tools/bin/uv pip install --quiet --python /opt/venv/bin/python --prefix /ours --compile-bytecode \
    --no-deps /src/paceline_core /src/runtime

FROM ${BASE_IMAGE}
RUN echo 'paceline:x:65532:65532:paceline:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'paceline:x:65532:' >> /etc/group \
 && (python3 -m pip uninstall --quiet --yes pip setuptools wheel --root-user-action ignore 2>/dev/null || true)
COPY --from=requirements /opt/venv /opt/venv
COPY --from=ours /ours /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
