# syntax=docker/dockerfile:1
# sar-eval for NVIDIA GPUs (and for CPUs): docker build -t sar-eval .
# torch's wheels bring CUDA 13.0, cuDNN and NCCL; the base image adds what the NVIDIA runtime wants to find.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
ARG EXTRAS="geneval,dpg"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/sar-eval
ENV PATH=/opt/sar-eval/bin:$PATH
WORKDIR /src
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY benchmarks benchmarks
COPY prompts prompts
COPY reports reports
COPY sar_eval sar_eval
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sar-eval /opt/sar-eval
ENV PATH=/opt/sar-eval/bin:$PATH \
    SAR_EVAL_CACHE=/cache/sar-eval \
    HF_HOME=/cache/huggingface
RUN useradd --create-home --uid 10001 sar-eval \
    && install --directory --owner sar-eval --group sar-eval /cache /work /work/runs
USER sar-eval
WORKDIR /work
VOLUME ["/cache", "/work/runs"]
ENTRYPOINT ["sar-eval"]
CMD ["--help"]
