// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_quota.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>

namespace residua {
namespace {

int cpus(double quota, double period) {
    if (!(quota > 0) || !(period > 0)) return kNoQuota;
    return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, static_cast<double>(kNoQuota)));
}

int quota_v2(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;  // a number or "max"
    double period = 0;
    return file >> quota >> period ? cpus(std::atof(quota.c_str()), period) : kNoQuota;
}

int quota_v1(const std::string& folder) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    double quota = 0;  // -1: unlimited
    double period = 0;
    return quota_file >> quota && period_file >> period ? cpus(quota, period) : kNoQuota;
}

// The smallest quota of `group` ("/a/b") and everything above it. In a container the path may be the
// host's and lead nowhere; the root of the mount is then the container's own group.
int smallest(const std::string& mount, std::string_view group, int (*read)(const std::string&)) {
    int least = read(mount);
    while (group.size() > 1) {
        least = std::min(least, read(mount + std::string(group)));
        group = group.substr(0, group.rfind('/'));
    }
    return least;
}

// One of the comma-separated controllers.
bool names_cpu(std::string_view controllers) {
    while (!controllers.empty()) {
        const std::size_t end = std::min(controllers.find(','), controllers.size());
        if (controllers.substr(0, end) == "cpu") return true;
        controllers.remove_prefix(std::min(end + 1, controllers.size()));
    }
    return false;
}

}  // namespace

int cpu_quota(const std::string& membership, const std::string& mount) {
    int least = std::min(quota_v2(mount), quota_v1(mount + "/cpu"));
    std::istringstream lines(membership);
    for (std::string line; std::getline(lines, line);) {  // "hierarchy:controllers:/group"
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const std::string_view group = std::string_view(line).substr(second + 1);
        if (controllers.empty()) least = std::min(least, smallest(mount, group, quota_v2));
        if (names_cpu(controllers)) {
            least = std::min(least, smallest(mount + "/cpu", group, quota_v1));
            least = std::min(least, smallest(mount + "/" + controllers, group, quota_v1));
        }
    }
    return least;
}

int current_cpu_quota() {
#if defined(__linux__)
    using Clock = std::chrono::steady_clock;
    static std::atomic<int> known{kNoQuota};
    static std::atomic<std::int64_t> until{std::numeric_limits<std::int64_t>::min()};
    const std::int64_t now = Clock::now().time_since_epoch() / std::chrono::milliseconds(1);
    if (now >= until.load(std::memory_order_acquire)) {
        std::ifstream file("/proc/self/cgroup");
        std::ostringstream text;
        text << file.rdbuf();
        known.store(cpu_quota(text.str(), "/sys/fs/cgroup"), std::memory_order_relaxed);
        until.store(now + 1000, std::memory_order_release);
    }
    return known.load(std::memory_order_relaxed);
#else
    return kNoQuota;
#endif
}

}  // namespace residua
