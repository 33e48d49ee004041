// SPDX-License-Identifier: Apache-2.0
// How far a long call is, for whoever made it: a listener of this thread, for the time of a scope.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

namespace residua {

// (done, total); what it throws ends the call.
using Progress = std::function<void(std::size_t, std::size_t)>;

class ProgressScope {
public:
    explicit ProgressScope(Progress listener) : listener_(std::move(listener)), before_(current()) { current() = &listener_; }
    ~ProgressScope() { current() = before_; }
    ProgressScope(const ProgressScope&) = delete;
    ProgressScope& operator=(const ProgressScope&) = delete;

    // From the thread of the call; without a listener nothing happens.
    static void report(std::size_t done, std::size_t total) {
        if (current() != nullptr && *current()) (*current())(done, total);
    }

private:
    static const Progress*& current() {
        thread_local const Progress* listener = nullptr;
        return listener;
    }

    Progress listener_;
    const Progress* before_;
};

}  // namespace residua
