# SPDX-License-Identifier: Apache-2.0
"""The command line as a process: exit codes, Ctrl-C, files larger than memory, progress."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

QUIET = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
ENVIRONMENT = {**os.environ, **QUIET, "COLUMNS": "200"}
RESIDUA = [sys.executable, "-m", "residua"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RESIDUA, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


def test_exit_codes(vectors: Path) -> None:
    folder = vectors.parent
    for arguments, code in (
        (["encode", "x.npy", "o.npy"], 0),
        (["encode", "missing.npy", "o.npy"], 1),
        (["encode", "x.npy"], 2),
        (["inspect", "o.npy"], 0),
        (["--version"], 0),
    ):
        done = run(folder, *arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if code:
            (line,) = done.stderr.splitlines()
            assert line.startswith("residua")


def test_a_bug_is_one_line_and_a_traceback_on_request(vectors: Path) -> None:
    broken = "import sys, residua._io as io, residua.cli.inspect; from residua.__main__ import main; "
    broken += "m = sys.modules['residua.cli.inspect']; m.is_container = lambda p: 1 / 0; sys.exit(main())"
    command = [sys.executable, "-c", broken, "inspect", "x.npy"]
    for extra, lines in (({}, 1), ({"RESIDUA_TRACEBACK": "1"}, 0)):
        done = subprocess.run(
            command, cwd=vectors.parent, env=ENVIRONMENT | extra, capture_output=True, text=True, check=False
        )
        assert "ZeroDivisionError" in done.stderr
        assert ("Traceback" in done.stderr) == (not lines)
        assert done.returncode == (70 if lines else 1)


def test_a_closed_pipe_is_quiet(vectors: Path) -> None:
    script = f"'{sys.executable}' -m residua inspect x.npy | true"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=vectors.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 MiB of float32 vectors, the same few over and over."""
    path = tmp_path_factory.mktemp("large") / "x.npy"
    block = np.random.default_rng(0).normal(size=(4096, 256)).astype(np.float32)
    repeats = 128
    with open(path, "wb") as file:
        shape = (len(block) * repeats, 256)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(repeats):
            file.write(memoryview(block).cast("B"))
    return path


# Leaves 256 MiB of address space beyond what the program takes once it is loaded.
LIMITED = """
import re, resource, sys
import residua.cli
from residua.__main__ import main
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 256 * 2**20,) * 2)
sys.exit(main())
"""


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "{x}", "codes.npy", "--codec", "binary"],
        ["encode", "{x}", "codes.npy", "--bits", "1", "--sample", "4000"],
        ["build", "{x}", "i.rsd", "--codec", "binary", "--vectors", "none"],
        ["inspect", "{x}", "--full"],
    ],
    ids=["binary", "recurrent", "build", "inspect"],
)
def test_files_larger_than_memory(large: Path, tmp_path: Path, command: list[str]) -> None:
    assert large.stat().st_size > 2 * 256 * 2**20
    arguments = [part.format(x=large) for part in command]
    threads = [] if command[0] == "inspect" else ["--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments, *threads],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if command[0] == "encode":
        codes = np.load(tmp_path / "codes.npy", mmap_mode="r")
        assert codes.shape[0] == 524_288
        np.testing.assert_array_equal(codes[:4096], codes[-4096:])


PEAK = """
import re, sys
from residua.__main__ import main
code = main()
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
sys.exit(code)
"""


@pytest.mark.parametrize("name", ["x.parquet::x", "x.h5"])
def test_containers_are_streamed_too(large: Path, tmp_path: Path, name: str) -> None:
    """One row group, one dataset: Arrow and HDF5 need address space of their own, so the peak is measured."""
    x = np.load(large, mmap_mode="r")
    if name == "x.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = x
    else:
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 256)
        pq.write_table(pa.table({"x": column}), tmp_path / "x.parquet", compression=None)
    command = [sys.executable, "-c", PEAK, "encode", name, "o.npy", "--codec", "binary", "--threads", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) * 1024 < 0.7 * large.stat().st_size


def test_the_limit_would_be_felt(large: Path) -> None:
    """The file does not fit under the limit of the tests above."""
    code = LIMITED.replace("sys.exit(main())", f"import numpy; numpy.load({str(large)!r})")
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert "MemoryError" in done.stderr


def test_out_of_memory_is_one_line(vectors: Path) -> None:
    code = LIMITED.replace("256 * 2**20", "64 * 2**20")
    arguments = ["encode", "x.npy", "o.npy", "--bits", "4"]
    wide = np.ones((40_000, 256), np.float32)
    wide += np.random.default_rng(0).normal(size=wide.shape).astype(np.float32)
    np.save(vectors, wide)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=vectors.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "memory" in line
    assert [path.name for path in vectors.parent.iterdir()] == ["x.npy"]


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_encode_leaves_nothing(
    large: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "codes.npy").write_bytes(b"old")
    command = [
        *RESIDUA,
        "encode",
        str(large),
        "codes.npy",
        "--bits",
        "8",
        "--sample",
        "1000",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not unfinished(tmp_path) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    assert unfinished(tmp_path), "the encode ended before it could be interrupted"
    process.send_signal(number)
    printed, complaint = process.communicate(timeout=60)
    assert process.returncode == code
    assert printed == ""
    assert "Traceback" not in complaint
    if number == signal.SIGINT:
        assert complaint == "residua: interrupted; no unfinished file is left\n"
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]
    assert (tmp_path / "codes.npy").read_bytes() == b"old"


def test_a_full_disk_leaves_nothing(vectors: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = run(vectors.parent, "encode", "x.npy", "o.npy", preexec_fn=limit)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "too large" in line
    assert [path.name for path in vectors.parent.iterdir()] == ["x.npy"]


def test_outputs_take_the_usual_permissions(vectors: Path) -> None:
    assert run(vectors.parent, "encode", "x.npy", "o.npy", umask=0o027).returncode == 0
    assert (vectors.parent / "o.npy").stat().st_mode & 0o777 == 0o640


def test_progress_is_drawn_on_a_terminal(vectors: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*RESIDUA, "encode", "x.npy", "o.npy"],
        cwd=vectors.parent,
        env=ENVIRONMENT | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"encoding" in drawn
    assert b"2000/2000" in drawn
    assert b"vectors/s" in printed
    assert b"encoding" not in printed


def test_only_some_commands_need_matplotlib(vectors: Path) -> None:
    code = "import sys; from residua.__main__ import main; main(); "
    code += "print([m for m in ('matplotlib', 'pyarrow', 'h5py') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", "x.npy"],
        cwd=vectors.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[]"
