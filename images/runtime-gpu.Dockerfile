# The engine pod on NVIDIA GPUs: vLLM's official image with our runtime on top.
#
# Not built by `make images`: its base is some 20 GB from a registry, and what it serves needs a GPU. Where both are
# at hand:  docker build -f images/runtime-gpu.Dockerfile -t REGISTRY/runtime-gpu:TAG .
# The base brings Python, vLLM and everything that our runtime imports but structlog.
ARG BASE_IMAGE=docker.io/vllm/vllm-openai:v0.32.0
FROM ${BASE_IMAGE}
COPY runtime/paceline_core /src/paceline_core
COPY runtime/pyproject.toml /src/runtime/pyproject.toml
COPY runtime/paceline_runtime /src/runtime/paceline_runtime
# --no-deps: the base's versions are the ones that vLLM was tested with.
RUN python3 -m pip install --no-cache-dir --no-deps structlog==26.1.0 /src/paceline_core /src/runtime \
 && rm -rf /src \
 && (getent passwd 65532 || echo 'paceline:x:65532:65532:paceline:/tmp:/usr/sbin/nologin' >> /etc/passwd)
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 65532:65532
ENTRYPOINT []
