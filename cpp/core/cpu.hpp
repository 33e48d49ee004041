// SPDX-License-Identifier: Apache-2.0
// What the processor and the operating system allow, asked through the compiler's builtins.
#pragma once

namespace residua {

struct CpuFeatures {
    bool avx2 = false;  // AVX2 + FMA + F16C + BMI2, as the avx2 kernels need
};

CpuFeatures cpu_features();

}  // namespace residua
