# SPDX-License-Identifier: Apache-2.0
"""What a wheel of residua-cuda must be: one module beside the package, which needs no CUDA library.

python cuda_wheel.py WHEEL [--kernels]      --kernels: compiled by nvcc, so for these architectures
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

# The C and C++ run time; everything of CUDA is inside, or loaded when it is used.
MAY_NEED = {
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
}
MACHINE_CODE = {"sm_80", "sm_90"}
PTX = {"sm_90"}  # as cuobjdump calls the PTX of 9.0
MOST_BYTES = 40_000_000


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"wheel of residua-cuda: {what}")


def tool(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cuobjdump() -> str | None:
    """The tool that lists device code; it stands beside nvcc where it is not on the path."""
    if found := shutil.which("cuobjdump"):
        return found
    for folder in sorted(Path("/usr/local").glob("cuda*/bin")):
        if (folder / "cuobjdump").exists():
            return str(folder / "cuobjdump")
    return None


def check_device_code(module: Path) -> None:
    program = cuobjdump()
    if program is None:
        print("SKIPPED: the architectures in the module; no cuobjdump")
        return
    for option, wanted in (("--list-elf", MACHINE_CODE), ("--list-ptx", PTX)):
        listed = re.findall(r"\bsm_\d+", tool(program, option, module))
        found = set(listed)
        check(found == wanted, f"cuobjdump {option} finds {sorted(found)}, expected {sorted(wanted)}")
        print(f"{option}: {', '.join(f'{listed.count(name)} x {name}' for name in sorted(wanted))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--kernels", action="store_true")
    arguments = parser.parse_args()
    size = arguments.wheel.stat().st_size
    print(f"{arguments.wheel.name}: {size} bytes")
    check(size < MOST_BYTES, f"{size} bytes, expected less than {MOST_BYTES}")
    with zipfile.ZipFile(arguments.wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        check(
            len(names) == 1 and re.fullmatch(r"residua/_cuda\.[^/]+\.so", names[0]) is not None,
            f"it must hold residua/_cuda.*.so alone, but holds {names}",
        )
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        version = re.findall(r"^Version: (.+)$", text, re.MULTILINE)[0]
        needs = re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
        check(f"residua=={version}" in needs, f"it must need residua=={version}, but needs {needs}")
        module = Path(archive.extract(names[0], folder))
        needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", tool("readelf", "--dynamic", "--wide", module)))
        needed = {name for name in needed if not name.startswith("ld-linux")}
        check(needed <= MAY_NEED, f"the module needs {sorted(needed - MAY_NEED)}")
        print(f"needs {', '.join(sorted(needed))}")
        if arguments.kernels:
            check_device_code(module)


if __name__ == "__main__":
    main()
