"""Peak memory of a large download and of a join, each in a process of its own."""

from __future__ import annotations

import asyncio
import http.server
import json
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.row import Row

__all__ = ["measure"]

MEGABYTES = 200


def measure() -> list[Row]:
    """Megabytes above what the process had before it began."""
    with tempfile.TemporaryDirectory() as folder:
        download = _child("download", folder)
        join = _child("join", folder)
    return [
        Row(f"memory of a {MEGABYTES} MB download, above idle", download, "MB", "bound", 30),
        Row("memory of joining 200 clips of 5 s at 1080p", join, "MB", "bound", 200),
    ]


def _child(what: str, folder: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", what, folder]
    return float(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def _peak() -> float:
    """Megabytes; of this process and of the largest child it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024


class _Zeros(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(MEGABYTES * 1_000_000))
        self.end_headers()
        for _ in range(MEGABYTES):
            self.wfile.write(bytes(1_000_000))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _download(folder: Path) -> float:
    from prefect_kling.gateway.results import fetch

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Zeros)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = _peak()
    asyncio.run(fetch(f"http://127.0.0.1:{server.server_port}/clip.mp4", folder / "clip.mp4"))
    server.shutdown()
    return _peak() - before


def _join(folder: Path) -> float:
    import imageio_ffmpeg

    from prefect_kling.media.cut import CutClip
    from prefect_kling.media.join import join

    clips = [folder / f"clip{n}.mp4" for n in range(8)]
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    for n, clip in enumerate(clips):
        source = ["-f", "lavfi", "-i", f"testsrc2=s=1920x1080:r=24:d=5,hue=h={n * 18}", "-f", "lavfi", "-i", "sine=d=5"]
        subprocess.run([ffmpeg, "-y", "-v", "error", *source, "-pix_fmt", "yuv420p", "-threads", "1", clip], check=True)
    # The children that made the clips are larger than any of join's: only this process counts here.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # Each a file of its own name: what is kept for a path would else be shared.
    copies = [folder / f"copy{n}.mp4" for n in range(200)]
    for n, copy in enumerate(copies):
        copy.hardlink_to(clips[n % len(clips)])
    asyncio.run(join([CutClip(copy, copy.stem) for copy in copies], folder / "film.mp4"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


if __name__ == "__main__":
    print(json.dumps({"download": _download, "join": _join}[sys.argv[1]](Path(sys.argv[2]))))
