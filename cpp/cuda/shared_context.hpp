// SPDX-License-Identifier: Apache-2.0
// A context that objects and threads share: one at a time does work on it.
#pragma once

#include <mutex>
#include <utility>

#include "cuda/runtime.hpp"

namespace residua::cuda {

// Leaves the calling thread the device that was current before, as other libraries rely on it.
class KeptDevice {
public:
    KeptDevice() : before_(current_device()) {}
    ~KeptDevice() { make_current(before_); }
    KeptDevice(const KeptDevice&) = delete;
    KeptDevice& operator=(const KeptDevice&) = delete;

private:
    int before_;
};

class SharedContext {
public:
    SharedContext(int device, std::size_t memory_limit, StreamHandle stream) : SharedContext(device, memory_limit, stream, KeptDevice()) {}

    int device() const { return context_.device(); }
    StreamHandle stream() const { return context_.stream(); }
    std::size_t limit() const { return context_.limit(); }
    const DeviceInfo& info() const { return context_.info(); }

    // Calls work(context) while no other thread does anything on it. Not from within another call.
    template <class Work>
    auto use(Work&& work) {
        const std::lock_guard lock(mutex_);
        const KeptDevice kept;
        context_.enter();
        return std::forward<Work>(work)(context_);
    }

private:
    SharedContext(int device, std::size_t memory_limit, StreamHandle stream, const KeptDevice&)
        : context_(device, memory_limit, stream) {}

    Context context_;
    std::mutex mutex_;
};

}  // namespace residua::cuda
