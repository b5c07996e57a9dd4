# The image of every worker, of the API and of the command `visrag`. With CUDA: docker-compose.gpu.yml, or
#   docker build -t visrag:cuda --build-arg EXTRAS=queue,qdrant,s3,server,colpali --build-arg TORCH_INDEX=https://pypi.org/simple .
ARG PYTHON=3.11.15-slim-trixie

FROM python:${PYTHON} AS wheel
WORKDIR /build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE ./
COPY visrag visrag
COPY workers workers
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HOME=/models

ARG USER_ID=1000
RUN apt-get update \
 && apt-get install -y --no-install-recommends poppler-utils \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid "$USER_ID" --no-create-home --home-dir /tmp visrag \
 && install -d -o visrag -g visrag /data /inbox /models /cache

# The packages that visrag needs, in a layer of their own: it is built again only when pyproject.toml changes.
ARG EXTRAS=queue,qdrant,s3,server
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml /tmp/
RUN python -c "import tomllib; \
project = tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']; \
extras = [line for extra in '$EXTRAS'.split(',') for line in project['optional-dependencies'][extra]]; \
print(*project['dependencies'], *extras, sep='\n')" > /tmp/requirements.txt \
 && pip install --extra-index-url "$TORCH_INDEX" -r /tmp/requirements.txt \
 && rm /tmp/pyproject.toml /tmp/requirements.txt

RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --no-deps /wheel/*.whl

USER visrag
WORKDIR /data
ENTRYPOINT ["visrag"]
