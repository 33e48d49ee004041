// SPDX-License-Identifier: Apache-2.0
// The device of the emulation: memory of the host, of which there is a little, and no time between asking and having.
#include <atomic>
#include <cstring>
#include <new>

#include "core/error.hpp"
#include "cuda/runtime.hpp"

namespace residua::cuda {
namespace {

constexpr std::size_t kMemory = std::size_t{1} << 30;
constexpr std::size_t kAlign = 256;
std::atomic<std::size_t> in_use{0};

}  // namespace

bool is_emulated() noexcept { return true; }

int device_count(std::string*) noexcept { return 1; }

DeviceInfo device_info(int device) {
    if (device != 0) throw Error(ErrorKind::value, "there is no CUDA device " + std::to_string(device) + "; devices are 0 … 0");
    DeviceInfo out;
    out.name = "emulation";
    out.major = 9;
    out.multiprocessors = 2;
    out.memory_bytes = kMemory;
    out.free_bytes = kMemory - in_use;
    out.l2_bytes = std::size_t{1} << 20;
    out.shared_bytes = std::size_t{160} << 10;
    return out;
}

int device_of(const void*) noexcept { return 0; }
int current_device() noexcept { return 0; }
void make_current(int) noexcept {}

Context::Context(int device, std::size_t memory_limit, StreamHandle stream)
    : device_(device), stream_(stream), info_(device_info(device)), memory_(memory_limit) {}

Context::~Context() = default;

void Context::enter() const {}

void* raw_allocate(std::size_t bytes) {
    if (bytes > kMemory - in_use) return nullptr;
    // As on a device, what nobody has written is anything but zero.
    void* memory = ::operator new(bytes, std::align_val_t{kAlign});
    std::memset(memory, 0xA5, bytes);
    in_use += bytes;
    return memory;
}

void raw_release(void* memory, std::size_t bytes) noexcept {
    ::operator delete(memory, std::align_val_t{kAlign});
    in_use -= bytes;
}

std::pair<std::size_t, std::size_t> raw_memory() { return {kMemory - in_use, kMemory}; }

void Context::copy_in(void* device, const void* host, std::size_t bytes) { copy(device, host, bytes); }
void Context::copy_out(void* host, const void* device, std::size_t bytes) { copy(host, device, bytes); }
void Context::copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
}
void Context::fill(void* device, int byte, std::size_t bytes) {
    if (bytes > 0) std::memset(device, byte, bytes);
}
void Context::synchronize() {}
void Context::synchronize_all() {}
void Context::wait_for(StreamHandle) {}
void Context::let_wait(StreamHandle) {}

}  // namespace residua::cuda
