// SPDX-License-Identifier: Apache-2.0
#include "core/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "core/cpu_quota.hpp"
#include "core/error.hpp"

namespace residua {
namespace {

std::atomic<bool (*)()> g_interrupt_hook{nullptr};

int affinity_cpus() {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

bool InterruptPoll::due() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return false;
    last_ = now;
    const auto hook = g_interrupt_hook.load(std::memory_order_relaxed);
    return hook != nullptr && hook();
}

void InterruptPoll::check() {
    if (due()) throw Interrupted();
}

int default_num_threads() {
    int n = std::min(affinity_cpus(), current_cpu_quota());
    if (const char* env = std::getenv("RESIDUA_NUM_THREADS"); env != nullptr && *env != '\0') {
        int cap = 0;
        auto [end, ec] = std::from_chars(env, env + std::strlen(env), cap);
        if (ec != std::errc{} || *end != '\0' || cap < 1) {
            throw Error(ErrorKind::value,
                        std::string("RESIDUA_NUM_THREADS must be a whole number of at least 1, got '") + env + "'");
        }
        n = std::min(n, cap);
    }
    return n;
}

int resolve_num_threads(int requested) { return requested > 0 ? requested : default_num_threads(); }

void set_interrupt_hook(bool (*hook)()) { g_interrupt_hook.store(hook); }

void parallel_for(std::size_t n, std::size_t grain, int num_threads,
                  const std::function<void(std::size_t, std::size_t, int)>& fn) {
    if (n == 0) return;
    grain = std::max<std::size_t>(1, grain);
    const std::size_t chunks = (n - 1) / grain + 1;
    const int workers = static_cast<int>(std::min<std::size_t>(chunks, std::max(1, num_threads)));

    std::atomic<std::size_t> next{0};
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    std::mutex error_mutex;

    auto run = [&](int worker, InterruptPoll* poll) {
        try {
            while (!stop.load(std::memory_order_relaxed)) {
                const std::size_t c = next.fetch_add(1, std::memory_order_relaxed);
                if (c >= chunks) return;
                fn(c * grain, std::min(n, (c + 1) * grain), worker);
                if (poll != nullptr && c + 1 < chunks && poll->due()) throw Interrupted();
            }
        } catch (...) {
            std::lock_guard lock(error_mutex);
            if (!error) error = std::current_exception();
            stop.store(true, std::memory_order_relaxed);
        }
    };

    std::vector<std::thread> threads;
    threads.reserve(static_cast<std::size_t>(workers - 1));
    for (int w = 1; w < workers; ++w) {
        try {
            threads.emplace_back(run, w, nullptr);
        } catch (const std::exception&) {
            break;  // no thread or no memory for one: fewer than asked for are slower, never wrong
        }
    }
    InterruptPoll poll;
    run(0, &poll);
    for (auto& t : threads) t.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace residua
