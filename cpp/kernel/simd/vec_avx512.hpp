// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary on AVX-512 as Ice Lake and Zen 4 have it (the line of avx512 in
// CMakeLists.txt). Include from an ISA translation unit only.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own header starts "undefined" vectors from themselves, and then warns of it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>

#include "kernel/plane_kernels.hpp"

namespace residua::kernel {
namespace {

// float32
// `_n` forms touch the first n < kLanes elements only; loads fill the rest with zero.

struct F32 {
    static constexpr std::size_t kLanes = 16;
    __m512 v;
};

inline __mmask16 first_lanes(std::size_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline F32 f32_zero() { return {_mm512_setzero_ps()}; }
inline F32 f32_set(float x) { return {_mm512_set1_ps(x)}; }
inline F32 f32_load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32 f32_load_n(const float* p, std::size_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void f32_store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
inline void f32_store_n(float* p, F32 a, std::size_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }

inline F32 f32_load_f16(const std::uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline F32 f32_load_f16_n(const std::uint16_t* p, std::size_t n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
}
// Round to nearest even.
inline void f32_store_f16(std::uint16_t* p, F32 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void f32_store_f16_n(std::uint16_t* p, F32 a, std::size_t n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

inline F32 f32_from_bf16(__m256i x) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))};
}
inline F32 f32_load_bf16(const std::uint16_t* p) {
    return f32_from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F32 f32_load_bf16_n(const std::uint16_t* p, std::size_t n) {
    return f32_from_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

inline F32 f32_load_i8(const std::int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F32 f32_load_i8_n(const std::int8_t* p, std::size_t n) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p)))};
}

inline F32 f32_add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 f32_sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 f32_mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 f32_fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a * b + c
inline F32 f32_fnma(F32 a, F32 b, F32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a * b

// Bit i is set when lane i of a is larger than that of b.
inline std::uint32_t f32_above(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }

inline float f32_sum(F32 a) { return _mm512_reduce_add_ps(a.v); }

// Where x > best: best = x and its label = l.
inline void f32_keep_larger(F32 x, F32 l, F32& best, F32& label) {
    const __mmask16 larger = _mm512_cmp_ps_mask(x.v, best.v, _CMP_GT_OQ);
    best.v = _mm512_mask_mov_ps(best.v, larger, x.v);
    label.v = _mm512_mask_mov_ps(label.v, larger, l.v);
}

inline float f32_max_lane(F32 a) { return _mm512_reduce_max_ps(a.v); }
// The smallest lane of a where b == x; +infinity when there is none.
inline float f32_min_lane_where(F32 a, F32 b, float x) {
    const __mmask16 equal = _mm512_cmp_ps_mask(b.v, _mm512_set1_ps(x), _CMP_EQ_OQ);
    return _mm512_reduce_min_ps(_mm512_mask_mov_ps(_mm512_set1_ps(__builtin_inff()), equal, a.v));
}

// In place: lane j of rows[i] and lane i of rows[j] change places.
inline void f32_transpose(F32 (&rows)[F32::kLanes]) {
    // 4 x 4 blocks within the quarters of the registers, then the quarters themselves.
    __m512 u[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512 a = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
        const __m512 b = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
        const __m512 c = _mm512_unpacklo_ps(rows[i + 2].v, rows[i + 3].v);
        const __m512 d = _mm512_unpackhi_ps(rows[i + 2].v, rows[i + 3].v);
        u[i] = _mm512_shuffle_ps(a, c, 0x44);
        u[i + 1] = _mm512_shuffle_ps(a, c, 0xEE);
        u[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        u[i + 3] = _mm512_shuffle_ps(b, d, 0xEE);
    }
    for (int i = 0; i < 4; ++i) {
        const __m512 a = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
        const __m512 b = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xDD);
        const __m512 c = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
        const __m512 d = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xDD);
        rows[i].v = _mm512_shuffle_f32x4(a, c, 0x88);
        rows[i + 4].v = _mm512_shuffle_f32x4(b, d, 0x88);
        rows[i + 8].v = _mm512_shuffle_f32x4(a, c, 0xDD);
        rows[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}

// float64: as many lanes as F32 has, in two registers; lane i is lane i of the F32 it came from.

struct F64 {
    __m512d lo, hi;
};

inline F64 f64_zero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
inline F64 f64_set(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
inline F64 f64_widen(F32 a) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))};
}
inline F64 f64_add(F64 a, F64 b) { return {_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)}; }
inline F64 f64_sub(F64 a, F64 b) { return {_mm512_sub_pd(a.lo, b.lo), _mm512_sub_pd(a.hi, b.hi)}; }
inline F64 f64_mul(F64 a, F64 b) { return {_mm512_mul_pd(a.lo, b.lo), _mm512_mul_pd(a.hi, b.hi)}; }
inline F64 f64_fma(F64 a, F64 b, F64 c) {
    return {_mm512_fmadd_pd(a.lo, b.lo, c.lo), _mm512_fmadd_pd(a.hi, b.hi, c.hi)};
}
inline void f64_store(double* p, F64 a) {
    _mm512_storeu_pd(p, a.lo);
    _mm512_storeu_pd(p + 8, a.hi);
}

}  // namespace
}  // namespace residua::kernel
namespace residua::kernel {
namespace {

// integers

// Four strips of the plane layout (kernel/plane_kernels.hpp), or the tables of four strips.
using Bytes = __m512i;
inline constexpr std::size_t kVecStrips = 4;

inline constexpr float kCellsFrom = 2.0f;  // planes per group

inline Bytes load_bytes(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
inline void prefetch(const std::uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
inline Bytes low_nibbles(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
// A product with a bit matrix: shift and mask in one instruction.
inline Bytes high_nibbles(Bytes x) {
    return _mm512_gf2p8affine_epi64_epi8(x, _mm512_set1_epi64(0x1020408000000000), 0);
}
inline Bytes look_up(Bytes tables, Bytes index) { return _mm512_shuffle_epi8(tables, index); }
inline Bytes add_bytes(Bytes x, Bytes y) { return _mm512_add_epi8(x, y); }

// 32-bit sums of 32 rows: rows 0 … 15, 16 … 31.
struct RowsI32 {
    __m512i v[2];
};
inline RowsI32 zero_rows() { return {{_mm512_setzero_si512(), _mm512_setzero_si512()}}; }
inline RowsI32 add_rows(const RowsI32& x, const RowsI32& y) {
    return {{_mm512_add_epi32(x.v[0], y.v[0]), _mm512_add_epi32(x.v[1], y.v[1])}};
}
inline void store_rows(const RowsI32& x, std::int32_t* out) {
    _mm512_storeu_si512(out, x.v[0]);
    _mm512_storeu_si512(out + 16, x.v[1]);
}

// 16-bit sums of 32 rows, the four strips of a vector still apart: `low` rows 0 … 15, `high` rows
// 16 … 31. The sums of even bytes carry 256 times the odd ones, modulo 2^16, until they are widened:
// that saves a mask per addition.
struct RowsU16 {
    __m512i low_even, low_odd, high_even, high_odd;

    void clear() { low_even = low_odd = high_even = high_odd = _mm512_setzero_si512(); }
    void add(Bytes low, Bytes high) {
        low_even = _mm512_add_epi16(low_even, low);
        low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16(low, 8));
        high_even = _mm512_add_epi16(high_even, high);
        high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16(high, 8));
    }
    void twice() {
        low_even = _mm512_add_epi16(low_even, low_even);
        low_odd = _mm512_add_epi16(low_odd, low_odd);
        high_even = _mm512_add_epi16(high_even, high_even);
        high_odd = _mm512_add_epi16(high_odd, high_odd);
    }
};
inline __m512i add_halves(__m512i x) {
    return _mm512_add_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)),
                            _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)));
}
// 16 rows: `even` holds rows 0, 2, … of four strips and what the odd ones carried into them.
inline __m512i add_strips(__m512i even, __m512i odd) {
    even = _mm512_sub_epi16(even, _mm512_slli_epi16(odd, 8));
    const __m512i a = add_halves(_mm512_unpacklo_epi16(even, odd));
    const __m512i b = add_halves(_mm512_unpackhi_epi16(even, odd));
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xEE));
}
inline RowsI32 widen(const RowsU16& x) {
    return {{add_strips(x.low_even, x.low_odd), add_strips(x.high_even, x.high_odd)}};
}
// The same where the sum of a row over all strips stays below 2^16.
inline RowsI32 widen_small(const RowsU16& x) {
    const __m512i low = _mm512_add_epi16(_mm512_shuffle_i64x2(x.low_even, x.low_odd, 0x44),
                                         _mm512_shuffle_i64x2(x.low_even, x.low_odd, 0xEE));
    const __m512i high = _mm512_add_epi16(_mm512_shuffle_i64x2(x.high_even, x.high_odd, 0x44),
                                          _mm512_shuffle_i64x2(x.high_even, x.high_odd, 0xEE));
    // Quarters: even and odd of rows 0 … 15, even and odd of rows 16 … 31.
    __m512i rows = _mm512_add_epi16(_mm512_shuffle_i64x2(low, high, 0x88), _mm512_shuffle_i64x2(low, high, 0xDD));
    const __m512i carried = _mm512_slli_epi16(rows, 8);
    rows = _mm512_sub_epi16(rows, _mm512_maskz_shuffle_i64x2(0x33, carried, carried, 0xF5));
    const __m512i order = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i second = _mm512_add_epi32(order, _mm512_set1_epi32(16));
    return {{_mm512_maskz_permutexvar_epi16(0x55555555, order, rows),
             _mm512_maskz_permutexvar_epi16(0x55555555, second, rows)}};
}

