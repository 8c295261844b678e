"""Lost answers come home, and what nobody should rely on changes nothing, while the receiver is killed.

The soak is the same with more shots: `python -m benchmarks.calling --shots 200`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.calling import LOST, PESTERED, Report, calling

SHOTS = 24
SEED = 20261123


@pytest.mark.timeout(180)
async def test_lost_and_forged_and_killed_gives_the_same_clips_each_paid_once(tmp_path: Path) -> None:
    ledgers: Iterator[str] = (f"sqlite:///{tmp_path / f'ledger-{number}.db'}" for number in range(3))
    report: Report = await calling(tmp_path, ledgers.__next__, shots=SHOTS, seed=SEED)
    again = f"{report}\nagain: python -m benchmarks.calling --shots {SHOTS} --seed {SEED}"
    assert not report.problems, "\n".join([*report.problems, again])
    undisturbed, lost, pestered = report.outcomes
    assert len(undisturbed.clips) == SHOTS
    assert lost.lost > SHOTS // 10, again
    assert (lost.kills, pestered.kills) == (LOST.kills, PESTERED.kills), again
    # Strangers were heard, and were told apart where they only guessed.
    assert pestered.forged["200"], again
    assert pestered.forged["404"], again
