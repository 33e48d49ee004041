// SPDX-License-Identifier: Apache-2.0
// Memory of one device for one stream. What is released is kept for what comes next, as a search asks for the same
// sizes again and again and asking the driver makes the device wait; on one stream, work that still reads a released
// block comes before whatever its next owner does.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

namespace residua::cuda {

class DeviceMemory {
public:
    // Blocks that nobody uses take at most this much.
    static constexpr std::size_t kMostKept = std::size_t{256} << 20;

    // limit: bytes, kept blocks included; 0 for all that the device has.
    explicit DeviceMemory(std::size_t limit) : limit_(limit) {}
    ~DeviceMemory() { trim(); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    // `what` names the purpose, `device` the device, in an error's message (ErrorKind::out_of_memory).
    void* allocate(std::size_t bytes, const char* what, const std::string& device);
    void release(void* memory) noexcept;
    void trim() noexcept;  // gives kept blocks back

    std::size_t limit() const { return limit_; }
    std::size_t used() const { return used_; }
    std::size_t peak() const { return peak_; }
    void reset_peak() { peak_ = used_; }

private:
    std::size_t limit_, used_ = 0, peak_ = 0, kept_ = 0;
    std::unordered_map<void*, std::size_t> sizes_;  // of all blocks, in use or kept
    std::multimap<std::size_t, void*> free_;
};

// Of the device that is current for the calling thread; nullptr when it has no room. 256-byte aligned.
void* raw_allocate(std::size_t bytes);
void raw_release(void* memory, std::size_t bytes) noexcept;
// Free and total bytes.
std::pair<std::size_t, std::size_t> raw_memory();

}  // namespace residua::cuda
