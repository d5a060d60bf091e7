"""What the store stands on: SQLite always, PostgreSQL where its server is installed, an S3 of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import StoreConfig
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace


def _find_postgres() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def _as_ordinary_user() -> dict[str, int]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid}
    pytest.skip("no ordinary user to run PostgreSQL as")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a throw-away server that listens on a socket in its own folder only."""
    binaries = _find_postgres()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    user = _as_ordinary_user()
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30  # a container's has often 64 MB
    place = memory if roomy else Path("/tmp")  # a short path: a socket's has a limit
    folder = Path(tempfile.mkdtemp(prefix="espalier-pg-", dir=place))
    if user:
        os.chown(folder, user["user"], user["group"])
    data = str(folder / "data")
    initdb = [str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "espalier", "-N"]
    subprocess.run(initdb, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=120, **user)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        command = [str(binaries / "postgres"), "-D", data, *options]
        server = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **user)
    try:
        _await_answer(f"postgresql://espalier@/postgres?host={folder}", server)
        yield f"postgresql+psycopg://espalier@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _await_answer(url: str, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(1200):
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not start")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables; "" is the workspace's own SQLite file."""
    if request.param == "sqlite":
        return ""
    import psycopg

    url: str = request.getfixturevalue("postgres")
    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}")
    return f"{url}&options=-csearch_path%3D{schema}"


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path), StoreConfig(url=database_url))
    yield opened
    opened.close()


@pytest.fixture
def at_once() -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """`at_once(n, work)`: results, or errors, of `work(0..n-1)`, begun at the same moment in threads of their own."""

    def run(count: int, work: Callable[[int], Any]) -> list[Any]:
        results: list[Any] = [None] * count
        barrier = threading.Barrier(count)

        def call(index: int) -> None:
            barrier.wait()
            try:
                results[index] = work(index)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                results[index] = error

        threads = [threading.Thread(target=call, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run
