"""A mesh of separate processes on free ports, as `shoal up` starts it, and a tracing UI that it sends its spans to."""
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mesh:
    """Where a running mesh is."""

    binary: Path
    config: Path
    addresses: dict[str, str]
    environment: dict[str, str]

    def shoal(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the binary against this mesh."""
        command = [str(self.binary), *args, "--config", str(self.config)]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=120)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def binary() -> Path:
    """The `shoal` under test."""
    named = os.environ.get("SHOAL_BIN")
    if not named:
        pytest.skip("skipped: needs SHOAL_BIN, the path of a built `shoal`")
    return Path(named).resolve()


@dataclass(frozen=True)
class Phoenix:
    """Where the tracing UI is."""

    http: str
    otlp: str


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """Arize Phoenix on ports of its own, with an empty store."""
    folder = tmp_path_factory.mktemp("phoenix")
    http, grpc = free_port(), free_port()
    environment = {**os.environ, "PHOENIX_PORT": str(http), "PHOENIX_GRPC_PORT": str(grpc), "PHOENIX_HOST": "127.0.0.1", "PHOENIX_WORKING_DIR": str(folder), "PHOENIX_TELEMETRY_ENABLED": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "phoenix.server.main", "serve"], env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http}/healthz", timeout=2).read()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield Phoenix(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}")
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def mesh(binary: Path, phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The repository's mesh, its spans on their way to Phoenix."""
    folder = tmp_path_factory.mktemp("mesh")
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix.otlp}
    environment |= {"SHOAL_FEEDBACK__STORE": str(folder / "outcomes.sqlite"), "SHOAL_GATEWAY__SPOOL": str(folder / "spool")}
    command = [str(binary), "up", "--free-ports", "--exit-with-parent", "--data", str(folder), "--config", str(ROOT / "mesh.toml")]
    with (folder / "log").open("w") as log:
        up = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert up.stdin and up.stdout
    for line in up.stdout:
        if "processes are healthy" in line:
            break
    else:
        pytest.fail((folder / "log").read_text()[-3000:])
    config = folder / f"run-{up.pid}" / "mesh.toml"
    table = tomllib.loads(config.read_text())
    addresses = {"gateway": table["gateway"]["listen"], **{name: s["listen"] for name, s in table["specialist"].items()}}
    try:
        yield Mesh(binary, config, addresses, {k: v for k, v in environment.items() if not re.match("SHOAL_.*__", k)})
    finally:
        up.stdin.close()
        up.wait(60)
