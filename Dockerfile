# Two images of one file; neither has been built by us yet (no registry was reachable):
#   docker build --target cpu -t cgh-bench:cpu .
#   docker build --target cuda -t cgh-bench:cuda .        # needs NVIDIA's driver and container toolkit on the host
#   docker run --rm --shm-size=8g -v "$PWD/data:/data:ro" -v "$PWD/work:/work" cgh-bench:cpu doctor
#   docker run --rm --gpus all --shm-size=8g -v … cgh-bench:cuda eval knn --ckpt /data/x.pth --data /data/photos
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    CGH_DATA=/data CGH_WORK=/work MPLCONFIGDIR=/tmp/matplotlib
# opencv, which mmcv imports, needs these two.
RUN apt-get update && apt-get install -y --no-install-recommends git libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cgh_bench cgh_bench
COPY pretrain pretrain
COPY transfer_configs transfer_configs

FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt '.[cpu,demo,openmmlab]'
RUN useradd --create-home user && mkdir /work /data && chown user /work
USER user
ENTRYPOINT ["cgh-bench"]
CMD ["doctor"]

# torch's own wheels bring CUDA; the host brings the driver.
FROM base AS cuda
RUN pip install --constraint constraints.txt '.[cpu,demo,openmmlab]'
RUN useradd --create-home user && mkdir /work /data && chown user /work
USER user
ENTRYPOINT ["cgh-bench"]
CMD ["doctor"]
