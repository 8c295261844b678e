"""The journal of answers: many processes, lines that a crash cut short, full disks, and who may read it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_kling.ledger.answers import COMPACT_ABOVE, Answer, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home" / "kling" / "answers.jsonl")


def answer(number: int, ledger: str = "l1") -> Answer:
    return Answer(ledger, f"token-{number}", f"task-{number}")


def grown(journal: Journal, *answers: Answer) -> None:
    """Writes answers, and enough of another ledger's to be worth compacting."""
    journal.path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"ledger": "other", "token": "t", "task_id": "x" * 200}) + "\n"
    own = "".join(json.dumps(vars(one)) + "\n" for one in answers)
    journal.path.write_text(own + line * (COMPACT_ABOVE // len(line) + 1))


def test_answers_are_read_in_the_order_in_which_they_came(journal: Journal) -> None:
    assert journal.answers() == ()
    for number in range(5):
        journal.append(answer(number))
    assert journal.answers() == tuple(answer(number) for number in range(5))


@pytest.mark.parametrize("text", ['plain"quotes"\\', "line\nbreak\r\n", "\x00\u2028\x85", "Größe 🦊", "\ud800"])
def test_whatever_a_task_is_called_it_is_one_line(journal: Journal, text: str) -> None:
    journal.append(Answer("l1", "t1", text))
    journal.append(answer(2))
    assert [one.task_id for one in journal.answers()] == [text, "task-2"]


def test_it_is_for_this_user_alone(journal: Journal) -> None:
    before = os.umask(0)
    try:
        journal.append(answer(1))
        grown(journal, answer(1))
        journal.drop({"token-1"}, ledger="l1")  # which puts another file in its place
    finally:
        os.umask(before)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert [entry.name for entry in journal.path.parent.iterdir()] == [journal.path.name]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_crash_cut_short_takes_no_other_with_it(journal: Journal, cut: int) -> None:
    journal.append(answer(1))
    journal.append(answer(2))
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    journal.append(answer(3))
    assert answer(1) in journal.answers()
    assert journal.answers()[-1] == answer(3)


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", "5", '"x"', '{"ledger": "l1", "token": "t"}', "\udcff", "\0"])
def test_a_line_that_says_nothing_is_passed_over(journal: Journal, line: str) -> None:
    journal.append(answer(1))
    with journal.path.open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    journal.append(answer(2))
    assert journal.answers() == (answer(1), answer(2))


def test_a_small_file_is_left_alone(journal: Journal) -> None:
    journal.append(answer(1))
    journal.drop({"token-1"}, ledger="l1")
    assert journal.answers() == (answer(1),)


def test_nothing_is_dropped_of_a_file_that_is_not_there(journal: Journal) -> None:
    journal.drop({"token-1"}, ledger="l1")
    assert not journal.path.exists()


def test_compacting_drops_this_ledgers_settled_answers_and_keeps_every_other(journal: Journal) -> None:
    grown(journal, answer(1), answer(2), answer(1, "l2"))
    before = len(journal.answers())
    journal.drop({"token-1"}, ledger="l1")
    found = journal.answers()
    assert found[:2] == (answer(2), answer(1, "l2"))
    assert len(found) == before - 1


APPENDS = """
import sys
from pathlib import Path
from prefect_kling.ledger.answers import Answer, Journal
journal = Journal(Path(sys.argv[1]))
input()
for number in range(40):
    journal.append(Answer(sys.argv[2], f"token-{number}", "x" * 300))
"""
COMPACTS = """
import sys
from pathlib import Path
from prefect_kling.ledger.answers import Journal
journal = Journal(Path(sys.argv[1]))
input()
for _ in range(60):
    journal.drop({"t"}, ledger="other")
    with journal.path.open("ab") as file:
        file.write(b'{"ledger": "other", "token": "t", "task_id": "%s"}\\n' % (b"x" * 270000))
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, text=True)


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Lets them all go on at once, and waits for their good end."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_many_processes_write_at_once_and_no_answer_is_lost(journal: Journal) -> None:
    names = [f"l{number}" for number in range(4)]
    processes = [started(APPENDS, str(journal.path), name) for name in names]
    finish(processes)
    found = journal.answers()
    assert len(found) == 4 * 40
    for name in names:
        assert [one.token for one in found if one.ledger == name] == [f"token-{number}" for number in range(40)]


def test_no_answer_is_lost_to_somebody_who_compacts_meanwhile(journal: Journal) -> None:
    grown(journal)
    processes = [started(APPENDS, str(journal.path), f"l{number}") for number in range(2)]
    processes.append(started(COMPACTS, str(journal.path)))
    finish(processes)
    found = journal.answers()
    for number in range(2):
        assert [one.token for one in found if one.ledger == f"l{number}"] == [f"token-{n}" for n in range(40)]


def test_an_answer_that_does_not_fit_on_the_disk_is_told(journal: Journal) -> None:
    journal.append(answer(1))
    limit = journal.path.stat().st_size + 10
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from prefect_kling.ledger.answers import Answer, Journal\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    Journal(Path(sys.argv[1])).append(Answer('l1', 'token-2', 'task-2'))\n"
        "except OSError:\n"
        "    sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(journal.path)], check=False)
    assert done.returncode == 3
    journal.append(answer(3))
    assert journal.answers() == (answer(1), answer(3))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file" / "answers.jsonl").append(answer(1))
