"""Films as others play them: two decoders that know nothing of each other, and a browser."""

from __future__ import annotations

import asyncio
import functools
import http.server
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from queue import Queue
from urllib.parse import unquote

import imageio_ffmpeg
import pytest

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.join import Film, join
from prefect_kling.media.transitions import Transition

FrameSums = Callable[[Path], list[str]]
CROSSFADE = Transition("crossfade", Fraction(1, 6))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PAGE = """<!doctype html><video src="film.mp4" muted></video><script>
const video = document.querySelector("video")
const tell = what => fetch("/told?" + what + "," + video.currentTime + "," + video.videoWidth + "x" + video.videoHeight)
video.onended = () => tell("ended")
video.onerror = () => tell("error " + video.error.message)
video.play().catch(error => tell("refused " + error))
</script>"""


@pytest.fixture(scope="module")
def films(shots: list[Path], ffmpeg: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    """A film by each method, all with sound; each 36 frames or a little more."""
    folder = tmp_path_factory.mktemp("films")
    ffmpeg("-i", shots[0], "-vf", "scale=640:360", folder / "odd.mp4")
    captioned = [CutClip(path, path.stem, caption=f"This is {path.stem}") for path in shots]
    crossed = [CutClip(path, path.stem, transition=CROSSFADE) for path in shots]

    async def joined() -> dict[str, Film]:
        return {
            "copy": await join(captioned, folder / "copy.mp4"),
            "normalise": await join([*captioned, CutClip(folder / "odd.mp4", "odd")], folder / "normalise.mp4"),
            "encode": await join(crossed, folder / "encode.mp4", Cut(fade_out=Fraction(1, 4))),
        }

    return asyncio.run(joined())


async def test_each_way_of_joining_decodes_without_a_word_in_two_decoders(films: dict[str, Film]) -> None:
    for method, film in films.items():
        assert film.method == method, film.reason
        for decoder in ("h264", "libopenh264"):
            said = _ffmpeg("-xerror", "-c:v", decoder, "-i", film.path, "-f", "null", "-")
            assert said.stderr == "", f"{method}, {decoder}"


async def test_what_is_copied_is_the_source_frame_by_frame(
    films: dict[str, Film], shots: list[Path], frame_sums: FrameSums
) -> None:
    sources = [line for shot in shots for line in frame_sums(shot)]
    assert frame_sums(films["copy"].path) == sources
    assert frame_sums(films["normalise"].path)[: len(sources)] == sources
    assert len(sources) == 36


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs it")
async def test_each_way_of_joining_plays_to_its_end_in_a_browser(films: dict[str, Film], tmp_path: Path) -> None:
    for method, film in films.items():
        folder = tmp_path / f"{method}-page"
        folder.mkdir()
        (folder / "index.html").write_text(PAGE)
        (folder / "film.mp4").symlink_to(film.path)
        told = await asyncio.to_thread(_played, folder)
        what, time, size = told.rsplit(",", 2)
        assert (what, size) == ("ended", "320x180"), method
        assert abs(float(time) - film.seconds) < 0.05


def _ffmpeg(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "warning", "-nostdin", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


def _played(folder: Path) -> str:
    """What the page in a folder tells when a browser has shown it."""
    with _served(folder) as (url, told):
        process = subprocess.Popen(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
                "--autoplay-policy=no-user-gesture-required",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}",
                url,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return told.get(timeout=60)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


class _served:  # noqa: N801 - used like a function
    """Serves a folder on loopback; gives its URL, and a queue of what its page tells."""

    def __init__(self, folder: Path) -> None:
        self.told: Queue[str] = Queue()
        handler = functools.partial(_Handler, self.told, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> tuple[str, Queue[str]]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/index.html", self.told

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, told: Queue[str], *arguments: object, **named: object) -> None:
        self.told = told
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # passed on as they came

    def do_GET(self) -> None:
        if self.path.startswith("/told?"):
            self.told.put(unquote(self.path.partition("?")[2]))
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
