"""What the Makefile calls: `python3 dev.py film|test|check|bench|build|clean`. Standard library only.

Sets up `.venv` first: uv where it works, since it takes seconds, else pip, which honours the machine's index settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
FILM = ROOT / "films" / "lighthouse.mp4"


def film() -> None:
    """Renders the example storyboard on the built-in simulator."""
    setup()
    run(VENV / "bin" / "prefect-kling", "render", "storyboards/lighthouse.yaml", "--simulate", "--out", FILM)


def test(*arguments: str) -> None:
    """Runs every test, or what pytest is told."""
    setup()
    # Many tests wait for processes of their own. Some take a minute: whoever is done takes over what waits behind them.
    workers = str(min((os.cpu_count() or 1) + 2, 4))
    run(PYTHON, "-m", "pytest", "-n", workers, "--dist", "worksteal", *arguments)


def check() -> None:
    """Format, lint and types."""
    setup()
    run(PYTHON, "-m", "ruff", "format", "--check", ".")
    run(PYTHON, "-m", "ruff", "check", ".")
    run(PYTHON, "-m", "mypy")


def bench(*arguments: str) -> None:
    """Prints the measured comparisons."""
    setup()
    run(PYTHON, "-m", "benchmarks", *arguments)


def build() -> None:
    """Builds sdist, then a wheel from it; compares what they hold with the tree; imports the wheel far from here."""
    setup()
    with tempfile.TemporaryDirectory() as scratch:
        run(PYTHON, "-m", "build", "--installer", "uv", "--outdir", scratch, ROOT)
        (wheel,) = Path(scratch).glob("*.whl")
        _compare(wheel)
        _import_elsewhere(wheel, Path(scratch))
        (ROOT / "dist").mkdir(exist_ok=True)
        for built in Path(scratch).glob("prefect_kling-*"):
            shutil.copy(built, ROOT / "dist")


def clean() -> None:
    """Removes what these commands made, but for the films."""
    for name in (".venv", "build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for found in (*ROOT.glob("*.egg-info"), *ROOT.rglob("__pycache__")):
        shutil.rmtree(found, ignore_errors=True)


def setup() -> None:
    """Makes `.venv` hold this package and what its development needs, unless it does already."""
    if sys.version_info < (3, 11):
        raise SystemExit(f"prefect-kling needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    ).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        _make_venv()
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = ["--editable", str(ROOT), *tomllib.load(file)["dependency-groups"]["dev"]]
    packages += ["--constraint", str(ROOT / "constraints.txt")]
    print("setting up .venv …", file=sys.stderr, flush=True)
    if not _install_with_uv(packages):
        print("uv is not to be had here; pip takes a minute …", file=sys.stderr, flush=True)
        run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    STAMP.write_text(wanted)


def _make_venv() -> None:
    made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True, check=False)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        raise SystemExit(
            f"{made.stdout}{made.stderr}\nPython's venv module does not work here. On Debian and Ubuntu: "
            f"apt-get install {version}. Then run this again."
        )


def _install_with_uv(packages: list[str]) -> bool:
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"]
    if subprocess.run(pip, check=False).returncode:
        return False
    command = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", PYTHON, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
    return done.returncode == 0


def _compare(wheel: Path) -> None:
    """What the wheel holds is what the tree holds: a mapped folder that is not listed would be missing silently."""
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "prefect_kling", "blocks", "tasks", "flows", "deployments"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    wanted = {
        name if name.startswith("prefect_kling/") else f"prefect_kling/{name}"
        for name in tracked
        if name and not (ROOT / name).is_symlink()
    }
    if built != wanted:
        raise SystemExit(f"the wheel lacks {sorted(wanted - built)} and has besides {sorted(built - wanted)}")
    print(f"{wheel.name}: {len(built)} files, as in the tree")


def _import_elsewhere(wheel: Path, scratch: Path) -> None:
    venv = scratch / "venv"
    run(PYTHON, "-m", "uv", "venv", "--quiet", "--python", PYTHON, venv)
    constraints = ROOT / "constraints.txt"
    python = venv / "bin" / "python"
    run(PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", python, "--constraint", constraints, wheel)
    program = (
        "import prefect_kling, prefect_kling.flows, prefect_kling.tasks, prefect_kling.simulator.server as s;"
        "assert all(hasattr(prefect_kling, n) for n in prefect_kling.__all__);"
        "assert 'site-packages' in s.__file__, s.__file__"
    )
    run(python, "-I", "-c", program, cwd=scratch)
    run(venv / "bin" / "prefect-kling", "schema", cwd=scratch, stdout=subprocess.DEVNULL)
    run(venv / "bin" / "prefect-kling", "init", "begun", cwd=scratch)
    run(venv / "bin" / "prefect-kling", "plan", "begun/storyboard.yaml", cwd=scratch)
    print(f"{wheel.name}: imports and runs outside the repository")


def run(*command: object, cwd: Path = ROOT, stdout: int | None = None) -> None:
    """Runs a command to its end; its failure is ours, with its exit code."""
    with subprocess.Popen([str(part) for part in command], cwd=cwd, stdout=stdout) as process:
        while process.returncode is None:
            # Ctrl-C goes to the command as well, which ends by itself; `subprocess.run` would kill it after 0.25 s.
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    if process.returncode:
        raise SystemExit(process.returncode if process.returncode > 0 else 128 - process.returncode)


COMMANDS = {"film": film, "test": test, "check": check, "bench": bench, "build": build, "clean": clean}


def main() -> None:
    """Runs the command named first, with the arguments that follow it."""
    name, *arguments = sys.argv[1:] or ["help"]
    if name not in COMMANDS:
        raise SystemExit("\n".join(f"python3 dev.py {n:<6} {f.__doc__.splitlines()[0]}" for n, f in COMMANDS.items()))
    # uv then trusts what this machine trusts, as pip does; the second name is that of older versions.
    os.environ |= {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}
    COMMANDS[name](*arguments)


if __name__ == "__main__":
    main()
