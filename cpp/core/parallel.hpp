// SPDX-License-Identifier: Apache-2.0
// The only place where threads start. Threads live for one call: none at import, none left behind
// for fork() to lose, nothing to configure. Work is handed out in chunks of fixed boundaries, so
// what a chunk computes never depends on the number of threads.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>

namespace residua {

// CPUs this process may use: affinity mask and cgroup quota, at most RESIDUA_NUM_THREADS.
int default_num_threads();

// 0 means default_num_threads(); an explicit value wins.
int resolve_num_threads(int requested);

// Calls fn(begin, end, worker) for consecutive chunks of `grain` items of [0, n), on at most
// num_threads threads including the caller; worker is in [0, num_threads). The first exception is
// carried to the caller after all threads have stopped. Between chunks the calling thread polls the
// interrupt hook and throws Interrupted when it returns true.
void parallel_for(std::size_t n, std::size_t grain, int num_threads,
                  const std::function<void(std::size_t, std::size_t, int)>& fn);

// Installed by the bindings; called only on threads that entered parallel_for from outside, at most
// about 20 times per second.
void set_interrupt_hook(bool (*hook)());

// For loops of many short parallel_for, each of which ends before it would poll. Keep one for the loop and
// use it on the thread that entered the library.
class InterruptPoll {
public:
    // Whether the hook, asked at most every 50 ms, wants to stop.
    bool due();
    void check();  // throws Interrupted when it does

private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace residua
