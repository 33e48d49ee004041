// SPDX-License-Identifier: Apache-2.0
// Checked jumps refuse to leave one stack for another.
#undef _FORTIFY_SOURCE

#include "cuda/emulation.hpp"

#include <csetjmp>
#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define RZ_FIBERS_OF_ASAN 1
#endif

namespace residua::cuda {
namespace emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{96} << 10;
constexpr std::size_t kLargestValue = 16;

struct Copy {
    void* to;
    const void* from;
    std::size_t valid;
    int group;
};

// Threads that meet: who comes last lets all go on.
struct Meeting {
    int arrived = 0;
    std::uint64_t held = 0;  // meetings so far
};

struct Fiber {
    ucontext_t context;  // of its first turn; later ones jump, which needs no system call
    std::jmp_buf place;
    bool started = false;
    std::unique_ptr<std::uint8_t[]> stack;
    int thread = 0;
    bool done = false;
    std::vector<Copy> copies;
    int copy_groups = 0;
};

struct Warp {
    Meeting meeting;
    alignas(16) std::uint8_t values[kWarp * kLargestValue];
};

struct Block {
    Position position{};
    ucontext_t before;
    std::jmp_buf scheduler;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Meeting meeting;
    Fiber* running = nullptr;
    const std::function<void()>* body = nullptr;
    std::exception_ptr error;
    bool moved = false;  // whether some thread got on since the scheduler last looked
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
};

thread_local Block* block = nullptr;

void leave(bool for_good) {
#ifdef RZ_FIBERS_OF_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, block->scheduler_stack, block->scheduler_stack_bytes);
#else
    static_cast<void>(for_good);
#endif
    if (_setjmp(block->running->place) == 0) _longjmp(block->scheduler, 1);
#ifdef RZ_FIBERS_OF_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void resume(Fiber& fiber) {
    block->running = &fiber;
    block->position.thread = fiber.thread;
#ifdef RZ_FIBERS_OF_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStackBytes);
#endif
    if (_setjmp(block->scheduler) == 0) {
        if (fiber.started) _longjmp(fiber.place, 1);
        fiber.started = true;
        swapcontext(&block->before, &fiber.context);
    }
#ifdef RZ_FIBERS_OF_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void start() {
#ifdef RZ_FIBERS_OF_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_bytes);
#endif
    try {
        (*block->body)();
    } catch (...) {
        block->error = std::current_exception();
    }
    block->running->done = true;
    block->moved = true;
    leave(true);
}

void meet(Meeting& meeting, int members) {
    const std::uint64_t number = meeting.held;
    if (++meeting.arrived == members) {
        meeting.arrived = 0;
        ++meeting.held;
        block->moved = true;
        return;
    }
    while (meeting.held == number) leave(false);
}

// All threads once more, in an order that changes: forwards or backwards, from some thread on.
bool turn(std::size_t number) {
    const std::size_t n = block->fibers.size();
    bool alive = false;
    for (std::size_t i = 0; i < n && !block->error; ++i) {
        const std::size_t at = (number * 37 + i) % n;
        Fiber& fiber = block->fibers[number % 2 == 0 ? at : n - 1 - at];
        if (fiber.done) continue;
        resume(fiber);
        alive = alive || !fiber.done;
    }
    return alive;
}

void prepare(Block& state, int threads) {
    state.warps.assign(static_cast<std::size_t>(threads / kWarp), {});
    state.meeting = {};
    for (int t = 0; t < threads; ++t) {
        Fiber& fiber = state.fibers[static_cast<std::size_t>(t)];
        fiber.thread = t;
        fiber.done = fiber.started = false;
        fiber.copies.clear();
        fiber.copy_groups = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack = {};
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
    }
}

}  // namespace

const Position& position() { return block->position; }

void run(const std::function<void()>& body, Int3 blocks, int threads, std::size_t shared_bytes) {
    if (threads <= 0 || threads % kWarp != 0) throw std::logic_error("a block has whole warps");
    Block state;
    std::vector<Pack16> shared(shared_bytes / sizeof(Pack16) + 9);
    auto* first = reinterpret_cast<std::uint8_t*>(shared.data());
    first += (128 - reinterpret_cast<std::uintptr_t>(first) % 128) % 128;
    state.fibers.resize(static_cast<std::size_t>(threads));
    for (Fiber& fiber : state.fibers) fiber.stack = std::make_unique_for_overwrite<std::uint8_t[]>(kStackBytes);
    state.body = &body;
    Block* const outer = block;
    for (unsigned z = 0; z < blocks.z; ++z) {
        for (unsigned y = 0; y < blocks.y; ++y) {
            for (unsigned x = 0; x < blocks.x && !state.error; ++x) {
                state.position = {{x, y, z}, blocks, 0, threads, first};
                // What no thread has written is not to be read.
                std::fill_n(first, shared_bytes, std::uint8_t{0xA5});
                prepare(state, threads);
                block = &state;
                for (std::size_t number = 0;; ++number) {
                    state.moved = false;
                    if (!turn(number) || state.error) break;
                    if (!state.moved) {
                        state.error = std::make_exception_ptr(
                            std::logic_error("threads of a block wait for each other: not all of them reach the same barrier"));
                        break;
                    }
                }
                block = outer;
            }
        }
    }
    if (state.error) std::rethrow_exception(state.error);
}

