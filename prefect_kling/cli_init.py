"""`prefect-kling init`: what there is to run on, written where it is wanted."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from prefect_kling.gateway.errors import KlingError
from prefect_kling.media.scratch import publish, scratch
from prefect_kling.terminal import announce

__all__ = ["FILES", "init"]

FILES: Final = (
    *("storyboard.yaml", "prefect.yaml", "automations.yaml", "from-a-shot.yaml"),
    *("Dockerfile", "compose.yaml", "Caddyfile"),
)
PLACE: Final = '"/srv/kling/storyboard.yaml"'
"""Where the example lies in prefect.yaml as it is shipped."""


def init(folder: Path = Path(), /, *, force: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Write an example storyboard, its deployments and automations into a folder, and say what to do next.

    Parameters
    ----------
    folder
        Where; made where it is not there. The current one where it is not given.
    force
        Write over what is there.
    """
    target = folder.expanduser().absolute()
    if "{{" in str(target):
        raise KlingError(f"{target}: Prefect would take what is between braces for a variable; choose another folder")
    there = [name for name in FILES if (target / name).exists()]
    if there and not force:
        raise KlingError(f"{target} has {', '.join(there)} already; --force writes over them")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            _write(target / name, _text(name, target))
    except OSError as error:
        raise KlingError(f"{target} cannot be written: {error.strerror or error}") from error
    for name in FILES:
        announce(str(target / name))
    announce(_next_steps(target))
    return 0


def _text(name: str, target: Path) -> str:
    text = (files("prefect_kling.deployments") / name).read_text("utf-8")
    # JSON's strings are YAML's.
    return text.replace(PLACE, json.dumps(str(target / "storyboard.yaml"), ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    with scratch(path) as work:
        work.write_text(text, "utf-8")
        publish(work, path)


def _next_steps(target: Path) -> str:
    folder, storyboard, automations = (
        shlex.quote(str(path)) for path in (target, target / "storyboard.yaml", target / "automations.yaml")
    )
    return f"""
Try it, at no cost:
  prefect-kling render {storyboard} --simulate
Then, with a Prefect server (`prefect server start`) and PREFECT_API_URL set to it:
  prefect block register -m prefect_kling
  prefect work-pool create kling --type process
  cd {folder} && prefect --no-prompt deploy --all
  prefect-kling automations {automations}
  export APIMODELS_API_KEY=…
  prefect worker start --pool kling
Or all of that in containers: compose.yaml says how.
docs/scheduling.md tells the rest."""
