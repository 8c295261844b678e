"""What every room's tests can ask for.

The table of raw request bodies and what gateway.md says about each; a Prefect server for the session; a simulator, and
a studio on it.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import io
import json
import os
import signal
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import hypothesis
import pytest

if TYPE_CHECKING:
    from benchmarks.postgresql import PostgreSQL
    from prefect_kling import KlingStudio
    from prefect_kling.simulator.server import Running

# Imports are inside the fixtures: most rooms' tests need neither Prefect nor the simulator.

# No test asserts a time: an example that takes long on a busy machine is not wrong.
hypothesis.settings.register_profile("kling", deadline=None)
hypothesis.settings.load_profile("kling")

# A shell's background job has interrupts ignored, and hands that on to every process that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of processes of this package: each would compile all of it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Looking for garbage among all that Prefect has imported after every 700 objects takes a tenth of the tests' time.
gc.set_threshold(50_000, 10, 10)
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent / "children"), os.environ.get("PYTHONPATH")))
)

LONG: Final = (
    "fleet/test_fleet.py",
    "ui/test_browser.py",
    "test_readme.py",
    "cli/test_automations_command.py",
    "test_scheduling_page.py",
    "flows/test_killed_runs.py",
    "flows/test_elsewhere.py",
    "ledger/test_chaos.py",
    "flows/test_examples.py",
    "ledger/test_many_processes.py",
)
"""Modules that take long, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals long modules out to the test processes, to begin with: begun last, one would keep all others waiting.

    As `--dist worksteal` does it, each process is given its part of the tests in their order.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    here = f"{Path(__file__).parent.as_posix()}/"
    by_module = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        by_module[item.path.as_posix().removeprefix(here)].append(item)
    firsts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, module in enumerate(LONG):
        firsts[number % processes] += by_module.pop(module, [])
    others = iter([item for module in by_module.values() for item in module])
    left, dealt = len(items), list[pytest.Item]()
    for number, first in enumerate(firsts):
        share = left // (processes - number)
        dealt += [*first, *islice(others, max(share - len(first), 0))]
        left -= share
    items[:] = [*dealt, *others]


_home = tempfile.TemporaryDirectory(prefix="kling-tests-", ignore_cleanup_errors=True)
# Prefect reads it when it is first imported; what tests leave there is nobody's.
os.environ["PREFECT_HOME"] = _home.name


def pytest_unconfigure() -> None:
    """Workers end without Python's own cleaning up."""
    _home.cleanup()


_TABLE = json.loads((Path(__file__).parent / "gateway" / "raw_bodies.json").read_text("utf-8"))
_ROWS: list[dict[str, Any]] = _TABLE["rows"]


@pytest.fixture(params=_ROWS, ids=[row["name"] for row in _ROWS])
def raw_body(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One row of `tests/gateway/raw_bodies.json`, whose head says what the columns mean, with its whole `body`."""
    return _expanded(request.param)


@pytest.fixture
def raw_bodies() -> list[dict[str, Any]]:
    """Every row, for tests that would rather loop, such as those that start a server."""
    return [_expanded(row) for row in _ROWS]


def _expanded(row: dict[str, Any]) -> dict[str, Any]:
    fields = {**_TABLE["bases"][row["like"]], **row.get("set", {})}
    for field in row.get("drop", ()):
        del fields[field]
    return {**row, "body": _value(fields)}


def _value(short: Any) -> Any:
    """A value of the table as JSON means it: `$repeat`, `$join`, `$list` and `$image` written out."""
    match short:
        case {"$repeat": [text, times]}:
            return text * times
        case {"$join": parts}:
            return "".join(_value(part) for part in parts)
        case {"$list": [item, times]}:
            return [_value(item) for _ in range(times)]
        case {"$image": [kind, width, height, *size]}:
            return _image(kind, width, height, *size)
        case dict():
            return {key: _value(value) for key, value in short.items()}
        case list():
            return [_value(item) for item in short]
        case _:
            return short


@functools.cache
def _image(kind: str, width: int, height: int, size: int = 0) -> str:
    from PIL import Image  # slow to import, and most tests need no image

    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return base64.b64encode(file.getvalue().ljust(size, b"\0")).decode("ascii")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The API URL of a Prefect server with a database of its own, which flows of this process use."""
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, get_current_settings, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    from benchmarks.prefect_server import MANY_RUNS

    with pytest.MonkeyPatch.context() as patch:
        # Tests talk to nobody but this machine.
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        for name, value in MANY_RUNS.items():
            patch.setenv(name, value)
        with (
            prefect_test_harness(server_startup_timeout=90),
            # Tests that read what flows have logged say so; for all others it is a twentieth of their time.
            temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}),
        ):
            url = get_current_settings().api.url
            assert url is not None
            yield url


async def logged(flow_run: UUID, some: str) -> list[str]:
    """What a flow run has logged, as the server has it, once that is among it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run]))
    async with asyncio.timeout(60), get_client() as client:
        while True:
            said = [log.message for log in await client.read_logs(of_run)]
            if any(some in one for one in said):
                return said
            await asyncio.sleep(0.1)


@pytest.fixture
def server_environment(prefect_server: str, tmp_path: Path) -> dict[str, str]:
    """An environment for child processes that use the session's Prefect server and a home of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "APIMODELS_"))}
    return kept | {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect"), "NO_COLOR": "1"}


@pytest.fixture
async def simulator() -> AsyncIterator[Running]:
    """A simulated gateway that is quick and draws small pictures."""
    from prefect_kling.simulator.config import SimulatorConfig
    from prefect_kling.simulator.server import running

    async with running(SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8)) as server:
        yield server


@pytest.fixture
async def studio(simulator: Running, tmp_path: Path) -> AsyncIterator[KlingStudio]:
    """A studio at the simulator, with storage and a ledger of its own."""
    from prefect_kling import KlingCredentials, KlingStudio
    from prefect_kling.ledger.desk import close_ledgers

    yield KlingStudio(
        credentials=KlingCredentials(api_key="sk-studio-5be2c9", base_url=simulator.base_url),
        storage_url=str(tmp_path / "storage"),
        ledger_url=f"sqlite:///{tmp_path / 'studio.db'}",
        poll_interval=0.05,
        max_wait=60,
    )
    await close_ledgers()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for the session, from Debian's packages (`.ci/run` installs them)."""
    from benchmarks.postgresql import PostgreSQL

    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger, once in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()
