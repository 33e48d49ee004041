// SPDX-License-Identifier: Apache-2.0
// Devices, memory and streams. Plain C++: no CUDA header is seen from here. Every failure is a residua::Error, after
// which the device and everything on it can still be used.
//   unsupported     no device, or none that can do this
//   out_of_memory   the device, or the cap of the context, has no room; the message has the sizes
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device_memory.hpp"

namespace residua::cuda {

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;          // compute capability
    int multiprocessors = 0;
    std::size_t memory_bytes = 0;
    std::size_t free_bytes = 0;
    std::size_t l2_bytes = 0;
    std::size_t shared_bytes = 0;      // that a block may take
};

// 0 where there is no driver or no device; never throws. `reason`, if given, says why.
int device_count(std::string* reason = nullptr) noexcept;
DeviceInfo device_info(int device);
// The device that is current for the calling thread.
int current_device() noexcept;
void make_current(int device) noexcept;
// The device that has the memory, or -1 where none says so.
int device_of(const void* memory) noexcept;
// Whether this is the build that runs kernels on the CPU (cuda/emulation.hpp).
bool is_emulated() noexcept;

// The lowest compute capability that kernels are built for.
inline constexpr int kMinMajor = 8;

using StreamHandle = std::uintptr_t;  // a cudaStream_t

// One device, one stream and a cap on memory. Everything that is done through it is ordered on its stream.
// Not thread-safe: callers share it under a lock.
class Context {
public:
    // memory_limit: bytes, 0 for all that the device has. stream: 0 makes one of its own.
    explicit Context(int device, std::size_t memory_limit = 0, StreamHandle stream = 0);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    int device() const { return device_; }
    StreamHandle stream() const { return stream_; }
    const DeviceInfo& info() const { return info_; }
    std::size_t used() const { return memory_.used(); }  // bytes allocated through it
    std::size_t peak() const { return memory_.peak(); }
    std::size_t limit() const { return memory_.limit(); }
    void reset_peak() { memory_.reset_peak(); }

    // Makes the device current for the calling thread.
    void enter() const;

    // `what` names the purpose in an error's message. 256-byte aligned; bytes may be 0.
    void* allocate(std::size_t bytes, const char* what) {
        enter();
        return memory_.allocate(bytes, what, info_.name);
    }
    void release(void* memory) noexcept { memory_.release(memory); }

    // Host memory may be pageable; copies to the host have arrived when they return, those to the device when the
    // host memory may be reused.
    void copy_in(void* device, const void* host, std::size_t bytes);
    void copy_out(void* host, const void* device, std::size_t bytes);
    void copy(void* device_to, const void* device_from, std::size_t bytes);
    void fill(void* device, int byte, std::size_t bytes);
    void synchronize();
    void synchronize_all();  // work of every stream of the device
    // Work of this context waits for what `other` has been given so far, and the reverse.
    void wait_for(StreamHandle other);
    void let_wait(StreamHandle other);

private:
    int device_;
    StreamHandle stream_ = 0;
    bool owns_stream_ = false;
    DeviceInfo info_;
    DeviceMemory memory_;
};

// An array on the device; moves, never copies.
template <class T>
class DeviceArray {
public:
    DeviceArray() = default;
    DeviceArray(Context& context, std::size_t n, const char* what)
        : context_(&context), data_(static_cast<T*>(context.allocate(n * sizeof(T), what))), n_(n) {}
    DeviceArray(Context& context, const std::vector<T>& host, const char* what) : DeviceArray(context, host.size(), what) {
        copy_in(host.data(), host.size());
    }
    DeviceArray(DeviceArray&& other) noexcept { swap(other); }
    DeviceArray& operator=(DeviceArray&& other) noexcept {
        DeviceArray gone(std::move(other));
        swap(gone);
        return *this;
    }
    ~DeviceArray() {
        if (context_ != nullptr) context_->release(data_);
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return n_; }
    bool empty() const { return n_ == 0; }
    std::size_t bytes() const { return n_ * sizeof(T); }
    Context& context() const { return *context_; }

    void copy_in(const T* host, std::size_t n, std::size_t at = 0) { context_->copy_in(data_ + at, host, n * sizeof(T)); }
    void copy_out(T* host, std::size_t n, std::size_t at = 0) const { context_->copy_out(host, data_ + at, n * sizeof(T)); }
    std::vector<T> to_host() const {
        std::vector<T> out(n_);
        if (n_ > 0) copy_out(out.data(), n_);
        return out;
    }
    void fill(int byte) { context_->fill(data_, byte, bytes()); }

private:
    void swap(DeviceArray& other) noexcept {
        std::swap(context_, other.context_);
        std::swap(data_, other.data_);
        std::swap(n_, other.n_);
    }

    Context* context_ = nullptr;
    T* data_ = nullptr;
    std::size_t n_ = 0;
};

}  // namespace residua::cuda