// What turns the sums of the 32 rows of a block into bounds: `add` points to 32 float32, `scale` to
// 32 float16.
struct RowFactors {
    __m512 add[2], scale[2];
};
inline RowFactors load_factors(const std::uint8_t* add, const std::uint8_t* scale) {
    RowFactors f;
    for (int i = 0; i < 2; ++i) {
        f.add[i] = _mm512_loadu_ps(add + 64 * i);
        f.scale[i] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scale) + i));
    }
    return f;
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold.
inline std::uint32_t rows_reaching(const RowsI32& sums, float unit, float upper, const RowFactors& factors,
                                   float threshold) {
    const __m512 u = _mm512_set1_ps(unit), c = _mm512_set1_ps(upper), limit = _mm512_set1_ps(threshold);
    std::uint32_t mask = 0;
    for (int i = 0; i < 2; ++i) {
        const __m512 inner = _mm512_add_ps(_mm512_mul_ps(u, _mm512_cvtepi32_ps(sums.v[i])), c);
        const __m512 bound = _mm512_add_ps(_mm512_mul_ps(factors.scale[i], inner), factors.add[i]);
        mask |= std::uint32_t{_mm512_cmp_ps_mask(bound, limit, _CMP_GE_OQ)} << (16 * i);
    }
    return mask;
}

