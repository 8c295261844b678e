"""The child process: reads its job, gives up what no honest clip needs, and answers for one clip after the other."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import av

from prefect_kling.media.confined.opening import Limits, Refused, Task, Unwritable

PACKAGE: Final = "prefect_kling.media.confined"
JOBS: Final = {
    "probe": ("probing", "facts"),
    "last-frame": ("frames", "last_frame"),
    "frame": ("frames", "one_frame"),
    "lumas": ("frames", "lumas"),
    "fit": ("images", "fit"),
    "stills": ("stills", "stills"),
    "thumbnail": ("thumbnails", "thumbnail"),
    "words": ("words", "words"),
    "sound": ("sound", "sound"),
    "track": ("sound", "track"),
}
"""Which function of which module does what; the package's docstring says what each takes and gives."""


def main() -> None:
    """Does the job that standard input describes."""
    job = json.load(sys.stdin)
    limits = job["limits"]
    find = finder(job["job"])
    confine(limits)
    for number, clip in enumerate(job["clips"]):
        start_clock(limits)
        try:
            answer = {"clip": number, "found": find(clip["path"], {**job, **clip})}
        except Refused as refusal:
            answer = {"clip": number, "refused": str(refusal)}
        except Unwritable as failure:
            answer = {"clip": number, "unwritable": failure.args[0]}
        except MemoryError:
            answer = {"clip": number, "refused": f"needs more than {limits['memory'] // 2**20} MB of memory"}
        except (av.FFmpegError, OSError) as error:
            answer = {"clip": number, "refused": f"cannot be read: {error.strerror or error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def finder(job: str) -> Callable[[str, Task], dict[str, Any]]:
    """What does the job for one file. Only its own module is imported: probing has no use for Pillow."""
    module, name = JOBS[job]
    find: Callable[[str, Task], dict[str, Any]] = getattr(import_module(f"{PACKAGE}.{module}"), name)
    return find


def confine(limits: Limits) -> None:
    """Takes away what no honest clip needs, before the first byte of one is read."""
    av.logging.set_level(None)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, limits["output_bytes"])
    if sys.platform == "linux":  # macOS refuses to limit the address space; the other limits hold there too
        lower(resource.RLIMIT_AS, limits["memory"])


def lower(what: int, most: int) -> None:
    """Sets a limit of this process, unless the one it was born with is lower already."""
    set_by_others = [limit for limit in resource.getrlimit(what) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min([most, *set_by_others]), resource.getrlimit(what)[1]))


def start_clock(limits: Limits) -> None:
    """Gives the next clip its own wall time and CPU time; the kernel ends this process when one is used up."""
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + limits["cpu_seconds"]
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


if __name__ == "__main__":
    main()
