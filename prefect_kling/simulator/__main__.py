"""`python -m prefect_kling.simulator`: serves until it is told to stop; prints its base URL on standard output."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from pydantic import ValidationError

from prefect_kling.simulator.config import MediaSpec, SimulatorConfig
from prefect_kling.simulator.server import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a simulator; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m prefect_kling.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 for any free one")
    parser.add_argument("--config", default="{}", help="SimulatorConfig as JSON")
    parser.add_argument("--seed", type=int, help="decides pictures, faults and jitter")
    parser.add_argument("--faults", help="such as lost-answer=0.3,429=@2 (see prefect_kling.simulator.faults)")
    parser.add_argument("--media", help="such as codec=hevc,tag=hev1 (see prefect_kling.simulator.config)")
    parser.add_argument("--end-with-stdin", action="store_true", help="stop when standard input ends")
    given = parser.parse_args(arguments)
    try:
        config = SimulatorConfig.model_validate_json(given.config)
        named = {name: getattr(given, name) for name in ("seed", "faults") if getattr(given, name) is not None}
        if given.media is not None:
            named["media"] = MediaSpec.parse(given.media, config.media)
        config = SimulatorConfig.model_validate({**config.model_dump(), **named})
    except (ValidationError, ValueError) as error:
        parser.error(str(error))
    if given.end_with_stdin:
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    serve(config, given.port, announce=lambda url: print(url, flush=True))  # noqa: T201 - whoever started it reads it
    return 0


def _stop_at_end_of_input() -> None:
    # Unbuffered: a reader blocked in Python's own buffer holds a lock that the interpreter wants at exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