// Bit j is set when values[j] <= limit, for 32 values.
inline std::uint32_t rows_at_most(const std::int32_t* values, std::int32_t limit) {
    const __m512i l = _mm512_set1_epi32(limit);
    return std::uint32_t{_mm512_cmple_epi32_mask(_mm512_loadu_si512(values), l)} |
           std::uint32_t{_mm512_cmple_epi32_mask(_mm512_loadu_si512(values + 16), l)} << 16;
}

// The values of 4 dims of all rows, a byte each, from their strips in planes 0 … planes - 1. A byte of a strip holds
// 4 dims of rows j and j + 16: with one such byte of 8 planes in a lane, last plane first, a product with a bit
// matrix has the planes of each dim in a byte.
inline void spread_strips(const std::uint8_t* const* strips, std::uint32_t planes, std::uint8_t* cells) {
    const auto plane = [&](std::uint32_t t) {
        return t < planes ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(strips[t])) : _mm_setzero_si128();
    };
    const auto four = [&](std::uint32_t t) {
        const __m256i first = _mm256_inserti128_si256(_mm256_castsi128_si256(plane(t)), plane(t + 1), 1);
        const __m256i second = _mm256_inserti128_si256(_mm256_castsi128_si256(plane(t + 2)), plane(t + 3), 1);
        return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
    };
    const __m512i low_planes = four(0), high_planes = planes > 4 ? four(4) : _mm512_setzero_si512();
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i of_lane = _mm512_shuffle_epi8(lane, _mm512_set4_epi32(0x08080808, 0x08080808, 0, 0));
    const __m512i index = _mm512_add_epi8(of_lane, _mm512_set1_epi64(0x0010203040506070));  // 16 * plane + byte
    const __m512i dims = _mm512_set1_epi64(0x1020408001020408);                             // a bit of the byte each
    const auto spread = [&](__m512i at) {
        return _mm512_gf2p8affine_epi64_epi8(dims, _mm512_permutex2var_epi8(low_planes, at, high_planes), 0);
    };
    const __m512i first = spread(index), second = spread(_mm512_add_epi8(index, _mm512_set1_epi8(8)));
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    _mm512_storeu_si512(cells, _mm512_permutex2var_epi32(first, even, second));
    _mm512_storeu_si512(cells + 64, _mm512_permutex2var_epi32(first, odd, second));
}

