"""What the Makefile calls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = """\
import sys
try:
    print("up", flush=True)
    sys.stdin.readline()
except KeyboardInterrupt:
    print("ending", flush=True)
    sys.stdin.readline()
    sys.exit(130)
"""


def test_an_interrupted_command_is_left_to_end_by_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys, dev; dev.run(sys.executable, '-c', sys.argv[1])", COMMAND],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.communicate("\n")
    assert process.returncode == 130
