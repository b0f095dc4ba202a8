# A broker, and the command line, in one small image.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Dependencies first and alone: the layer lasts until they change. Only wheels and pure Python: no compiler is needed.
RUN python -m venv /opt/holdfast \
 && /opt/holdfast/bin/pip install -q --no-cache-dir --disable-pip-version-check -c constraints.txt pip setuptools \
 && python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" \
    > requirements.txt \
 && /opt/holdfast/bin/pip install -q --no-cache-dir -c constraints.txt --build-constraint constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY storage storage
COPY cluster cluster
COPY rpc rpc
COPY chaos chaos
COPY holdfast holdfast
RUN /opt/holdfast/bin/pip install -q --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 7450 holdfast \
 && useradd --uid 7450 --gid holdfast --no-create-home --home-dir /data --shell /usr/sbin/nologin holdfast \
 && install -d -o holdfast -g holdfast /data
COPY --from=build /opt/holdfast /opt/holdfast
ENV PATH=/opt/holdfast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOLDFAST_DATA_DIR=/data \
    HOLDFAST_LISTEN=0.0.0.0:7450 \
    HOLDFAST_PEER_LISTEN=0.0.0.0:7451
USER holdfast
WORKDIR /data
VOLUME /data
EXPOSE 7450 7451
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 \
  CMD ["python", "-m", "holdfast.cli.probe", "127.0.0.1:7450"]
ENTRYPOINT ["holdfast"]
CMD ["serve"]
