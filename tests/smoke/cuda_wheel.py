# SPDX-License-Identifier: Apache-2.0
"""What a wheel of residua-cuda must be: one module beside the package, which needs no CUDA library.

python cuda_wheel.py WHEEL [--kernels]      --kernels: compiled by nvcc, so for these architectures
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import tempfile
import zipfile
from collections import Counter
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
ARCHITECTURES = {"sm_80", "sm_90", "compute_90"}
MOST_BYTES = 40_000_000
_CONTAINER = struct.pack("<I", 0xBA55ED50)
_KINDS = {1: "compute", 2: "sm"}  # PTX, machine code


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"wheel of residua-cuda: {what}")


def tool(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def device_code(module: bytes) -> Counter[str]:
    """How many images for which architecture: nvcc writes containers with one entry per architecture."""
    found: Counter[str] = Counter()
    at = -1
    while (at := module.find(_CONTAINER, at + 1)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", module, at + 4)
        if (version, header) != (1, 16):
            continue
        entry = at + header
        while entry < at + header + size:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", module, entry)
            (architecture,) = struct.unpack_from("<I", module, entry + 28)
            check(kind in _KINDS and entry_header > 0, "its device code is in a form that is not known here")
            found[f"{_KINDS[kind]}_{architecture}"] += 1
            entry += entry_header + entry_size
    return found


def check_device_code(module: Path) -> None:
    found = device_code(module.read_bytes())
    check(set(found) == ARCHITECTURES, f"it has code for {sorted(found)}, expected {sorted(ARCHITECTURES)}")
    check(len(set(found.values())) == 1, f"some files were not compiled for all architectures: {dict(found)}")
    print(f"device code of {found['sm_90']} files: {', '.join(sorted(found))}")


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
