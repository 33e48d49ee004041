// SPDX-License-Identifier: Apache-2.0
// Reproducible random numbers: the standard distributions differ between libraries, these do not.
// splitmix64 (Steele, Lea, Flood 2014).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace residua {

class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    // Uniform in [0, bound); the bias for bounds below 2^32 is under 2^-32.
    std::uint64_t below(std::uint64_t bound) {
        // The upper half of the 128-bit product, in halves of 32 bits: not every compiler has such a type.
        const std::uint64_t a = next();
        const std::uint64_t low = (a & 0xffffffffu) * (bound & 0xffffffffu);
        const std::uint64_t cross = (a >> 32) * (bound & 0xffffffffu) + (low >> 32);
        const std::uint64_t other = (a & 0xffffffffu) * (bound >> 32) + (cross & 0xffffffffu);
        return (a >> 32) * (bound >> 32) + (cross >> 32) + (other >> 32);
    }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

private:
    std::uint64_t state_;
};

// The rows [0, n) in random order.
std::vector<std::size_t> permutation(std::size_t n, std::uint64_t seed);

// `count` distinct rows of [0, n), ascending; all of them when count >= n.
std::vector<std::size_t> sample_rows(std::size_t n, std::size_t count, std::uint64_t seed);

}  // namespace residua
