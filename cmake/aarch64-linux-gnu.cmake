# SPDX-License-Identifier: Apache-2.0
# Cross build for AArch64 Linux with Debian's compiler; tests run under QEMU's user mode.
#   cmake -S . -B build-neon --toolchain cmake/aarch64-linux-gnu.cmake -DRESIDUA_PYTHON=OFF -DRESIDUA_TESTS=ON
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
# Headers without code of their own, such as doctest, may come from the build machine.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