// Entry x of the tables of one strip, whose weights are w, for all x. Bit x of a mask: whether x has the dim's bit.
inline void fill_strip(const std::int32_t* w, std::int32_t range, float inverse, std::uint8_t* coarse,
                       std::uint8_t* low, std::uint8_t* high, StripTable& out) {
    __m512i value = _mm512_set1_epi32(-out.low);
    value = _mm512_mask_add_epi32(value, 0xFF00, value, _mm512_set1_epi32(w[0]));
    value = _mm512_mask_add_epi32(value, 0xF0F0, value, _mm512_set1_epi32(w[1]));
    value = _mm512_mask_add_epi32(value, 0xCCCC, value, _mm512_set1_epi32(w[2]));
    value = _mm512_mask_add_epi32(value, 0xAAAA, value, _mm512_set1_epi32(w[3]));
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(value), _mm512_set1_ps(inverse));
    const __m512i entry = _mm512_cvttps_epi32(_mm512_add_ps(scaled, _mm512_set1_ps(0.5f)));
    const __m512i error = _mm512_sub_epi32(_mm512_mullo_epi32(value, _mm512_set1_epi32(kCoarseMax)),
                                           _mm512_mullo_epi32(entry, _mm512_set1_epi32(range)));
    const __m512i low_mask = _mm512_set1_epi32((1 << kExactLowBits) - 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(coarse), _mm512_cvtepi32_epi8(entry));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(_mm512_and_si512(value, low_mask)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(_mm512_srli_epi32(value, kExactLowBits)));
    out.error_sum = _mm512_reduce_add_epi32(error);
    out.error_squares = _mm512_reduce_add_epi32(_mm512_mullo_epi32(error, error));
    out.error_high = _mm512_reduce_max_epi32(error);
    out.error_low = _mm512_reduce_min_epi32(error);
}

// look-ups (kernel/lookup_kernels.hpp)

