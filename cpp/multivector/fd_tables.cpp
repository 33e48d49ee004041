// SPDX-License-Identifier: Apache-2.0
#include "multivector/fd_tables.hpp"

#include <cmath>
#include <random>

#include "core/random.hpp"

namespace residua::multivector {
namespace {

// libstdc++'s distributions over its mt19937, which other standard libraries draw in other ways.
class GoogleDraw {
public:
    explicit GoogleDraw(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}

    float normal() {  // Marsaglia's polar method in float32, which gives two values at a time
        if (has_saved_) {
            has_saved_ = false;
            return saved_;
        }
        float x, y, r2;
        do {
            x = 2.0f * uniform() - 1.0f;
            y = 2.0f * uniform() - 1.0f;
            r2 = x * x + y * y;
        } while (r2 > 1.0f || r2 == 0.0f);
        const float log = static_cast<float>(std::log(static_cast<double>(r2)));
        const float factor = std::sqrt(-2.0f * log / r2);
        saved_ = x * factor;
        has_saved_ = true;
        return y * factor;
    }
    std::uint32_t below(std::uint32_t bound) {  // Lemire's method
        std::uint64_t product = std::uint64_t{draw()} * bound;
        if (static_cast<std::uint32_t>(product) < bound) {
            const std::uint32_t least = (0u - bound) % bound;
            while (static_cast<std::uint32_t>(product) < least) product = std::uint64_t{draw()} * bound;
        }
        return static_cast<std::uint32_t>(product >> 32);
    }
    // Whether a uniform double of 64 drawn bits is below one half; the second draw is the upper half.
    bool coin() {
        draw();
        return draw() < 0x8000'0000u;
    }

private:
    std::uint32_t draw() { return static_cast<std::uint32_t>(engine_()); }
    float uniform() {
        const float u = static_cast<float>(draw()) * 0x1p-32f;
        return u < 1.0f ? u : std::nextafter(1.0f, 0.0f);
    }

    std::mt19937 engine_;
    float saved_ = 0.0f;
    bool has_saved_ = false;
};

// Own numbers: every (seed, purpose, repetition) has a stream of its own.
enum class Stream : std::uint64_t { hyperplanes = 1, projection = 2, final_sketch = 3 };

Random stream(std::uint64_t seed, Stream purpose, std::size_t rep) {
    Random mix(seed);
    Random purposes(mix.next() ^ static_cast<std::uint64_t>(purpose));
    Random repetitions(purposes.next() + rep);
    return Random(repetitions.next());
}

struct OwnDraw {
    Random rng;

    float normal() {  // Box and Muller's cosine
        const double u = 1.0 - rng.uniform();
        const double angle = 6.283185307179586 * rng.uniform();
        return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(angle));
    }
    std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(rng.below(bound)); }
    bool coin() { return rng.next() >> 63 != 0; }
};

template <class Draw>
void draw_normals(Draw draw, float* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = draw.normal();
}

template <class Draw>
void draw_sketch(Draw draw, std::size_t bound, std::size_t n, std::uint32_t* column, std::int8_t* sign) {
    for (std::size_t i = 0; i < n; ++i) {
        column[i] = draw.below(static_cast<std::uint32_t>(bound));
        sign[i] = draw.coin() ? 1 : -1;
    }
}

template <class Draw>
void draw_final(Draw draw, std::size_t bound, std::vector<std::uint32_t>& out) {
    for (std::uint32_t& entry : out) {
        const std::uint32_t column = draw.below(static_cast<std::uint32_t>(bound));
        entry = 2 * column + (draw.coin() ? 0u : 1u);
    }
}

}  // namespace

FdTables make_tables(const FdParams& p) {
    FdTables t;
    t.hyperplanes.resize(p.reps * p.k_sim * p.dim);
    if (p.proj == Projection::count_sketch) {
        t.column.resize(p.reps * p.dim);
        t.sign.resize(p.reps * p.dim);
    } else if (p.proj == Projection::dense) {
        t.sign.resize(p.reps * p.proj_dim * p.dim);
    }
    for (std::size_t r = 0; r < p.reps; ++r) {
        float* planes = t.hyperplanes.data() + r * p.k_sim * p.dim;
        if (p.compat == Compat::google) {
            // Both start from the same seed there.
            draw_normals(GoogleDraw(p.seed + r), planes, p.k_sim * p.dim);
            if (p.proj == Projection::count_sketch) {
                draw_sketch(GoogleDraw(p.seed + r), p.proj_dim, p.dim, t.column.data() + r * p.dim,
                            t.sign.data() + r * p.dim);
            }
            continue;
        }
        draw_normals(OwnDraw{stream(p.seed, Stream::hyperplanes, r)}, planes, p.k_sim * p.dim);
        OwnDraw draw{stream(p.seed, Stream::projection, r)};
        if (p.proj == Projection::count_sketch) {
            draw_sketch(draw, p.proj_dim, p.dim, t.column.data() + r * p.dim, t.sign.data() + r * p.dim);
        } else if (p.proj == Projection::dense) {
            std::int8_t* sign = t.sign.data() + r * p.proj_dim * p.dim;
            for (std::size_t i = 0; i < p.proj_dim * p.dim; ++i) sign[i] = draw.coin() ? 1 : -1;
        }
    }
    return t;
}

std::vector<std::uint32_t> make_final_sketch(const FdParams& p) {
    std::vector<std::uint32_t> out(p.final_dim != 0 ? p.wide_dim() : 0);
    if (p.compat == Compat::google) {
        draw_final(GoogleDraw(p.seed), p.final_dim, out);
    } else {
        draw_final(OwnDraw{stream(p.seed, Stream::final_sketch, 0)}, p.final_dim, out);
    }
    return out;
}

}  // namespace residua::multivector
