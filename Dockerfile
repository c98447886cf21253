# syntax=docker/dockerfile:1
# docs/deploy.md explains how to build the image and what the arguments do. Layers that change rarely come first:
# packages and ComfyUI (gigabytes), then models, custom nodes and the worker's own code.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS packages
# System packages for custom nodes, such as "libgl1 libglib2.0-0" for nodes that use opencv-python.
ARG APT_PACKAGES=""
# Removing a package also removes what was installed with it. Links that a pod made on a volume point to /workspace.
RUN printf 'APT::AutoRemove::%sImportant "false";\n' Recommends Suggests > /etc/apt/apt.conf.d/autoremove \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tini ${APT_PACKAGES} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && useradd --create-home --uid 1000 worker \
    && ln -s /runpod-volume /workspace
WORKDIR /worker
COPY requirements requirements
COPY comfy_common comfy_common
COPY comfy_setup comfy_setup
# 13: torch for CUDA 13, which needs driver 580. 12: torch for CUDA 12.8, for hosts with older drivers.
ARG CUDA=13
# Naming a version disables the fallback: the build fails if its repository cannot be reached.
ARG COMFYUI_VERSION=0.33.0
ARG COMFYUI_SOURCE=""
# This layer installs Git and venv and removes them again, and also removes headers of torch and the packages' own
# tests. A separate build stage would copy gigabytes and keep them twice.
RUN --mount=type=cache,target=/root/.cache \
    apt-get update && apt-get install -y --no-install-recommends git python3-venv \
    && UV_LINK_MODE=copy python3 -m comfy_setup install --cuda "${CUDA}" \
        --comfyui-version "${COMFYUI_VERSION}" --comfyui-source "${COMFYUI_SOURCE}" \
    && apt-get purge -y --auto-remove git python3-venv \
    && rm -rf .cache comfy_*/__pycache__ .comfyui/.git .comfyui/tests* \
        /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && find .venv -depth \( -path '*/site-packages/*/tests' -o -path '*/site-packages/torch/include' \
        -o -path '*/site-packages/nvidia/*/include' -o -name '*.a' \) -exec rm -r {} +

FROM packages AS models
ARG MODELS=""
COPY models.txt ./
RUN --mount=type=secret,id=HF_TOKEN --mount=type=secret,id=CIVITAI_TOKEN \
    mkdir models \
    && for name in ${MODELS}; do only="${only} --only ${name}"; done \
    && for token in HF_TOKEN CIVITAI_TOKEN; do \
        if [ -s "/run/secrets/${token}" ]; then export "${token}=$(cat "/run/secrets/${token}")"; fi; \
    done \
    && if [ -n "${MODELS}" ]; then python3 -m comfy_setup models ${only}; fi

FROM packages
COPY --from=models /worker/models models
COPY custom_nodes.txt ./
# This layer installs the compilers that some custom nodes need and removes them again.
RUN --mount=type=cache,target=/root/.cache \
    if grep -q '^[^#]' custom_nodes.txt; then \
        apt-get update && apt-get install -y --no-install-recommends git g++ python3-dev \
        && UV_LINK_MODE=copy python3 -m comfy_setup install \
        && apt-get purge -y --auto-remove git g++ python3-dev \
        && rm -rf .cache /var/lib/apt/lists/* /var/cache/apt/* /var/log/*; \
    fi
COPY . .
# 1: errors name the node pack of a missing node, by a map that is downloaded here.
ARG NODE_MAP=""
RUN if [ -n "${NODE_MAP}" ]; then python3 -m comfy_setup nodes map; fi \
    && .venv/bin/python -m compileall -q handler.py comfy_common comfy_local comfy_setup comfy_worker \
    && install -d -o worker -g worker .cache output

ENV PATH=/worker/.venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER worker
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s CMD ["python", "-m", "comfy_setup.health"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "handler.py"]

ARG VERSION=dev
ARG REVISION=""
LABEL org.opencontainers.image.title="comfy-worker" \
    org.opencontainers.image.description="A RunPod Serverless worker around a headless ComfyUI" \
    org.opencontainers.image.licenses="GPL-3.0-or-later" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
