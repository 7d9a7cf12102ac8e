# Runs `bge-eval reproduce` on the machine's own models and data:
#
#   docker build --target cpu -t bge-eval .
#   docker run --rm -v "$PWD/datasets:/data:ro" -v "$PWD/results:/results" bge-eval
#
#   docker build --target cuda -t bge-eval:cuda .
#   docker run --rm --gpus all -v "$PWD/datasets:/data:ro" -v "$PWD/results:/results" bge-eval:cuda
#
# Any other command: docker run --rm bge-eval table /results. An index of packages other than the
# default: --build-arg PIP_INDEX_URL=…, --build-arg PIP_EXTRA_INDEX_URL=…
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints-cpu.txt requirements.lock ./
COPY evaluation evaluation
COPY tasks tasks
COPY results/published results/published

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/bge-eval/bin:$PATH \
    BGE_EVAL_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1
RUN python -m venv /opt/bge-eval \
    && useradd --create-home --uid 1000 bge \
    && mkdir /cache /data /models /results \
    && chown bge:bge /cache /data /models /results

# The versions of requirements.lock, with their hashes; torch's are in constraints-cpu.txt.
FROM base AS cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=bind,from=source,source=/source,target=/source,rw \
    pip install --no-cache-dir --constraint /source/constraints-cpu.txt torch \
    && pip install --no-cache-dir --require-hashes --no-deps --requirement /source/requirements.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation /source
USER 1000
WORKDIR /results
ENTRYPOINT ["bge-eval"]
CMD ["reproduce", "--data-dir", "/data", "--model-dir", "/models", "--output", "/results"]

# torch's default wheel brings its CUDA libraries; the container runtime brings the driver.
FROM base AS cuda
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=source,source=/source,target=/source,rw \
    pip install --no-cache-dir "/source[demo,bm25,gpu]"
USER 1000
WORKDIR /results
ENTRYPOINT ["bge-eval"]
CMD ["reproduce", "--data-dir", "/data", "--model-dir", "/models", "--output", "/results"]
