// SPDX-License-Identifier: Apache-2.0
#include "core/cpu.hpp"

namespace residua {

CpuFeatures cpu_features() {
    CpuFeatures f;
#if defined(__x86_64__)
    __builtin_cpu_init();
    f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
             __builtin_cpu_supports("bmi2");
#endif
    return f;
}

}  // namespace residua
