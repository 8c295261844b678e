"""The two blocks: Prefect's own standard tests, saving and loading, and where each setting comes from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from prefect.blocks.core import Block
from prefect.settings import PREFECT_HOME, temporary_settings
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.gateway.client import DEFAULT_BASE_URL
from prefect_kling.gateway.errors import AuthenticationFailed
from prefect_kling.ledger.database import database_url
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.purchases import Account

if TYPE_CHECKING:
    from prefect_kling.ledger.ledger import Ledger

KEY = "sk-blocks-7d1f0a"


@pytest.fixture
def studio() -> KlingStudio:
    return KlingStudio(credentials=KlingCredentials(api_key=KEY))


class _Standard(BlockStandardTestSuite):
    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo from the network; there is none, and the UI shows a grey square."""
        assert block._logo_url is None


class TestCredentials(_Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return KlingCredentials


class TestStudio(_Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return KlingStudio


@pytest.mark.usefixtures("prefect_server")
async def test_a_studio_survives_saving_and_loading(tmp_path: Path) -> None:
    before = KlingStudio(
        credentials=KlingCredentials(api_key=KEY, base_url="http://127.0.0.1:9/api/v1", account="films"),
        storage_url=str(tmp_path),
        storage_options={"auto_mkdir": True},
        max_in_flight=3,
        budget_per_run=2.5,
    )
    await before.asave("survivor", overwrite=True)
    after: KlingStudio = await KlingStudio.aload("survivor")
    assert after.settings() == before.settings()
    assert after.credentials.api_key.get_secret_value() == KEY


def test_neither_block_shows_its_secrets(studio: KlingStudio) -> None:
    secret = KlingStudio(credentials=studio.credentials, storage_options={"secret": KEY})
    for text in (
        repr(secret),
        str(secret),
        secret.model_dump_json(),
        repr(secret.settings()),
        repr(secret.get_client()),
    ):
        assert KEY not in text


def test_the_environment_fills_what_the_block_leaves_open(
    studio: KlingStudio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_STORAGE_URL", str(tmp_path))
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_MAX_IN_FLIGHT", "7")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_BUDGET_PER_RUN", "1.10")
    monkeypatch.setenv("APIMODELS_BASE_URL", "http://127.0.0.1:9/api/v1")
    settings = studio.settings()
    assert settings.storage_url == str(tmp_path)
    assert settings.max_in_flight == 7
    assert settings.budget_per_run == 1_100_000
    assert settings.base_url == "http://127.0.0.1:9/api/v1"


def test_the_block_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_MAX_IN_FLIGHT", "7")
    monkeypatch.setenv("APIMODELS_BASE_URL", "http://127.0.0.1:9/api/v1")
    studio = KlingStudio(
        credentials=KlingCredentials(api_key=KEY, base_url="https://other.example.com/v1"), max_in_flight=2
    )
    assert studio.settings().max_in_flight == 2
    assert studio.settings().base_url == "https://other.example.com/v1"


def test_without_any_setting_the_defaults_of_the_descriptions_hold(
    studio: KlingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APIMODELS_BASE_URL", raising=False)
    settings = studio.settings()
    assert (settings.base_url, settings.max_in_flight, settings.budget_per_run) == (DEFAULT_BASE_URL, 20, None)
    assert (settings.poll_interval, settings.max_wait) == (5.0, 3600.0)
    assert settings.storage_url.endswith("kling/storage")


def test_the_default_ledger_is_in_the_home_whatever_its_path_holds(
    studio: KlingStudio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "what? 100%41 #1"
    with temporary_settings(updates={PREFECT_HOME: home}):
        url = database_url(studio.settings().ledger_url.get_secret_value())
    assert url.database == str(home / "kling" / "ledger.db")
    assert not url.query


@pytest.mark.parametrize("address", ["https://Gateway.Example.com/v1/", "HTTPS://gateway.example.com:443/v1"])
def test_an_address_written_in_another_way_is_the_same_account(studio: KlingStudio, address: str) -> None:
    credentials = KlingCredentials(api_key=KEY, base_url=address)
    settings = studio.model_copy(update={"credentials": credentials}).settings()
    assert Desk(settings, cast("Ledger", None)).account == Account("https://gateway.example.com/v1")


def test_without_a_key_the_client_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    with pytest.raises(AuthenticationFailed, match="APIMODELS_API_KEY"):
        KlingStudio.from_environment().get_client()


@pytest.mark.usefixtures("prefect_server")
def test_both_blocks_register_from_the_command_line(server_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "block", "register", "-m", "prefect_kling"],
        env=server_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Kling Credentials" in done.stdout
    assert "Kling Studio" in done.stdout
