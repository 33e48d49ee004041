// SPDX-License-Identifier: Apache-2.0
#include "kernel/dispatch.hpp"

#include <cstdlib>
#include <string>

#include "core/error.hpp"

// CMake lists the instruction sets, best first, as ISA(name): all in RESIDUA_KNOWN_ISAS, and in
// RESIDUA_BUILT_ISAS those of this architecture.

namespace residua::kernel {

#define ISA(name) const KernelTable& name##_table() noexcept;
RESIDUA_BUILT_ISAS
#undef ISA

namespace {

#if defined(__x86_64__)
#define CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#else
#define CPU_HAS(feature) false  // the names belong to x86
#endif

// What a table needs beyond the baseline of its architecture: the flags of its line in CMakeLists.txt.
bool cpu_runs(std::string_view isa) {
    // Intel since Ice Lake, AMD since Zen 4.
    if (isa == "avx512")
        return CPU_HAS("avx512f") && CPU_HAS("avx512bw") && CPU_HAS("avx512dq") && CPU_HAS("avx512vl") &&
               CPU_HAS("avx512vbmi") && CPU_HAS("avx512vnni") && CPU_HAS("avx512bitalg") &&
               CPU_HAS("avx512vpopcntdq") && CPU_HAS("gfni") && cpu_runs("avx2");
    if (isa == "avx2") return CPU_HAS("avx2") && CPU_HAS("fma") && CPU_HAS("f16c") && CPU_HAS("bmi2");
    return true;
}

struct Entry {
    std::string_view name;
    const KernelTable& (*table)() noexcept;
};

constexpr Entry kEntries[] = {
#define ISA(name) {#name, name##_table},
    RESIDUA_BUILT_ISAS
#undef ISA
};

constexpr std::string_view kKnown[] = {
#define ISA(name) #name,
    RESIDUA_KNOWN_ISAS
#undef ISA
};

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
    std::vector<const KernelTable*> out;
    for (const Entry& e : kEntries) {
        if (cpu_runs(e.name)) out.push_back(&e.table());
    }
    return out;
}

const KernelTable& by_name(std::string_view name) {
    for (const Entry& e : kEntries) {
        if (name == e.name && cpu_runs(e.name)) return e.table();
    }
    for (std::string_view known : kKnown) {
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
