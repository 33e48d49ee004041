// SPDX-License-Identifier: Apache-2.0
// Device code on the CPU (cuda/simt.hpp has the meaning of each function, and includes this): the threads of a block
// are fibers that run in turn, each from one barrier or warp operation to the next; blocks run one after the other.
// What it shows is that kernels compute the right thing with the barriers that they have. It cannot show what a real
// device does where one is missing, but as the order of the threads changes with every turn, many of those fail here too.
#pragma once

#include <bit>
#include <functional>

#include "core/half.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {
namespace emulation {

struct Position {
    Int3 block, blocks;
    int thread, threads;
    std::uint8_t* shared;
};
const Position& position();

// Runs `threads` fibers of `body` for every block. Throws std::logic_error where threads wait for each other in vain.
void run(const std::function<void()>& body, Int3 blocks, int threads, std::size_t shared_bytes);

// Gives every lane of the warp the values of all its lanes, `bytes` each (at most 16): all[32 * bytes].
void exchange(const void* value, std::size_t bytes, void* all);

template <class T>
void exchange(const T& value, T (&all)[kWarp]) {
    exchange(&value, sizeof value, all);
}

}  // namespace emulation

inline Int3 block_index() { return emulation::position().block; }
inline Int3 grid_blocks() { return emulation::position().blocks; }
inline int thread_index() { return emulation::position().thread; }
inline int block_threads() { return emulation::position().threads; }
inline int lane_index() { return thread_index() % kWarp; }
inline int warp_index() { return thread_index() / kWarp; }
inline std::uint8_t* shared_memory() { return emulation::position().shared; }

void sync_block();
void sync_warp();

template <class T>
T shuffle(T value, int lane) {
    T all[kWarp];
    emulation::exchange(value, all);
    return all[lane];
}
template <class T>
T shuffle_xor(T value, int mask) {
    T all[kWarp];
    emulation::exchange(value, all);
    return all[lane_index() ^ mask];
}
inline std::uint32_t ballot(bool value) {
    bool all[kWarp];
    emulation::exchange(value, all);
    std::uint32_t bits = 0;
    for (int i = 0; i < kWarp; ++i) bits |= std::uint32_t{all[i]} << i;
    return bits;
}

template <class T>
T atomic_add(T* at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
template <class T>
T atomic_max(T* at, T value) {
    const T before = *at;
    if (value > before) *at = value;
    return before;
}

inline int popcount(std::uint32_t v) { return std::popcount(v); }
inline int leading_zeros(std::uint32_t v) { return std::countl_zero(v); }
inline int first_bit(std::uint32_t v) { return std::countr_zero(v); }
inline std::int32_t dot4(std::uint32_t a, std::uint32_t b, std::int32_t sum) {
    for (int i = 0; i < 32; i += 8) {
        sum += static_cast<std::int8_t>(a >> i & 0xFF) * static_cast<std::int8_t>(b >> i & 0xFF);
    }
    return sum;
}
inline float bits_to_float(std::uint32_t v) { return std::bit_cast<float>(v); }
inline std::uint32_t float_to_bits(float v) { return std::bit_cast<std::uint32_t>(v); }
inline float half_to_float(std::uint16_t v) { return float_from_half(v); }
inline std::uint16_t float_to_half(float v) { return half_from_float(v); }
template <class T>
T load_once(const T* at) {
    return *at;
}

void copy_16(void* shared, const void* global, int valid = 16);
void end_copies();
void wait_newest(int groups);
template <int N>
void wait_copies() {
    wait_newest(N);
}

void multiply_bits(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]);
void multiply_bytes(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]);
void multiply_halves(float d[4], const std::uint32_t a[4], const std::uint32_t b[2]);

}  // namespace residua::cuda