// Bit r is set when sums[r] >= least.
inline std::uint32_t rows_at_least(const RowsI32& sums, std::int32_t least) {
    const __m512i l = _mm512_set1_epi32(least);
    return std::uint32_t{_mm512_cmpge_epi32_mask(sums.v[0], l)} |
           std::uint32_t{_mm512_cmpge_epi32_mask(sums.v[1], l)} << 16;
}
// A column of two blocks, `step` bytes apart.
inline Bytes load_columns(const std::uint8_t* codes, std::size_t step) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes))),
                              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + step)), 1);
}
// Entries of NQ tables of 256.
template <std::size_t NQ>
inline void look_up_256(const std::uint8_t* const (&tables)[NQ], Bytes codes, Bytes (&out)[NQ]) {
    const __mmask64 upper = _mm512_movepi8_mask(codes);
    for (std::size_t i = 0; i < NQ; ++i) {
        const std::uint8_t* t = tables[i];
        const __m512i low = _mm512_permutex2var_epi8(load_bytes(t), codes, load_bytes(t + 64));
        const __m512i high = _mm512_permutex2var_epi8(load_bytes(t + 128), codes, load_bytes(t + 192));
        out[i] = _mm512_mask_mov_epi8(low, upper, high);
    }
}
// 16-bit sums of the bytes of vectors; even ones carry 256 times the odd ones, modulo 2^16.
struct ByteSums {
    __m512i even, odd;

    void clear() { even = odd = _mm512_setzero_si512(); }
    void add(Bytes x) {
        even = _mm512_add_epi16(even, x);
        odd = _mm512_add_epi16(odd, _mm512_srli_epi16(x, 8));
    }
    // Bit j: of byte j.
    std::uint64_t at_least(std::int32_t least) const {
        const __m512i l = _mm512_set1_epi16(static_cast<short>(least));
        const __m512i own = _mm512_sub_epi16(even, _mm512_slli_epi16(odd, 8));
        return _pdep_u64(_mm512_cmpge_epu16_mask(own, l), 0x5555555555555555u) |
               _pdep_u64(_mm512_cmpge_epu16_mask(odd, l), 0xAAAAAAAAAAAAAAAAu);
    }
};

// scalar codes (kernel/byte_kernels.hpp)

// 32-bit sums of 16 rows, a cell of 4 bytes each.
struct CellSums {
    __m512i v;
};
inline constexpr std::size_t kCellVecs = 2;
inline constexpr std::size_t kCellTile = 8;  // 16 sums

inline CellSums zero_sums() { return {_mm512_setzero_si512()}; }
inline void store_sums(CellSums x, std::int32_t* out) { _mm512_storeu_si512(out, x.v); }
inline Bytes spread_cell(const std::int8_t* w) {
    std::int32_t cell;
    __builtin_memcpy(&cell, w, sizeof cell);
    return _mm512_set1_epi32(cell);
}
// sum += codes (unsigned) * weights (signed), by cells.
inline CellSums add_cells(CellSums sum, Bytes codes, Bytes weights) {
    return {_mm512_dpbusd_epi32(sum.v, codes, weights)};
}
// Four products are summed in one instruction; there are no sums of pairs to join.
using PairSums = CellSums;
inline constexpr bool kJoinsCells = false;
inline constexpr std::size_t kPairTile = kCellTile;
inline PairSums pair_cells(Bytes codes, Bytes weights) { return add_cells(zero_sums(), codes, weights); }
inline PairSums add_pair_cells(PairSums sum, Bytes codes, Bytes weights) { return add_cells(sum, codes, weights); }
inline CellSums widen_pairs(CellSums sum, PairSums x) { return {_mm512_add_epi32(sum.v, x.v)}; }
// The same for two cells of codes up to 15.
inline CellSums add_nibble_cells(CellSums sum, Bytes low, Bytes low_weights, Bytes high, Bytes high_weights) {
    return {_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum.v, low, low_weights), high, high_weights)};
}
// sum += codes * weights, of 16 bits, by cells.
inline CellSums add_fine_cells(CellSums sum, Bytes codes, const std::int16_t* w) {
    const auto pair = [](std::int16_t a, std::int16_t b) {
        return _mm512_set1_epi32(static_cast<std::int32_t>(
            static_cast<std::uint16_t>(a) | static_cast<std::uint32_t>(static_cast<std::uint16_t>(b)) << 16));
    };
    const __m512i even = _mm512_and_si512(codes, _mm512_set1_epi16(255));
    const __m512i odd = _mm512_srli_epi16(codes, 8);
    return {_mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum.v, even, pair(w[0], w[2])), odd, pair(w[1], w[3]))};
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold; `add` and `scale` point
// to float32.
inline std::uint32_t cells_reaching(CellSums sums, float unit, float upper, const std::uint8_t* add,
                                    const std::uint8_t* scale, float threshold) {
    const __m512 inner =
        _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(unit), _mm512_cvtepi32_ps(sums.v)), _mm512_set1_ps(upper));
    const __m512 bound = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(scale), inner), _mm512_loadu_ps(add));
    return _mm512_cmp_ps_mask(bound, _mm512_set1_ps(threshold), _CMP_GE_OQ);
}

