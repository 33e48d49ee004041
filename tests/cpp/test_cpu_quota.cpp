// SPDX-License-Identifier: Apache-2.0
// Control groups as made-up files: both versions, nesting, nonsense.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/cpu_quota.hpp"

namespace {

namespace fs = std::filesystem;

struct Mount {
    fs::path path = fs::temp_directory_path() / ("residua-quota-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)));
    Mount() { fs::create_directories(path); }
    ~Mount() { fs::remove_all(path); }
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((path / name).parent_path());
        std::ofstream(path / name) << text;
    }
    int quota(const std::string& membership = "0::/\n") const { return residua::cpu_quota(membership, path.string()); }
};

}  // namespace

TEST_CASE("cpu quota, version 2: rounded up, at least one CPU, 'max' is none") {
    const Mount mount;
    CHECK(mount.quota() == residua::kNoQuota);
    for (const auto& [text, cpus] : {std::pair{"200000 100000\n", 2}, std::pair{"150000 100000\n", 2},
                                     std::pair{"1000 100000\n", 1}, std::pair{"400000 50000", 8},
                                     std::pair{"max 100000\n", residua::kNoQuota}, std::pair{"", residua::kNoQuota},
                                     std::pair{"many 100000", residua::kNoQuota}, std::pair{"100000", residua::kNoQuota},
                                     std::pair{"-5 100000", residua::kNoQuota}, std::pair{"100000 0", residua::kNoQuota},
                                     std::pair{"1e300 1", residua::kNoQuota}, std::pair{"nan 1", residua::kNoQuota}}) {
        mount.write("cpu.max", text);
        CHECK_MESSAGE(mount.quota() == cpus, text);
    }
}

TEST_CASE("cpu quota, version 2: the smallest of nested groups counts") {
    const Mount mount;
    mount.write("a/cpu.max", "300000 100000");
    mount.write("a/b/cpu.max", "max 100000");
    mount.write("a/b/c/cpu.max", "700000 100000");
    CHECK(mount.quota("0::/a/b/c\n") == 3);
    CHECK(mount.quota("0::/a/b/c/gone\n") == 3);
    CHECK(mount.quota("0::/elsewhere\n") == residua::kNoQuota);
    mount.write("a/b/c/cpu.max", "100000 100000");
    CHECK(mount.quota("0::/a/b/c\n") == 1);
    CHECK(mount.quota("0::/a/b\n") == 3);
    mount.write("cpu.max", "200000 100000");
    CHECK(mount.quota("0::/host/path/of/a/container\n") == 2);
}

TEST_CASE("cpu quota, version 1: two files in the folder of the controller") {
    const Mount mount;
    const std::string membership = "11:memory:/x\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n1:name=systemd:/docker/abc\n";
    mount.write("cpu/cpu.cfs_period_us", "100000\n");
    mount.write("cpu/cpu.cfs_quota_us", "-1\n");
    CHECK(mount.quota(membership) == residua::kNoQuota);
    mount.write("cpu/cpu.cfs_quota_us", "250000\n");
    CHECK(mount.quota(membership) == 3);
    CHECK(mount.quota("") == 3);
    mount.write("cpu,cpuacct/docker/abc/cpu.cfs_period_us", "50000");
    mount.write("cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "100000");
    CHECK(mount.quota(membership) == 2);
    mount.write("cpu,cpuacct/docker/cpu.cfs_period_us", "100000");
    mount.write("cpu,cpuacct/docker/cpu.cfs_quota_us", "20000");
    CHECK(mount.quota(membership) == 1);
}

TEST_CASE("cpu quota: lines that say nothing are passed over") {
    const Mount mount;
    mount.write("cpu.max", "200000 100000");
    for (const char* text : {"", "\n\n", ":", "::", "0:", "0::", "nonsense", "4:cpuset,cpuacct:/a"}) {
        CHECK_MESSAGE(mount.quota(text) == 2, text);
    }
}

TEST_CASE("cpu quota: of this process, twice the same") {
    CHECK(residua::current_cpu_quota() >= 1);
    CHECK(residua::current_cpu_quota() == residua::current_cpu_quota());
}
