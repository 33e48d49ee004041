// SPDX-License-Identifier: Apache-2.0
// A shared mutex under which a change that waits comes before searches that start later: where searches
// overlap without end, it would otherwise wait for ever.
#pragma once

#include <mutex>
#include <shared_mutex>

namespace residua {

// Not to be taken twice by one thread, not shared either.
class FairMutex {
public:
    void lock() {
        const std::lock_guard gate(gate_);
        mutex_.lock();
    }
    bool try_lock() {
        const std::unique_lock gate(gate_, std::try_to_lock);
        return gate.owns_lock() && mutex_.try_lock();
    }
    void unlock() { mutex_.unlock(); }
    void lock_shared() {
        const std::lock_guard gate(gate_);
        mutex_.lock_shared();
    }
    bool try_lock_shared() {
        const std::unique_lock gate(gate_, std::try_to_lock);
        return gate.owns_lock() && mutex_.try_lock_shared();
    }
    void unlock_shared() { mutex_.unlock_shared(); }

private:
    std::mutex gate_;  // held while a change waits
    std::shared_mutex mutex_;
};

}  // namespace residua
