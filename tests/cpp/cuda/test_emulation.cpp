// SPDX-License-Identifier: Apache-2.0
// The vocabulary of device code (cuda/simt.hpp): barriers, warp operations, copies that arrive late, and products of
// tiles. Like all tests of this folder, in the emulation, and compiled by nvcc on the device: arrays are DeviceArrays.
#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "core/half.hpp"
#include "core/random.hpp"
#include "cuda/launch.hpp"

namespace residua::cuda {  // where its names win over those of older CUDA headers
namespace {

// Every thread adds what its neighbour in the next warp wrote.
struct Neighbours {
    static constexpr int kThreads = 96;
    int* out;
    RZ_DEVICE void operator()() const {
        auto* values = reinterpret_cast<int*>(shared_memory());
        values[thread_index()] = thread_index();
        sync_block();
        const int other = values[(thread_index() + 40) % kThreads];
        sync_block();
        values[thread_index()] = other;
        sync_block();
        out[block_index().x * kThreads + thread_index()] = values[(thread_index() + 1) % kThreads];
    }
};

struct MissedBarrier {
    static constexpr int kThreads = 64;
    RZ_DEVICE void operator()() const {
        if (thread_index() < 32) sync_block();
    }
};

struct WarpOperations {
    static constexpr int kThreads = 64;
    std::uint32_t* out;
    RZ_DEVICE void operator()() const {
        int sum = lane_index() + 100 * warp_index();
        for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        const std::uint32_t odd = ballot(lane_index() % 2 == 1);
        out[thread_index()] = static_cast<std::uint32_t>(sum) + (odd == 0xAAAAAAAAu ? 0u : 1u) +
                              static_cast<std::uint32_t>(shuffle(lane_index(), 7)) * 100'000u;
    }
};

struct LateCopy {
    static constexpr int kThreads = 32;
    const std::uint8_t* in;
    std::uint8_t* out;
    bool wait;
    RZ_DEVICE void operator()() const {
        std::uint8_t* shared = shared_memory();
        copy_16(shared + 16 * thread_index(), in + 16 * thread_index(), thread_index() == 3 ? 0 : 16);
        end_copies();
        if (wait) wait_copies<0>();
        sync_block();
        for (int i = 0; i < 16; ++i) out[16 * thread_index() + i] = shared[16 * thread_index() + i];
    }
};

// D = A B of one tile, with words in row-major order: A (16, 8), B (8 columns, 8).
struct TileProduct {
    static constexpr int kThreads = 32;
    const std::uint32_t* a;
    const std::uint32_t* b;
    std::int32_t* bits;
    std::int32_t* bytes;
    float* halves;
    RZ_DEVICE void operator()() const {
        const int g = lane_index() / 4, t = lane_index() % 4;
        const std::uint32_t fa[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
        const std::uint32_t fb[2] = {b[g * 8 + t], b[g * 8 + t + 4]};
        std::int32_t d[4] = {}, e[4] = {};
        float f[4] = {};
        multiply_bits(d, fa, fb);
        multiply_bytes(e, fa, fb);
        multiply_halves(f, fa, fb);
        for (int i = 0; i < 4; ++i) {
            const int at = (g + i / 2 * 8) * 8 + 2 * t + i % 2;
            bits[at] = d[i];
            bytes[at] = e[i];
            halves[at] = f[i];
        }
    }
};

}  // namespace
}  // namespace residua::cuda

using namespace residua;
using namespace residua::cuda;

TEST_CASE("barriers of a block order what its threads write and read") {
    Context context(0);
    DeviceArray<int> out(context, 3 * Neighbours::kThreads, "the test");
    launch(Neighbours{out.data()}, context, {3}, sizeof(int) * Neighbours::kThreads);
    const std::vector<int> found = out.to_host();
    for (int i = 0; i < 3 * Neighbours::kThreads; ++i) CHECK(found[i] == (i % 96 + 41) % 96);
}

TEST_CASE("a barrier that not all threads reach is an error") {
    if (!is_emulated()) return;  // a device waits, or worse
    Context context(0);
    CHECK_THROWS_AS(launch(MissedBarrier{}, context, {1}), std::logic_error);
}

TEST_CASE("warp operations see all lanes") {
    Context context(0);
    DeviceArray<std::uint32_t> out(context, WarpOperations::kThreads, "the test");
    launch(WarpOperations{out.data()}, context, {1});
    const std::vector<std::uint32_t> found = out.to_host();
    for (std::uint32_t i = 0; i < 64; ++i) CHECK(found[i] == 496 + 3200 * (i / 32) + 700'000);
}

TEST_CASE("copies arrive when they are waited for, not before") {
    Context context(0);
    const DeviceArray<std::uint8_t> in(context, std::vector<std::uint8_t>(512, 7), "the test");
    DeviceArray<std::uint8_t> out(context, 512, "the test");
    for (bool wait : {true, false}) {
        if (!wait && !is_emulated()) return;  // a device may be early
        launch(LateCopy{in.data(), out.data(), wait}, context, {1}, 512);
        const std::vector<std::uint8_t> found = out.to_host();
        CHECK(found[0] == (wait ? 7 : 0xA5));
        CHECK(found[48] == (wait ? 0 : 0xA5));
    }
}

TEST_CASE("products of tiles are those of their matrices") {
    Context context(0);
    std::vector<std::uint32_t> a(128), b(64);
    Random random(3);
    // Small integers as float16, so that sums are exact; their bytes are any.
    const auto word = [&] {
        std::uint32_t w = 0;
        for (int i = 0; i < 32; i += 16) {
            w |= std::uint32_t{half_from_float(static_cast<float>(static_cast<int>(random.next() % 33) - 16))} << i;
        }
        return w;
    };
    for (auto& w : a) w = word();
    for (auto& w : b) w = word();
    const DeviceArray<std::uint32_t> device_a(context, a, "the test"), device_b(context, b, "the test");
    DeviceArray<std::int32_t> device_bits(context, 128, "the test"), device_bytes(context, 128, "the test");
    DeviceArray<float> device_halves(context, 128, "the test");
    launch(TileProduct{device_a.data(), device_b.data(), device_bits.data(), device_bytes.data(), device_halves.data()}, context, {1});
    const std::vector<std::int32_t> bits = device_bits.to_host(), bytes = device_bytes.to_host();
    const std::vector<float> halves = device_halves.to_host();
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 8; ++j) {
            std::int32_t n = 0, s = 0;
            float h = 0;
            for (int w = 0; w < 8; ++w) {
                const std::uint32_t x = a[i * 8 + w], y = b[j * 8 + w];
                n += std::popcount(x & y);
                for (int k = 0; k < 32; k += 8) s += static_cast<std::int8_t>(x >> k) * static_cast<std::uint8_t>(y >> k);
                for (int k = 0; k < 32; k += 16) {
                    h += float_from_half(static_cast<std::uint16_t>(x >> k)) * float_from_half(static_cast<std::uint16_t>(y >> k));
                }
            }
            CHECK(bits[i * 8 + j] == n);
            CHECK(bytes[i * 8 + j] == s);
            CHECK(halves[i * 8 + j] == h);
        }
    }
}
