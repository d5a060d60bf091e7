# syntax=docker/dockerfile:1.7
# One family of images for training and serving: `--target cpu` (the default) or `--target cuda`.
#
#   docker build --target cpu  -t espalier:cpu .
#   docker build --target cuda -t espalier:cuda .
#
# They differ in torch's wheels alone: those for CUDA bring CUDA's libraries, the host brings the driver
# (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/). No secret is needed to build, and none is kept.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS python
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/espalier/bin:$PATH
# The kernels are compiled for the very CPU they run on, so a compiler stays in the image.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev tini \
    && rm -rf /var/lib/apt/lists/*

# What both builds share: an empty environment, and what is needed to install into it.
FROM python AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/espalier
COPY constraints.txt ./

# torch first and alone, for it comes from another index than the rest; what it needs comes with the rest, from PyPI.
FROM build AS build-cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=aws,postgres,web,peft
RUN pip install --constraint constraints.txt --no-deps --index-url "${TORCH_CPU_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM build AS build-cuda
ARG TORCH_CUDA_INDEX=https://download.pytorch.org/whl/cu130
ARG EXTRAS=aws,postgres,web,peft,qlora
RUN pip install --constraint constraints.txt --no-deps --index-url "${TORCH_CUDA_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

# What both run in: nobody's files but the project's, nobody's rights but its user's.
FROM python AS runtime
RUN groupadd --gid 10001 espalier \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/espalier --shell /usr/sbin/nologin espalier \
    && install --directory --owner espalier --group espalier --mode 0750 /var/lib/espalier /var/cache/espalier
COPY --chmod=0755 deploy/start.sh /usr/local/bin/espalier-start
ENV ESPALIER_WORKSPACE=/var/lib/espalier \
    ESPALIER_SERVE__HOST=0.0.0.0 \
    ESPALIER_SERVE__PORT=8321 \
    HF_HOME=/var/lib/espalier/hub \
    XDG_CACHE_HOME=/var/cache/espalier \
    NUMBA_CACHE_DIR=/var/cache/espalier/numba
WORKDIR /var/lib/espalier
EXPOSE 8321
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8321/healthz', timeout=4)"]
ENTRYPOINT ["tini", "--", "espalier-start"]
CMD ["serve"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/espalier /opt/espalier
USER 10001:10001

FROM runtime AS cpu
COPY --from=build-cpu /opt/espalier /opt/espalier
USER 10001:10001
