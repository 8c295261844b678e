"""Files that only claim to be clips or music are refused by name; honest ones with odd names simply work."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.pcm import decode_sound, decode_track
from prefect_kling.media.probe import probe
from prefect_kling.media.splice import splice
from prefect_kling.media.timeline import lay_out
from prefect_kling.media.untrusted import ask

MakeClip = Callable[..., Path]


async def test_each_is_refused_by_name_and_reason(hostile_files: Mapping[str, Any], shots: list[Path]) -> None:
    with pytest.raises(InvalidMedia) as caught:
        await probe([shots[0], *(case.path for case in hostile_files.values()), shots[1]])
    said = str(caught.value).removesuffix(".").split("; /")
    reasons = {path.lstrip("/"): reason for path, _, reason in (part.partition(" ") for part in said)}
    for name, case in hostile_files.items():
        reason = reasons.pop(str(case.path).lstrip("/"))
        assert re.match(case.reason, reason), f"{name}: {reason}"
    assert reasons == {}


async def test_one_alone_is_refused_with_a_whole_sentence(hostile_files: Mapping[str, Any]) -> None:
    path = hostile_files["an empty file"].path
    with pytest.raises(InvalidMedia) as caught:
        await probe([path])
    assert str(caught.value) == f"{path} is empty."


NAMES = [
    'it\'s "quoted".mp4',
    "two\nlines.mp4",
    "-y.mp4",
    "--help",
    "concat:a|b.mp4",
    "http:example.mp4",
    "frame%03d.mp4",
    "$(touch here).mp4",
    " .mp4",
    "漢字.mp4",
    os.fsdecode(b"\xff\xfe.mp4"),
    "a" * 251 + ".mp4",
]


async def test_a_clip_may_have_any_name_and_be_reached_by_a_link(
    shots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.write_bytes(shots[0].read_bytes())
    (tmp_path / "link.mp4").symlink_to(shots[0])
    monkeypatch.chdir(tmp_path)
    wanted = [*paths, tmp_path / "link.mp4", Path("-y.mp4")]
    found = await probe(wanted)
    assert [facts.path for facts in found] == wanted
    (tmp_path / "sounds").mkdir()
    tracks = await decode_sound(found, tmp_path / "sounds")
    assert {track and track.samples for track in tracks} == {24_000}


async def test_a_clip_may_have_its_title_and_brand_in_any_encoding(
    shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None]
) -> None:
    clip, track = tmp_path / "clip.mp4", tmp_path / "track"
    track.mkdir()
    ffmpeg("-i", shots[0], "-c", "copy", "-metadata", "title=Cafe", clip)
    clip.write_bytes(clip.read_bytes().replace(b"Cafe", b"Caf\xe9").replace(b"ftypisom", b"ftypis\xf6m"))
    [facts] = await probe([clip])
    assert (facts.container, facts.video.frames) == ("is?m", 12)
    assert (await decode_track(clip, track, longest=Fraction(5))).samples > 0
    spliced([facts], tmp_path / "film.mp4")
    assert (await probe([tmp_path / "film.mp4"]))[0].video.frames == 12


async def test_a_clip_of_one_frame_is_a_clip(make_clip: MakeClip) -> None:
    [found] = await probe([make_clip(frames=1)])
    assert (found.video.frames, found.seconds, found.video.starts_clean) == (1, Fraction(1, 24), True)


async def test_a_file_that_grows_after_it_was_probed_is_noticed(shots: list[Path], tmp_path: Path) -> None:
    clip = tmp_path / "growing.mp4"
    clip.write_bytes(shots[0].read_bytes())
    facts = await probe([clip])
    with clip.open("ab") as file:
        file.write(b"\0\0\0\x08free")
    with pytest.raises(InvalidMedia, match=rf"growing\.mp4 has changed: it had {facts[0].bytes} bytes"):
        await decode_sound(facts, tmp_path)
    with pytest.raises(
        InvalidMedia, match=rf"growing\.mp4 changed since it was probed: .* instead of {facts[0].bytes}"
    ):
        spliced(facts, tmp_path / "film.mp4")


def spliced(pictures: list[MediaFacts], film: Path) -> None:
    """Their pictures in a row."""
    timeline = lay_out([CutClip(clip.path, "") for clip in pictures], pictures, Cut(), Fraction(24))
    splice(pictures, timeline, None, 0.0, None, film, lambda: None, lambda _: None)


async def test_a_file_that_is_written_over_after_it_was_probed_is_noticed(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path
) -> None:
    [facts] = await probe([shots[0]])
    silent = make_clip(frames=2)
    free = facts.bytes - silent.stat().st_size
    with silent.open("ab") as file:
        file.write(free.to_bytes(4, "big") + b"free" + bytes(free - 8))
    shots[0].replace(tmp_path / "kept.mp4")
    silent.replace(shots[0])
    try:
        with pytest.raises(InvalidMedia, match="changed while it was read"):
            await decode_sound([facts], tmp_path)
    finally:
        (tmp_path / "kept.mp4").replace(shots[0])


# --- The network ------------------------------------------------------------------------------------------------


@pytest.fixture
async def lure() -> AsyncIterator[tuple[str, list[object]]]:
    """An address on this machine, and a list of those who came there."""
    came: list[object] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.ts", came


BAITS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
    "mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
    "mp3": "ffconcat version 1.0\nfile {}\n",
    "wav": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "m4a": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT5S"'
        '><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    ),
}


async def test_nothing_that_a_file_names_is_asked_for(lure: tuple[str, list[object]], tmp_path: Path) -> None:
    address, came = lure
    for suffix, text in BAITS.items():
        bait = tmp_path / f"bait.{suffix}"
        bait.write_text(text.format(address))
        with pytest.raises(InvalidMedia, match=rf"bait\.{suffix} is"):
            await probe([bait])
        with pytest.raises(InvalidMedia, match=rf"bait\.{suffix} is no sound file"):
            await decode_track(bait, tmp_path, longest=Fraction(5))
    assert came == []


async def test_the_bait_would_work_on_others(lure: tuple[str, list[object]], tmp_path: Path) -> None:
    address, came = lure
    (tmp_path / "bait.m3u8").write_text(BAITS["m3u8"].format(address))
    with pytest.raises(av.FFmpegError):
        await asyncio.to_thread(
            av.open, str(tmp_path / "bait.m3u8"), options={"protocol_whitelist": "file,http,tcp"}, timeout=5.0
        )
    assert came


# --- Random bytes -----------------------------------------------------------------------------------------------

Change = tuple[float, bytes]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(st.tuples(st.booleans(), CHANGES), min_size=12, max_size=12))
def test_whatever_is_in_a_file_it_is_a_clip_or_refused(
    shots: list[Path], tmp_path: Path, several: list[tuple[bool, list[Change]]]
) -> None:
    """Bytes are written over in a clip, anywhere or in its index; the sound of those that pass is decoded."""
    paths = []
    for number, (in_index, changes) in enumerate(several):
        data = bytearray(shots[0].read_bytes())
        first = data.index(b"moov") if in_index else 0
        for place, new in changes:
            at = first + int(place * (len(data) - first))
            data[at : at + len(new)] = new
        paths.append(tmp_path / f"{number}.mp4")
        paths[-1].write_bytes(data)
    asyncio.run(_judged(paths, tmp_path))


async def _judged(paths: list[Path], folder: Path) -> None:
    whole = paths
    try:
        await probe(paths)
    except InvalidMedia as error:
        whole = [path for path in paths if f"{path} " not in str(error)]
    facts = await probe(whole)
    assert [found.path for found in facts] == whole
    refused = ""
    try:
        await decode_sound(facts, folder)
    except InvalidMedia as error:
        refused = str(error)
    assert not refused or any(f"{path} " in refused for path in whole)


# --- The child --------------------------------------------------------------------------------------------------


def test_the_child_imports_no_more_than_it_needs() -> None:
    jobs = get_args(get_type_hints(ask)["job"])
    code = (
        "import sys; before = set(sys.modules)\n"
        "from prefect_kling.media.confined.__main__ import finder\n"
        f"for job in {jobs!r}: finder(job)\n"
        "new = {name: sys.modules[name] for name in set(sys.modules) - before}\n"
        "print(*{name.partition('.')[0] for name, module in new.items() if getattr(module, '__file__', None)})"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=60)
    roots = {root for root in done.stdout.split() if not root.startswith("_")}
    assert {"av", "prefect_kling"} <= roots
    assert roots - sys.stdlib_module_names <= {"av", "PIL", "numpy", "prefect_kling"}
