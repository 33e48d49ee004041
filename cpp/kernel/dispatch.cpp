// SPDX-License-Identifier: Apache-2.0
#include "kernel/dispatch.hpp"

#include <cstdlib>
#include <string>

#include "core/cpu.hpp"
#include "core/error.hpp"

namespace residua::kernel {

const KernelTable& scalar_table() noexcept;
#if defined(RESIDUA_HAVE_AVX2)
const KernelTable& avx2_table() noexcept;
#endif

namespace {

struct Entry {
    const char* name;
    const KernelTable& (*table)() noexcept;  // nullptr: not built for this architecture
    bool (*supported)(const CpuFeatures&);
};

// Best first.
constexpr Entry kEntries[] = {
#if defined(RESIDUA_HAVE_AVX2)
    {"avx2", avx2_table, [](const CpuFeatures& f) { return f.avx2; }},
#endif
    {"scalar", scalar_table, [](const CpuFeatures&) { return true; }},
};

constexpr const char* kKnown[] = {"scalar", "avx2", "avx512", "neon"};

std::string available_names() {
    std::string s;
    for (const KernelTable* t : available()) s += (s.empty() ? "'" : ", '") + std::string(t->name) + "'";
    return s;
}

const KernelTable& choose() {
    const char* env = std::getenv("RESIDUA_ISA");
    if (env != nullptr && *env != '\0') return by_name(env);
    return *available().front();
}

}  // namespace

std::vector<const KernelTable*> available() {
    const CpuFeatures cpu = cpu_features();
    std::vector<const KernelTable*> out;
    for (const Entry& e : kEntries) {
        if (e.supported(cpu)) out.push_back(&e.table());
    }
    return out;
}

const KernelTable& by_name(std::string_view name) {
    const CpuFeatures cpu = cpu_features();
    for (const Entry& e : kEntries) {
        if (name == e.name && e.supported(cpu)) return e.table();
    }
    for (const char* known : kKnown) {
        if (name == known) {
            throw Error(ErrorKind::unsupported, "RESIDUA_ISA='" + std::string(name) +
                                                    "' is not supported on this machine; it can run " +
                                                    available_names());
        }
    }
    throw Error(ErrorKind::value,
                "RESIDUA_ISA='" + std::string(name) + "' is unknown; this machine can run " + available_names());
}

const KernelTable& active() {
    static const KernelTable& table = choose();
    return table;
}

}  // namespace residua::kernel