void exchange(const void* value, std::size_t bytes, void* all) {
    Warp& warp = block->warps[static_cast<std::size_t>(warp_index())];
    if (bytes > kLargestValue) throw std::logic_error("values of at most 16 bytes can be exchanged");
    std::memcpy(warp.values + static_cast<std::size_t>(lane_index()) * bytes, value, bytes);
    sync_warp();
    std::memcpy(all, warp.values, kWarp * bytes);
    sync_warp();
}

namespace {

// Fragments of the warp as matrices: A is (16, 8) words, B (8 columns, 8 words of depth).
struct Tile {
    std::uint32_t a[16][8];
    std::uint32_t b[8][8];
};

Tile gather(const std::uint32_t a[4], const std::uint32_t b[2]) {
    Pack16 all_a[kWarp];
    Pack8 all_b[kWarp];
    exchange(Pack16{{a[0], a[1], a[2], a[3]}}, all_a);
    exchange(Pack8{{b[0], b[1]}}, all_b);
    Tile tile;
    for (int lane = 0; lane < kWarp; ++lane) {
        const int g = lane / 4, t = lane % 4;
        tile.a[g][t] = all_a[lane].word[0];
        tile.a[g + 8][t] = all_a[lane].word[1];
        tile.a[g][t + 4] = all_a[lane].word[2];
        tile.a[g + 8][t + 4] = all_a[lane].word[3];
        tile.b[g][t] = all_b[lane].word[0];
        tile.b[g][t + 4] = all_b[lane].word[1];
    }
    return tile;
}

template <class T, class Product>
void add_products(T d[4], const std::uint32_t a[4], const std::uint32_t b[2], Product product) {
    const Tile tile = gather(a, b);
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int i = 0; i < 4; ++i) {
        for (int w = 0; w < 8; ++w) d[i] = product(d[i], tile.a[g + i / 2 * 8][w], tile.b[2 * t + i % 2][w]);
    }
}

}  // namespace
}  // namespace emulation

void sync_warp() {
    using namespace emulation;
    meet(block->warps[static_cast<std::size_t>(warp_index())].meeting, kWarp);
}

void sync_block() {
    using namespace emulation;
    meet(block->meeting, block->position.threads);
}

void copy_16(void* shared, const void* global, int valid) {
    emulation::Fiber& fiber = *emulation::block->running;
    fiber.copies.push_back({shared, global, static_cast<std::size_t>(valid), fiber.copy_groups});
}

void end_copies() { ++emulation::block->running->copy_groups; }

void wait_newest(int groups) {
    emulation::Fiber& fiber = *emulation::block->running;
    std::erase_if(fiber.copies, [&](const emulation::Copy& copy) {
        if (copy.group >= fiber.copy_groups - groups) return false;
        std::memset(copy.to, 0, 16);
        std::memcpy(copy.to, copy.from, copy.valid);
        return true;
    });
}

void multiply_bits(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    emulation::add_products(d, a, b, [](std::int32_t sum, std::uint32_t x, std::uint32_t y) { return sum + popcount(x & y); });
}

void multiply_bytes(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    emulation::add_products(d, a, b, [](std::int32_t sum, std::uint32_t x, std::uint32_t y) {
        for (int i = 0; i < 32; i += 8) {
            sum += static_cast<std::int8_t>(x >> i & 0xFF) * static_cast<std::uint8_t>(y >> i & 0xFF);
        }
        return sum;
    });
}

void multiply_halves(float d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    emulation::add_products(d, a, b, [](float sum, std::uint32_t x, std::uint32_t y) {
        for (int i = 0; i < 32; i += 16) {
            sum += half_to_float(static_cast<std::uint16_t>(x >> i)) * half_to_float(static_cast<std::uint16_t>(y >> i));
        }
        return sum;
    });
}

}  // namespace residua::cuda
