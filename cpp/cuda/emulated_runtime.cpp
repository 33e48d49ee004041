// SPDX-License-Identifier: Apache-2.0
// The device of the emulation: memory of the host, of which there is a little, and no time between asking and having.
#include <algorithm>
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

std::string megabytes(std::size_t bytes) { return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB"; }

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

int current_device() noexcept { return 0; }
void make_current(int) noexcept {}

Context::Context(int device, std::size_t memory_limit, StreamHandle stream)
    : device_(device), stream_(stream), limit_(memory_limit), info_(device_info(device)) {}

Context::~Context() = default;

void Context::enter() const {}

void* Context::allocate(std::size_t bytes, const char* what) {
    if (limit_ != 0 && (used_ > limit_ || bytes > limit_ - used_)) {
        throw Error(ErrorKind::out_of_memory, std::string(what) + " needs " + megabytes(bytes) + " of device memory, but of the limit of " +
                                                  megabytes(limit_) + " " + megabytes(used_) + " are in use");
    }
    if (bytes > kMemory - in_use) {
        throw Error(ErrorKind::out_of_memory, std::string(what) + " needs " + megabytes(bytes) + " of device memory; " + info_.name + " has " +
                                                  megabytes(kMemory - in_use) + " free of " + megabytes(kMemory));
    }
    // As on a device, what nobody has written is anything but zero.
    void* memory = ::operator new(std::max<std::size_t>(bytes, 1), std::align_val_t{kAlign});
    std::memset(memory, 0xA5, bytes);
    in_use += bytes;
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return memory;
}

void Context::release(void* memory, std::size_t bytes) noexcept {
    ::operator delete(memory, std::align_val_t{kAlign});
    in_use -= bytes;
    used_ -= bytes;
}

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
