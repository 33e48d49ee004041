// SPDX-License-Identifier: Apache-2.0
// Keeps an object as it is while a file shows its memory: others may read it, and changes wait. To be released by
// the thread that made it.
#pragma once

#include <mutex>
#include <shared_mutex>

#include "core/fair_mutex.hpp"

namespace residua {

class HeldStill {
public:
    // `writing` excludes changes and comes first: a change that waited for `lock` would keep readers waiting, too.
    HeldStill(std::mutex& writing, FairMutex& lock) : writing_(writing), lock_(lock) {}

private:
    std::lock_guard<std::mutex> writing_;
    std::shared_lock<FairMutex> lock_;
};

}  // namespace residua
