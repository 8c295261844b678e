"""How a clip was encoded, read from what x264 leaves in it, as parameters that make another clip alike. Pure.

x264 writes all its settings into the first picture's side data. Given back whole they make it write identical parameter
sets, so that the clip can be spliced with the others; a subset of them does not (both measured). The text comes from
an untrusted file: only names that are known here get through, with numbers within bounds, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["parameters"]

_OPTIONS: Final = re.compile(r"x264 - core (?P<core>\d+).*? options: (?P<options>.+)", re.DOTALL)
_INTER: Final = {0x1: "i4x4", 0x2: "i8x8", 0x10: "p8x8", 0x20: "p4x4", 0x100: "b8x8"}
_DIRECT: Final = ("none", "spatial", "temporal", "auto")
_CQM: Final = ("flat", "jvt")
_HRD: Final = ("none", "vbr", "cbr")
_MOTION: Final = ("dia", "hex", "umh", "esa", "tesa")
_RATES: Final = ("crf", "abr", "cbr", "cqp")

# Name as written → name as taken, least and most. What costs time or memory is bounded by what x264's presets use.
_NUMBERS: Final[Mapping[str, tuple[str, float, float]]] = {
    "cabac": ("cabac", 0, 1),
    "ref": ("ref", 1, 16),
    "subme": ("subme", 0, 11),
    "psy": ("psy", 0, 1),
    "mixed_ref": ("mixed-refs", 0, 1),
    "me_range": ("merange", 4, 32),
    "chroma_me": ("chroma-me", 0, 1),
    "trellis": ("trellis", 0, 2),
    "8x8dct": ("8x8dct", 0, 1),
    "fast_pskip": ("fast-pskip", 0, 1),
    "nr": ("nr", 0, 10_000),
    "decimate": ("dct-decimate", 0, 1),
    "bluray_compat": ("bluray-compat", 0, 1),
    "constrained_intra": ("constrained-intra", 0, 1),
    "bframes": ("bframes", 0, 16),
    "b_pyramid": ("b-pyramid", 0, 2),
    "b_adapt": ("b-adapt", 0, 2),
    "b_bias": ("b-bias", -100, 100),
    "weightb": ("weightb", 0, 1),
    "open_gop": ("open-gop", 0, 0),
    "weightp": ("weightp", 0, 2),
    "keyint": ("keyint", 1, 1 << 30),
    "keyint_min": ("min-keyint", 1, 1 << 30),
    "scenecut": ("scenecut", 0, 100),
    "intra_refresh": ("intra-refresh", 0, 0),
    "rc_lookahead": ("rc-lookahead", 0, 60),
    "mbtree": ("mbtree", 0, 1),
    "crf": ("crf", -24, 51),
    "crf_max": ("crf-max", 0, 51),
    "qp": ("qp", 0, 81),
    "bitrate": ("bitrate", 1, 200_000),
    "ratetol": ("ratetol", 0.01, 100),
    "qcomp": ("qcomp", 0, 1),
    "qpmin": ("qpmin", 0, 81),
    "qpmax": ("qpmax", 0, 81),  # of pictures of 10 bits, 69 of 8
    "qpstep": ("qpstep", 0, 69),
    "cplxblur": ("cplxblur", 0, 1000),
    "qblur": ("qblur", 0, 100),
    "vbv_maxrate": ("vbv-maxrate", 0, 400_000),
    "vbv_bufsize": ("vbv-bufsize", 0, 400_000),
    "filler": ("filler", 0, 1),
    "ip_ratio": ("ipratio", 0.01, 10),
    "pb_ratio": ("pbratio", 0.01, 10),
    "slices": ("slices", 0, 16),
    "stitchable": ("stitchable", 0, 1),
}
_LEVELS: Final = (9, 10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 60, 61, 62)
# How many threads made a clip is not seen in its parameter sets; this machine decides for itself.
_WITHOUT_EFFECT: Final = ("threads", "lookahead_threads", "sliced_threads")


def parameters(encoder: str | None, level: int | None = None) -> str | None:
    """The value of ffmpeg's `-x264-params` that encodes as a clip was encoded.

    Args:
        encoder: what x264 left in the clip: `x264 - core 164 … options: cabac=1 ref=3 …`.
        level: the clip's, times ten. x264 does not write it down, and somebody may have asked for a higher one.

    Returns:
        `name=value` pairs joined by `:`; None where there is nothing to go by, or something that is not known here.
    """
    found = _OPTIONS.search(encoder or "")
    if found is None or (level is not None and level not in _LEVELS):
        return None
    written = dict(pair.partition("=")[::2] for pair in found["options"].split())
    try:
        taken = [setting for name, value in written.items() for setting in _taken(name, value, written)]
    except (ValueError, KeyError, IndexError):
        return None
    if written.get("sliced_threads") == "1" and written.get("rc_lookahead", "0") == "0":
        # The tune `zerolatency`, which also promises evenly spaced frames without writing that down.
        taken.append("force-cfr=1")
    if level is not None:
        taken.append(f"level={level}")
    return ":".join(taken) if written.get("rc") in _RATES else None


def _taken(name: str, value: str, written: Mapping[str, str]) -> list[str]:
    if name in _WITHOUT_EFFECT or name == "rc":
        return []
    if name in _SPECIAL:
        return _SPECIAL[name](value, written)
    taken, least, most = _NUMBERS[name]
    if value == "infinite" and name == "keyint":
        return ["keyint=infinite"]
    return [f"{taken}={_number(value, least, most)}"]


def _number(text: str, least: float, most: float) -> str:
    if not re.fullmatch(r"-?[0-9]{1,10}(\.[0-9]{1,6})?", text) or not least <= float(text) <= most:
        raise ValueError(text)
    return text


def _deblock(value: str, _: Mapping[str, str]) -> list[str]:
    on, alpha, beta = value.split(":")
    strengths = f"{_number(alpha, -6, 6)}:{_number(beta, -6, 6)}"
    # A colon parts settings; x264 takes a comma here as well.
    return [f"deblock={strengths.replace(':', ',')}"] if _number(on, 0, 1) == "1" else ["no-deblock=1"]


def _analyse(value: str, _: Mapping[str, str]) -> list[str]:
    _intra, inter = (int(part, 16) for part in value.split(":"))
    if inter & ~sum(_INTER):
        raise ValueError(value)
    return [f"partitions={','.join(name for bit, name in _INTER.items() if inter & bit) or 'none'}"]


def _psy_rd(value: str, _: Mapping[str, str]) -> list[str]:
    strengths = [_number(part, 0, 10) for part in value.split(":")]
    return [f"psy-rd={','.join(strengths)}"]


def _deadzone(value: str, _: Mapping[str, str]) -> list[str]:
    inter, intra = (_number(part, 0, 32) for part in value.split(","))
    return [f"deadzone-inter={inter}", f"deadzone-intra={intra}"]


def _chroma_qp_offset(value: str, written: Mapping[str, str]) -> list[str]:
    """What was asked for: x264 writes what it used, which is lower where it optimizes for the eye."""
    offset = int(_number(value, -12, 12))
    psy_rd, psy_trellis = (float(part) for part in written.get("psy_rd", "0:0").split(":"))
    if written.get("psy") == "1":
        if psy_rd and int(written["subme"]) >= 6:
            offset += 1 if psy_rd < 0.25 else 2
        if psy_trellis and int(written["trellis"]):
            offset += 1 if psy_trellis < 0.25 else 2
    return [f"chroma-qp-offset={offset}"]


def _aq(value: str, _: Mapping[str, str]) -> list[str]:
    mode, _colon, strength = value.partition(":")
    settings = [f"aq-mode={_number(mode, 0, 3)}"]
    return [*settings, f"aq-strength={_number(strength, 0, 10)}"] if strength else settings


def _one_of(taken: str, names: tuple[str, ...], *, by_number: bool) -> Callable[[str, Mapping[str, str]], list[str]]:
    def named(value: str, _: Mapping[str, str]) -> list[str]:
        return [f"{taken}={names[int(_number(value, 0, len(names) - 1))] if by_number else names[names.index(value)]}"]

    return named


def _only_zero(value: str, _: Mapping[str, str]) -> list[str]:
    _number(value, 0, 0)
    return []


_SPECIAL: Final[Mapping[str, Callable[[str, Mapping[str, str]], list[str]]]] = {
    "deblock": _deblock,
    "analyse": _analyse,
    "psy_rd": _psy_rd,
    "deadzone": _deadzone,
    "chroma_qp_offset": _chroma_qp_offset,
    "aq": _aq,
    "me": _one_of("me", _MOTION, by_number=False),
    "direct": _one_of("direct", _DIRECT, by_number=True),
    "cqm": _one_of("cqm", _CQM, by_number=True),
    "nal_hrd": _one_of("nal-hrd", _HRD, by_number=False),
    "interlaced": _only_zero,
}
