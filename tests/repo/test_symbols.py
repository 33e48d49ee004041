# SPDX-License-Identifier: Apache-2.0
"""Code of a newer instruction set stands only where run-time dispatch guards it.

Two checks that complete each other. The objects of the ISA translation units export one function
and nothing that a linker may merge with another object's copy. In the installed module, every AVX
instruction belongs to a function of such a translation unit: the linker keeps the names of local
functions grouped by source file.
"""

from __future__ import annotations

import bisect
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from residua import _core

BASELINE_ISA = "scalar"
X86 = platform.machine() in ("x86_64", "AMD64")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files with GNU binutils")

# VEX and EVEX mnemonics start with v; verr, verw and the virtual-machine instructions never come from
# C++. tzcnt is absent: compilers emit its encoding for the baseline, where it runs as bsf.
AVX_MNEMONIC = re.compile(
    r"v(?!err|erw|mcall|mlaunch|mresume)[a-z]|k(?:mov|unpck|ortest|xnor|and|or|xor)[bwdq]{1,2}"
)
BMI_MNEMONIC = re.compile(
    r"(?:andn|bextr|blsi|blsmsk|blsr|bzhi|lzcnt|mulx|pdep|pext|rorx|sarx|shlx|shrx)[lqw]?"
)
WIDE_REGISTER = re.compile(r"%[yz]mm\d")


def run(*command: str | Path) -> str:
    tool = shutil.which(str(command[0]))
    assert tool, f"{command[0]} is needed: binutils come with the compiler, cmake and ninja with .[test]"
    done = subprocess.run([tool, *map(str, command[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def isa_sources(root: Path) -> list[Path]:
    return sorted((root / "cpp" / "kernel" / "isa").glob("*.cpp"))


@pytest.fixture(scope="module")
def isa_objects(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Release objects of the ISA translation units that CMake has for this architecture."""
    build = tmp_path_factory.mktemp("objects")
    run("cmake", "-S", root, "-B", build, "-G", "Ninja", "-DRESIDUA_PYTHON=OFF", "-DCMAKE_BUILD_TYPE=Release")
    known = set(re.findall(r"^(\w+): ", run("ninja", "-C", build, "-t", "targets", "all"), re.MULTILINE))
    targets = {f"residua_isa_{path.stem}" for path in isa_sources(root)} & known
    run("cmake", "--build", build, "--target", *sorted(targets))
    objects = {path.name.split(".")[0]: path for path in build.rglob("*.o")}
    assert BASELINE_ISA in objects
    assert set(_core.kernels.available()) <= set(objects)
    return objects


def test_isa_objects_export_one_function(isa_objects: dict[str, Path]) -> None:
    for name, path in isa_objects.items():
        exported = []
        for line in run("nm", "--defined-only", "--extern-only", "--demangle", path).splitlines():
            _, kind, symbol = line.split(maxsplit=2)
            exported.append((kind, symbol))
        assert exported == [("T", f"residua::kernel::{name}_table()")], (
            f"{path.name} must export its table alone. W, V and u are functions or data that the linker "
            f"merges with copies of other objects, and then AVX code runs everywhere: {exported}"
        )


def avx_instruction(line: str) -> str | None:
    """The AVX or BMI instruction of one line of objdump, or None."""
    parts = line.split("\t")
    if len(parts) < 2:
        return None
    text = re.sub(r"^(?:(?:rep\w*|lock|data16|cs|ds|notrack|bnd)\s+)+", "", parts[1].strip())
    mnemonic = text.split(maxsplit=1)[0] if text else ""
    if AVX_MNEMONIC.match(mnemonic) or BMI_MNEMONIC.fullmatch(mnemonic) or WIDE_REGISTER.search(text):
        return text
    return None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("  4010:\tvaddps %ymm0,%ymm1,%ymm2", True),
        ("  4010:\tvmovd  %xmm0,%eax", True),
        ("  4010:\tshlx   %eax,%edx,%ecx", True),
        ("  4010:\tkmovw  %k1,%eax", True),
        ("  4010:\taddps  %xmm0,%xmm1", False),
        ("  4010:\trep tzcnt %eax,%edx", False),
        ("  4010:\tpopcnt %rax,%rdx", False),
        ("  4010:\tcs nopw 0x0(%rax,%rax,1)", False),
    ],
)
def test_the_reader_knows_avx(line: str, found: bool) -> None:
    assert (avx_instruction(line) is not None) == found


def functions_by_file(module: Path) -> list[tuple[int, str, str]]:
    """(address, name, source file or '') of every function in the module's symbol table, by address."""
    functions = []
    source = ""
    for line in run("readelf", "--syms", "--wide", module).splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) < 7 or not fields[0].rstrip(":").isdigit():
            continue
        kind, section, name = fields[3], fields[6], fields[7] if len(fields) > 7 else ""
        if kind == "FILE":
            source = name
        elif kind == "FUNC" and section != "UND":
            functions.append((int(fields[1], 16), name, source))
    return sorted(functions)


def avx_outside(
    lines: Iterable[str], functions: list[tuple[int, str, str]], files: set[str], tables: set[str]
) -> Iterator[str]:
    starts = [address for address, _, _ in functions]
    for line in lines:
        if not (text := avx_instruction(line)):
            continue
        address = int(line.split(":")[0], 16)
        at = bisect.bisect_right(starts, address) - 1
        _, name, source = functions[at] if at >= 0 else (0, "", "")
        if source not in files and name not in tables:
            yield f"{address:#x} in {name or '?'} of {source or 'a merged object'}: {text}"


@pytest.mark.skipif(not X86, reason="the baseline of other architectures contains their vector instructions")
def test_installed_module_has_avx_only_in_isa_functions(root: Path) -> None:
    module = Path(_core.__file__)
    functions = functions_by_file(module)
    assert any(source.endswith(".cpp") for _, _, source in functions), (
        f"{module} has no symbol table; install it with pip from the source tree, which does not strip"
    )
    names = {path.stem for path in isa_sources(root)} - {BASELINE_ISA}
    files = {f"{name}.cpp" for name in names}
    for path in (root / "cpp").rglob("*.cpp"):
        assert path.name not in files or path.parent.name == "isa", f"{path} shares its name with an ISA unit"
    # The one exported function of a unit stands among the global symbols, without its file.
    tables = {f"_ZN7residua6kernel{len(name) + 6}{name}_tableEv" for name in names}
    listing = run("objdump", "--disassemble", "--no-show-raw-insn", "--wide", module).splitlines()
    wrong = list(avx_outside(listing, functions, files, tables))
    assert not wrong, "AVX outside the ISA units:\n" + "\n".join(wrong[:20])


@pytest.mark.skipif(not X86, reason="AVX is an x86 matter")
def test_misplaced_avx_is_found() -> None:
    functions = [(0x10, "avx2_dot", "avx2.cpp"), (0x20, "merged", ""), (0x30, "parse", "io.cpp")]
    lines = ["  10:\tvzeroupper", "  24:\tvzeroupper", "  30:\tvzeroupper", "  34:\tret"]
    assert len(list(avx_outside(lines, functions, {"avx2.cpp"}, set()))) == 2