// Codes as floats, kUnpackDims at a time.
inline constexpr std::size_t kUnpackDims = 16;

inline void unpack_bytes(__m128i x, F32 (&out)[1]) { out[0].v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)); }
inline void unpack_bytes(const std::uint8_t* p, F32 (&out)[1]) {
    unpack_bytes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), out);
}
inline void unpack_nibbles(const std::uint8_t* p, F32 (&out)[1]) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i mask = _mm_set1_epi8(15);
    unpack_bytes(_mm_unpacklo_epi8(_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16(x, 4), mask)), out);
}

// Pieces of 32 bytes of one row (kernel/row_kernels.hpp).
using PieceBytes = __m256i;
struct PieceSums {
    __m256i v;
};
inline PieceSums piece_zero() { return {_mm256_setzero_si256()}; }
inline PieceBytes piece_load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline PieceBytes piece_load_half(const void* p) {
    return _mm256_zextsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
template <int kWidth>
inline PieceBytes piece_field(PieceBytes x, int shift) {
    return _mm256_and_si256(_mm256_srli_epi16(x, shift), _mm256_set1_epi8(static_cast<char>((1 << kWidth) - 1)));
}
inline PieceSums piece_add(PieceSums x, PieceSums y) { return {_mm256_add_epi32(x.v, y.v)}; }
inline PieceSums piece_shift(PieceSums x, int shift) { return {_mm256_slli_epi32(x.v, shift)}; }
inline std::int32_t piece_total(PieceSums x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}
// pairs += fields (unsigned) * weights (signed), in 32 bits at once.
inline PieceSums piece_multiply(PieceSums pairs, PieceBytes fields, PieceBytes weights) {
    return {_mm256_dpbusd_epi32(pairs.v, fields, weights)};
}
inline PieceSums piece_widen(PieceSums sums, PieceSums pairs) { return piece_add(sums, pairs); }
inline PieceSums piece_multiply_signed(PieceSums sums, PieceBytes x, PieceBytes y) {
    return {_mm256_dpbusd_epi32(sums.v, _mm256_abs_epi8(x), _mm256_sign_epi8(y, x))};
}

// byte sets (kernel/set_kernels.hpp)

struct ByteSet {
    __m512i low, high;  // bits of bytes 0 … 127 and 128 … 255
};
inline ByteSet load_set(const std::uint8_t* set) {
    const auto* p = reinterpret_cast<const __m128i*>(set);
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(p)), _mm512_broadcast_i32x4(_mm_loadu_si128(p + 1))};
}
// Bit j is set when byte j of x is in the set; a shuffle gives zero where the index has bit 7.
inline std::uint64_t bytes_in(Bytes x, const ByteSet& s) {
    const __m512i powers = _mm512_set1_epi64(static_cast<long long>(0x8040201008040201ull));
    const __m512i bit = _mm512_shuffle_epi8(powers, high_nibbles(x));
    const __m512i bits = _mm512_or_si512(_mm512_shuffle_epi8(s.low, x),
                                         _mm512_shuffle_epi8(s.high, _mm512_xor_si512(x, _mm512_set1_epi8(-128))));
    return _mm512_test_epi8_mask(bits, bit);
}

}  // namespace
}  // namespace residua::kernel
