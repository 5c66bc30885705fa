# Makes the INT8 copy of the bundled model where no Python environment is wanted on the host:
#
#   docker run --rm --network none -v MODELS:/models IMAGE \
#     --model /models/smollm2-135m-instruct --out /models/smollm2-135m-instruct-int8
#
# Nothing serves from it; `make models` does the same without it. Not built in CI: the image is 4 GB for a step
# that is done once. MODELS must be writable for uid 65532.
#
# BASE_IMAGE is any Debian with Python 3.11.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
RUN python3 -c 'import ensurepip' 2>/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends python3-venv)
RUN python3 -m venv /tools && /tools/bin/pip install --quiet --no-cache-dir uv==0.13.9 \
 && python3 -m venv --without-pip /opt/venv
COPY requirements/quantize.txt /src/requirements.txt
# --no-deps: the list is whole, and torch's own metadata asks for triton, which nothing here calls.
RUN /tools/bin/uv pip install --quiet --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
    --no-deps --requirement /src/requirements.txt

FROM ${BASE_IMAGE}
RUN echo 'paceline:x:65532:65532:paceline:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'paceline:x:65532:' >> /etc/group \
 && (python3 -m pip uninstall --quiet --yes pip setuptools wheel --root-user-action ignore 2>/dev/null || true)
COPY --from=tools /opt/venv /opt/venv
COPY quantize /opt/quantize
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    HF_HUB_OFFLINE=1
USER 65532:65532
ENTRYPOINT ["python3", "/opt/quantize/smollm2_int8.py"]
