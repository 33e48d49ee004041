// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_memory.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace residua::cuda {
namespace {

// Rounded up, to about four digits.
std::string text(std::size_t bytes) {
    const bool large = bytes >= std::size_t{10} << 20;
    const int shift = large ? 20 : 10;
    return std::to_string((bytes + (std::size_t{1} << shift) - 1) >> shift) + (large ? " MiB" : " KiB");
}

}  // namespace

void* DeviceMemory::allocate(std::size_t bytes, const char* what, const std::string& device) {
    const std::size_t size = std::max<std::size_t>(bytes, 1);
    const auto fits = [&](std::size_t in_use) { return limit_ == 0 || (in_use <= limit_ && size <= limit_ - in_use); };
    // A little larger will do.
    const auto kept = free_.lower_bound(size);
    if (kept != free_.end() && kept->first <= size + size / 4 + 4096 && (limit_ == 0 || kept->first <= limit_ - std::min(limit_, used_))) {
        void* memory = kept->second;
        kept_ -= kept->first;
        used_ += kept->first;
        peak_ = std::max(peak_, used_);
        free_.erase(kept);
        return memory;
    }
    if (!fits(used_)) {
        throw Error(ErrorKind::out_of_memory, std::string(what) + " needs " + text(bytes) + " of device memory; of the limit of " +
                                                  text(limit_) + ", " + text(used_) + " are in use");
    }
    if (!fits(used_ + kept_)) trim();
    void* memory = raw_allocate(size);
    if (memory == nullptr && kept_ > 0) {
        trim();
        memory = raw_allocate(size);
    }
    if (memory == nullptr) {
        const auto [free, total] = raw_memory();
        throw Error(ErrorKind::out_of_memory, std::string(what) + " needs " + text(bytes) + " of device memory; " + device + " has " +
                                                  text(free) + " free of " + text(total));
    }
    sizes_.emplace(memory, size);
    used_ += size;
    peak_ = std::max(peak_, used_);
    return memory;
}

void DeviceMemory::release(void* memory) noexcept {
    const auto block = sizes_.find(memory);
    if (block == sizes_.end()) return;
    const std::size_t size = block->second;
    used_ -= size;
    if (kept_ + size <= kMostKept) {
        try {
            free_.emplace(size, memory);
            kept_ += size;
            return;
        } catch (...) {  // no room for the note; the block goes back
        }
    }
    sizes_.erase(block);
    raw_release(memory, size);
}

void DeviceMemory::trim() noexcept {
    for (const auto& [size, memory] : free_) {
        sizes_.erase(memory);
        raw_release(memory, size);
    }
    free_.clear();
    kept_ = 0;
}

}  // namespace residua::cuda
