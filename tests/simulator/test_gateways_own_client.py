"""The gateway's own open-source client, unchanged, generates a video on the simulator.

It is the npm package `apimodels-mcp`, a server of the Model Context Protocol: JSON-RPC, a line each, on standard input
and output. It knows nothing of this project, so it is a witness for the simulator's envelope, states and fields.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "apimodels-mcp"
VERSION = "0.3.0"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.fixture(scope="session")
def client_script() -> Path:
    """The client's entry point, installed once into the machine's temporary directory."""
    kept = Path(tempfile.gettempdir()) / f"prefect-kling-tests-{os.getuid()}" / f"{PACKAGE}-{VERSION}"
    script = kept / "node_modules" / PACKAGE / "dist" / "index.js"
    if not script.exists():
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=kept.parent))
        npm = ["npm", "install", "--prefix", str(making), "--omit=optional", "--ignore-scripts", "--no-audit"]
        subprocess.run([*npm, f"{PACKAGE}@{VERSION}"], check=True, capture_output=True, timeout=100)
        try:
            making.rename(kept)
        except OSError:  # another run was quicker
            shutil.rmtree(making)
    return script


async def test_it_generates_a_video(simulate: Any, client_script: Path) -> None:
    async with simulate() as (simulator, http):
        environment = {**os.environ, "APIMODELS_BASE_URL": simulator.base_url, "APIMODELS_API_KEY": "sk-any"}
        process = await asyncio.create_subprocess_exec(
            "node",
            str(client_script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            arguments = {
                "prompt": "A lighthouse at dawn", "model": "kling-v3-omni", "aspect_ratio": "16:9", "duration": "5",
                "wait_seconds": 60,
            }  # fmt: skip
            hello = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
            await call(process, 1, "initialize", hello)
            await send(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            models = await call(process, 2, "tools/call", {"name": "list_models", "arguments": {}})
            assert "kling-v3-omni" in models["content"][0]["text"]
            result = await call(process, 3, "tools/call", {"name": "generate_video", "arguments": arguments})
            assert not result.get("isError"), result
            clip = await http.get(result["content"][0]["text"])
            assert clip.headers["content-type"] == "video/mp4"
            refused = await call(
                process, 4, "tools/call", {"name": "generate_video", "arguments": {**arguments, "duration": "99"}}
            )
            assert "HTTP 400" in refused["content"][0]["text"]
            assert "duration" in refused["content"][0]["text"]
        finally:
            process.terminate()
            await process.communicate()
        assert simulator.service.stats()["creates"] == 1


async def send(process: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def call(process: asyncio.subprocess.Process, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    await send(process, {"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := await process.stdout.readline():
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "result" in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
    raise AssertionError("the client ended without an answer")
