# One image for each kind of role: docker build --target vehicle|stream|learn|tracking|flink .
# Environments come from hashed locks; the package is built once and installed without its dependencies.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS tools
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY requirements requirements

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY jobs jobs
COPY model model
COPY simulation simulation
COPY edge edge
COPY registry registry
COPY monitoring monitoring
COPY fleet fleet
RUN uv build --wheel --build-constraints requirements/build.txt --require-hashes --out-dir /dist

FROM tools AS vehicle-environment
RUN uv venv /opt/fleet && uv pip sync --python /opt/fleet --require-hashes requirements/vehicle.txt
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/fleet --no-deps /dist/*.whl

FROM tools AS stream-environment
RUN uv venv /opt/fleet && uv pip sync --python /opt/fleet --require-hashes requirements/stream.txt
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/fleet --no-deps /dist/*.whl

FROM tools AS learn-environment
RUN uv venv /opt/fleet && uv pip sync --python /opt/fleet --require-hashes requirements/learn.txt
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/fleet --no-deps /dist/*.whl

FROM tools AS tracking-environment
RUN uv venv /opt/fleet && uv pip sync --python /opt/fleet --require-hashes requirements/tracking.txt

FROM tools AS flink-environment
RUN uv venv /opt/fleet && uv pip sync --python /opt/fleet --require-hashes requirements/flink.txt
COPY --from=wheel /dist /dist
RUN uv pip install --python /opt/fleet --no-deps /dist/*.whl

FROM python:${PYTHON} AS base
RUN useradd --uid 10001 --create-home --home-dir /var/lib/fleet fleet \
    && mkdir /var/lib/fleet/data && chown fleet:fleet /var/lib/fleet/data
# One thread a process: on shared cores spinning threads make training 3-6 times slower.
ENV PATH=/opt/fleet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
WORKDIR /var/lib/fleet
USER fleet
ENTRYPOINT ["fleet"]
CMD ["--help"]

# On a vehicle: no torch, no MLflow, no broker client.
FROM base AS vehicle
COPY --from=vehicle-environment /opt/fleet /opt/fleet

# Stages, registrar, exporter, topics.
FROM base AS stream
COPY --from=stream-environment /opt/fleet /opt/fleet

# The worker: torch, MLflow's client, the simulated worlds.
FROM base AS learn
COPY --from=learn-environment /opt/fleet /opt/fleet

FROM base AS tracking
COPY --from=tracking-environment /opt/fleet /opt/fleet
ENTRYPOINT ["mlflow"]

# Flink's scripts and libraries come in the apache-flink wheel; they want Java.
FROM base AS flink
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/*
COPY --from=flink-environment --chown=fleet:fleet /opt/fleet /opt/fleet
ENV FLINK_HOME=/opt/fleet/lib/python3.11/site-packages/pyflink
USER fleet
ENTRYPOINT []
