"""The containers: what they run is there, and what they are told is known. tests/fleet runs the same as processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
from ruamel.yaml import YAML

from benchmarks.prefect_server import MANY_RUNS
from prefect_kling.blocks.environment import KlingEnvironment
from prefect_kling.cli_init import FILES

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
TEXT = (DEPLOYMENTS / "compose.yaml").read_text("utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe").load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOYMENTS / "Dockerfile").read_text("utf-8")
OURS = [name for name, service in SERVICES.items() if "build" in service]


def commands() -> list[list[str]]:
    """Those that the fleet does not run word for word."""
    return [SERVICES[name]["command"] for name in ("prefect", "receiver")]


def test_there_is_a_server_a_worker_and_a_receiver() -> None:
    assert OURS == ["prefect", "setup", "worker", "receiver"]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_is_there_with_its_options(command: list[str]) -> None:
    options = [word for word in command if word.startswith("--")]
    names = command[1 : command.index(options[0])]
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run([program, *names, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [option for option in options if option not in done.stdout] == []


def test_each_setting_is_known() -> None:
    ours = {f"PREFECT_INTEGRATIONS_KLING_{name.upper()}" for name in KlingEnvironment.model_fields}
    for name in OURS:
        for variable in SERVICES[name].get("environment", {}):
            # Prefect's settings are names of its module.
            known = variable in ours | {"APIMODELS_API_KEY", "APIMODELS_BASE_URL"} or hasattr(
                prefect.settings, variable
            )
            assert known, variable
    assert not hasattr(prefect.settings, "PREFECT_NO_SUCH_SETTING")


def test_its_server_is_set_as_it_was_measured() -> None:
    assert SERVICES["prefect"]["environment"].items() >= MANY_RUNS.items()
    # Prefect 3.8 cuts the seconds off at the point, and half a second becomes a loop without a pause.
    assert all(value.isdecimal() and int(value) for value in MANY_RUNS.values())


def test_runs_link_to_pages_that_people_can_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_UI_URL"):
        said = re.sub(r"\$\{\w+:-(.*)\}", r"\1", SERVICES["worker"]["environment"][name])
        monkeypatch.setenv(name, said)
    found = subprocess.run(
        [sys.executable, "-c", "from prefect.utilities.urls import url_for; print(url_for('flow-run', obj_id='1'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "http://127.0.0.1:4200/runs/flow-run/1"


def test_only_workers_have_the_key_and_nobody_has_it_written_down() -> None:
    having = [name for name in SERVICES if "APIMODELS_API_KEY" in SERVICES[name].get("environment", {})]
    assert having == ["worker"]
    assert SERVICES["worker"]["environment"]["APIMODELS_API_KEY"] == "${APIMODELS_API_KEY:?in .env}"
    passwords = re.findall(r"kling:(\S*?)@|POSTGRES_PASSWORD: (\S+)", TEXT)
    assert {one or other for one, other in passwords} <= {"${DATABASE_PASSWORD:?in", "${DATABASE_PASSWORD:?in .env}"}


def test_whoever_is_waited_for_says_how_it_is() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
            else:
                assert SERVICES[name]["restart"] == "on-failure"


def test_a_worker_may_end_what_it_has_begun() -> None:
    assert SERVICES["worker"]["stop_grace_period"] == "90s"  # a POST and its commit take 60 s at most


def test_volumes_and_files_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in (*COMPOSE["volumes"], ".") or source.removeprefix("./") in FILES, volume
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]


def test_no_image_is_the_latest() -> None:
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == len(SERVICES) + 1
    assert [image for image in images if ":" not in image or "latest" in image] == []


def test_the_image_runs_as_nobody_in_particular_and_copies_what_is_there() -> None:
    steps = dict(re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE, re.MULTILINE))
    assert steps["USER"] == re.findall(r"useradd .*--uid (\d+) kling", DOCKERFILE)[0]
    copied = [name for name in steps["COPY"].split()[:-1] if "*" not in name]
    assert copied
    assert set(copied) <= set(FILES)
    # What the volumes hold belongs to that user.
    for place in re.findall(r'"(/[^"]+)"', steps["VOLUME"]):
        assert place in re.findall(r"/\S+", DOCKERFILE.partition("install --directory")[2].partition("\n\n")[0])


def test_the_proxy_is_told_what_its_file_asks_for() -> None:
    asked = set(re.findall(r"\{\$([A-Z_]+)", (DEPLOYMENTS / "Caddyfile").read_text("utf-8")))
    assert set(SERVICES["proxy"]["environment"]) == asked
