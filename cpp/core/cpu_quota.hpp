// SPDX-License-Identifier: Apache-2.0
// How much CPU time the control groups of a container or a service leave to this process.
#pragma once

#include <string>

namespace residua {

inline constexpr int kNoQuota = 1 << 20;

// CPUs that the quotas allow, rounded up, at least 1; kNoQuota where nothing limits. Groups nest, so
// the smallest quota from the process's group up to the root counts. `membership` is what
// /proc/self/cgroup says, `mount` where the groups are mounted: version 2 ("cpu.max") directly, or
// version 1 ("cpu.cfs_quota_us" and "cpu.cfs_period_us") in a folder per controller.
int cpu_quota(const std::string& membership, const std::string& mount);

// Of this process; read again at most once per second, because a call may ask for every query.
int current_cpu_quota();

}  // namespace residua
