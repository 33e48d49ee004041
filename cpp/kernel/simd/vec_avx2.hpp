// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary on AVX2 + FMA + F16C. Include from an ISA translation unit only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace residua::kernel {
namespace {

// float32
// `_n` forms touch the first n < kLanes elements only; loads fill the rest with zero.

struct F32 {
    static constexpr std::size_t kLanes = 8;
    __m256 v;
};

inline __m256i f32_mask(std::size_t n) {
    alignas(32) static constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
}

inline F32 f32_zero() { return {_mm256_setzero_ps()}; }
inline F32 f32_set(float x) { return {_mm256_set1_ps(x)}; }
inline F32 f32_load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline F32 f32_load_n(const float* p, std::size_t n) { return {_mm256_maskload_ps(p, f32_mask(n))}; }
inline void f32_store(float* p, F32 a) { _mm256_storeu_ps(p, a.v); }
inline void f32_store_n(float* p, F32 a, std::size_t n) { _mm256_maskstore_ps(p, f32_mask(n), a.v); }

inline F32 f32_load_f16(const std::uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline F32 f32_load_f16_n(const std::uint16_t* p, std::size_t n) {
    alignas(16) std::uint16_t tail[8] = {};
    for (std::size_t i = 0; i < n; ++i) tail[i] = p[i];
    return f32_load_f16(tail);
}
// Round to nearest even.
inline void f32_store_f16(std::uint16_t* p, F32 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void f32_store_f16_n(std::uint16_t* p, F32 a, std::size_t n) {
    alignas(16) std::uint16_t tail[8];
    f32_store_f16(tail, a);
    for (std::size_t i = 0; i < n; ++i) p[i] = tail[i];
}

inline F32 f32_load_bf16(const std::uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
}
inline F32 f32_load_bf16_n(const std::uint16_t* p, std::size_t n) {
    alignas(16) std::uint16_t tail[8] = {};
    for (std::size_t i = 0; i < n; ++i) tail[i] = p[i];
    return f32_load_bf16(tail);
}

inline F32 f32_load_i8(const std::int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline F32 f32_load_i8_n(const std::int8_t* p, std::size_t n) {
    alignas(8) std::int8_t tail[8] = {};
    for (std::size_t i = 0; i < n; ++i) tail[i] = p[i];
    return f32_load_i8(tail);
}

inline F32 f32_add(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 f32_sub(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 f32_mul(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 f32_fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }    // a * b + c
inline F32 f32_fnma(F32 a, F32 b, F32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a * b

// Bit i is set when lane i of a is larger than that of b.
inline std::uint32_t f32_above(F32 a, F32 b) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)));
}

inline float f32_sum(F32 a) {
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

// Where x > best: best = x and its label = l.
inline void f32_keep_larger(F32 x, F32 l, F32& best, F32& label) {
    const __m256 larger = _mm256_cmp_ps(x.v, best.v, _CMP_GT_OQ);
    best.v = _mm256_blendv_ps(best.v, x.v, larger);
    label.v = _mm256_blendv_ps(label.v, l.v, larger);
}

inline float f32_max_lane(F32 a) {
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}
// The smallest lane of a where b == x; +infinity when there is none.
inline float f32_min_lane_where(F32 a, F32 b, float x) {
    const __m256 equal = _mm256_cmp_ps(b.v, _mm256_set1_ps(x), _CMP_EQ_OQ);
    const __m256 kept = _mm256_blendv_ps(_mm256_set1_ps(__builtin_inff()), a.v, equal);
    const __m128 m4 = _mm_min_ps(_mm256_castps256_ps128(kept), _mm256_extractf128_ps(kept, 1));
    const __m128 m2 = _mm_min_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_min_ss(m2, _mm_movehdup_ps(m2)));
}

// In place: lane j of rows[i] and lane i of rows[j] change places.
inline void f32_transpose(F32 (&rows)[F32::kLanes]) {
    __m256 t[8];
    for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(rows[2 * i].v, rows[2 * i + 1].v);
        t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i].v, rows[2 * i + 1].v);
    }
    __m256 u[8];
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; ++i) {
        rows[i].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        rows[i + 4].v = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

// float64: as many lanes as F32 has, in two registers; lane i is lane i of the F32 it came from.

struct F64 {
    __m256d lo, hi;
};

inline F64 f64_zero() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
inline F64 f64_set(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
inline F64 f64_widen(F32 a) {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(a.v)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1))};
}
inline F64 f64_add(F64 a, F64 b) { return {_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)}; }
inline F64 f64_sub(F64 a, F64 b) { return {_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)}; }
inline F64 f64_mul(F64 a, F64 b) { return {_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)}; }
inline F64 f64_fma(F64 a, F64 b, F64 c) {
    return {_mm256_fmadd_pd(a.lo, b.lo, c.lo), _mm256_fmadd_pd(a.hi, b.hi, c.hi)};
}
inline void f64_store(double* p, F64 a) {
    _mm256_storeu_pd(p, a.lo);
    _mm256_storeu_pd(p + 4, a.hi);
}

}  // namespace
}  // namespace residua::kernel
namespace residua::kernel {
namespace {

// integers

// Two strips of the plane layout (kernel/plane_kernels.hpp), or the tables of two strips.
using Bytes = __m256i;
inline constexpr std::size_t kVecStrips = 2;

// A cell takes three instructions where a strip takes four and a half: tables are as fast at 4 bits.
inline constexpr float kCellsFrom = 1e9f;

inline Bytes load_bytes(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void prefetch(const std::uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
inline Bytes low_nibbles(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Bytes high_nibbles(Bytes x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }
inline Bytes look_up(Bytes tables, Bytes index) { return _mm256_shuffle_epi8(tables, index); }
inline Bytes add_bytes(Bytes x, Bytes y) { return _mm256_add_epi8(x, y); }

// 32-bit sums of 32 rows: rows 0 … 7, 8 … 15, 16 … 23, 24 … 31.
struct RowsI32 {
    __m256i v[4];
};
inline RowsI32 zero_rows() {
    const __m256i zero = _mm256_setzero_si256();
    return {{zero, zero, zero, zero}};
}
inline RowsI32 add_rows(const RowsI32& x, const RowsI32& y) {
    RowsI32 z;
    for (int i = 0; i < 4; ++i) z.v[i] = _mm256_add_epi32(x.v[i], y.v[i]);
    return z;
}
inline void store_rows(const RowsI32& x, std::int32_t* out) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * i), x.v[i]);
}

// 16-bit sums of 32 rows, the two strips of a vector still apart: `low` rows 0 … 15, `high` rows
// 16 … 31. The sums of even bytes carry 256 times the odd ones, modulo 2^16, until they are
// widened: that saves a mask per addition.
struct RowsU16 {
    __m256i low_even, low_odd, high_even, high_odd;

    void clear() { low_even = low_odd = high_even = high_odd = _mm256_setzero_si256(); }
    void add(Bytes low, Bytes high) {
        low_even = _mm256_add_epi16(low_even, low);
        low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16(low, 8));
        high_even = _mm256_add_epi16(high_even, high);
        high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16(high, 8));
    }
    void twice() {
        low_even = _mm256_add_epi16(low_even, low_even);
        low_odd = _mm256_add_epi16(low_odd, low_odd);
        high_even = _mm256_add_epi16(high_even, high_even);
        high_odd = _mm256_add_epi16(high_odd, high_odd);
    }
};
inline __m256i add_strips(__m256i x) {
    return _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)),
                            _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1)));
}
inline RowsI32 widen(const RowsU16& x) {
    const __m256i low_even = _mm256_sub_epi16(x.low_even, _mm256_slli_epi16(x.low_odd, 8));
    const __m256i high_even = _mm256_sub_epi16(x.high_even, _mm256_slli_epi16(x.high_odd, 8));
    return {{add_strips(_mm256_unpacklo_epi16(low_even, x.low_odd)),
             add_strips(_mm256_unpackhi_epi16(low_even, x.low_odd)),
             add_strips(_mm256_unpacklo_epi16(high_even, x.high_odd)),
             add_strips(_mm256_unpackhi_epi16(high_even, x.high_odd))}};
}
// The same where the sum of a row over all strips stays below 2^16.
inline RowsI32 widen_small(const RowsU16& x) {
    RowsI32 out;
    const __m256i sums[2] = {_mm256_add_epi16(_mm256_permute2x128_si256(x.low_even, x.low_odd, 0x20),
                                              _mm256_permute2x128_si256(x.low_even, x.low_odd, 0x31)),
                             _mm256_add_epi16(_mm256_permute2x128_si256(x.high_even, x.high_odd, 0x20),
                                              _mm256_permute2x128_si256(x.high_even, x.high_odd, 0x31))};
    for (int i = 0; i < 2; ++i) {  // halves: even and odd rows
        const __m128i odd = _mm256_extracti128_si256(sums[i], 1);
        const __m128i even = _mm_sub_epi16(_mm256_castsi256_si128(sums[i]), _mm_slli_epi16(odd, 8));
        out.v[2 * i] = _mm256_cvtepu16_epi32(_mm_unpacklo_epi16(even, odd));
        out.v[2 * i + 1] = _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(even, odd));
    }
    return out;
}

// What turns the sums of the 32 rows of a block into bounds: `add` points to 32 float32, `scale` to
// 32 float16.
struct RowFactors {
    __m256 add[4], scale[4];
};
inline RowFactors load_factors(const std::uint8_t* add, const std::uint8_t* scale) {
    RowFactors f;
    for (int i = 0; i < 4; ++i) {
        f.add[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(add) + 8 * i);
        f.scale[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scale) + i));
    }
    return f;
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold.
inline std::uint32_t rows_reaching(const RowsI32& sums, float unit, float upper, const RowFactors& factors,
                                   float threshold) {
    const __m256 u = _mm256_set1_ps(unit), c = _mm256_set1_ps(upper), limit = _mm256_set1_ps(threshold);
    std::uint32_t mask = 0;
    for (int i = 0; i < 4; ++i) {
        const __m256 inner = _mm256_add_ps(_mm256_mul_ps(u, _mm256_cvtepi32_ps(sums.v[i])), c);
        const __m256 bound = _mm256_add_ps(_mm256_mul_ps(factors.scale[i], inner), factors.add[i]);
        const int bits = _mm256_movemask_ps(_mm256_cmp_ps(bound, limit, _CMP_GE_OQ));
        mask |= static_cast<std::uint32_t>(bits) << (8 * i);
    }
    return mask;
}

// Bit j is set when values[j] <= limit, for 32 values.
inline std::uint32_t rows_at_most(const std::int32_t* values, std::int32_t limit) {
    const __m256i l = _mm256_set1_epi32(limit);
    std::uint32_t above = 0;
    for (int i = 0; i < 4; ++i) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 8 * i));
        const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(v, l)));
        above |= static_cast<std::uint32_t>(bits) << (8 * i);
    }
    return ~above;
}

// look-ups (kernel/lookup_kernels.hpp)

// Bit r is set when sums[r] >= least.
inline std::uint32_t rows_at_least(const RowsI32& sums, std::int32_t least) {
    const __m256i below = _mm256_set1_epi32(least);
    std::uint32_t mask = 0;
    for (int i = 0; i < 4; ++i) {
        const int under = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(below, sums.v[i])));
        mask |= static_cast<std::uint32_t>(under) << (8 * i);
    }
    return ~mask;
}
// A column of one block; `step` leads to the next block, for wider vectors.
inline Bytes load_columns(const std::uint8_t* codes, std::size_t) { return load_bytes(codes); }
// Entries of NQ tables of 256. A table goes by in sixteenths: other codes than its own become negative indices,
// which give zero.
template <std::size_t NQ>
inline void look_up_256(const std::uint8_t* const (&tables)[NQ], Bytes codes, Bytes (&out)[NQ]) {
    for (std::size_t i = 0; i < NQ; ++i) out[i] = _mm256_setzero_si256();
    for (int t = 0; t < 16; ++t) {
        const __m256i own = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(16 * t)));
        const __m256i index = _mm256_adds_epu8(own, _mm256_set1_epi8(0x70));
        for (std::size_t i = 0; i < NQ; ++i) {
            const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tables[i] + 16 * t));
            out[i] = _mm256_or_si256(out[i], _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), index));
        }
    }
}
// 16-bit sums of the bytes of vectors; even ones carry 256 times the odd ones, modulo 2^16.
struct ByteSums {
    __m256i even, odd;

    void clear() { even = odd = _mm256_setzero_si256(); }
    void add(Bytes x) {
        even = _mm256_add_epi16(even, x);
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16(x, 8));
    }
    // Bit j: of byte j.
    std::uint64_t at_least(std::int32_t least) const {
        const __m256i l = _mm256_set1_epi16(static_cast<short>(least));
        const __m256i own = _mm256_sub_epi16(even, _mm256_slli_epi16(odd, 8));
        const __m256i e = _mm256_cmpeq_epi16(_mm256_max_epu16(own, l), own);
        const __m256i o = _mm256_cmpeq_epi16(_mm256_max_epu16(odd, l), odd);
        const __m256i both = _mm256_or_si256(_mm256_srli_epi16(e, 8), _mm256_slli_epi16(o, 8));
        return static_cast<std::uint32_t>(_mm256_movemask_epi8(both));
    }
};

// The values of 4 dims of all rows, a byte each, from their strips in planes 0 … planes - 1.
inline void spread_strips(const std::uint8_t* const* strips, std::uint32_t planes, std::uint8_t* cells) {
    // Entry x of table d: bit d of the nibble x, first dim first.
    const __m128i index = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m256i table[4], dim[4];
    for (int d = 0; d < 4; ++d) {
        const __m128i bit = _mm_and_si128(_mm_srli_epi16(index, 3 - d), _mm_set1_epi8(1));
        table[d] = _mm256_broadcastsi128_si256(bit);
        dim[d] = _mm256_setzero_si256();
    }
    for (std::uint32_t t = planes; t-- > 0;) {
        const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(strips[t]));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(codes), _mm_srli_epi16(codes, 4), 1);
        const __m256i x = _mm256_and_si256(both, _mm256_set1_epi8(15));  // rows 0 … 15, rows 16 … 31
        for (int d = 0; d < 4; ++d) {
            dim[d] = _mm256_add_epi8(_mm256_add_epi8(dim[d], dim[d]), _mm256_shuffle_epi8(table[d], x));
        }
    }
    // Rows 0 … 7 and 16 … 23, rows 8 … 15 and 24 … 31, two dims each; then four rows of each half.
    const __m256i a = _mm256_unpacklo_epi8(dim[0], dim[1]), b = _mm256_unpackhi_epi8(dim[0], dim[1]);
    const __m256i c = _mm256_unpacklo_epi8(dim[2], dim[3]), d = _mm256_unpackhi_epi8(dim[2], dim[3]);
    const __m256i rows[4] = {_mm256_unpacklo_epi16(a, c), _mm256_unpackhi_epi16(a, c), _mm256_unpacklo_epi16(b, d),
                             _mm256_unpackhi_epi16(b, d)};
    for (int i = 0; i < 4; ++i) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(cells + 16 * i), _mm256_castsi256_si128(rows[i]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(cells + 64 + 16 * i), _mm256_extracti128_si256(rows[i], 1));
    }
}

// scalar codes (kernel/byte_kernels.hpp)

// 32-bit sums of 8 rows, a cell of 4 bytes each.
struct CellSums {
    __m256i v;
};
inline constexpr std::size_t kCellVecs = 2;
inline constexpr std::size_t kCellTile = 4;  // 8 sums, 4 codes, and room for weights

inline CellSums zero_sums() { return {_mm256_setzero_si256()}; }
inline void store_sums(CellSums x, std::int32_t* out) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), x.v); }
inline Bytes spread_cell(const std::int8_t* w) {
    std::int32_t cell;
    __builtin_memcpy(&cell, w, sizeof cell);
    return _mm256_set1_epi32(cell);
}
// sum += codes (unsigned) * weights (signed), by cells; a pair of products fits 16 bits.
inline CellSums add_cells(CellSums sum, Bytes codes, Bytes weights) {
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, weights), _mm256_set1_epi16(1)))};
}
// Pairs of products as 16 bits, of several cells where these fit.
struct PairSums {
    __m256i v;
};
inline constexpr bool kJoinsCells = true;
inline constexpr std::size_t kPairTile = 4;
// Compilers would compute the products of all cells first, and run out of registers.
inline PairSums in_order(__m256i x) {
    __asm__("" : "+x"(x));
    return {x};
}
inline PairSums pair_cells(Bytes codes, Bytes weights) { return in_order(_mm256_maddubs_epi16(codes, weights)); }
inline PairSums add_pair_cells(PairSums sum, Bytes codes, Bytes weights) {
    return in_order(_mm256_add_epi16(sum.v, _mm256_maddubs_epi16(codes, weights)));
}
inline CellSums widen_pairs(CellSums sum, PairSums x) {
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(x.v, _mm256_set1_epi16(1)))};
}
// The same for two cells of codes up to 15, whose products fit 16 bits together.
inline CellSums add_nibble_cells(CellSums sum, Bytes low, Bytes low_weights, Bytes high, Bytes high_weights) {
    const __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(low, low_weights), _mm256_maddubs_epi16(high, high_weights));
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
// sum += codes * weights, of 16 bits, by cells.
inline CellSums add_fine_cells(CellSums sum, Bytes codes, const std::int16_t* w) {
    const auto pair = [](std::int16_t a, std::int16_t b) {
        return _mm256_set1_epi32(static_cast<std::int32_t>(
            static_cast<std::uint16_t>(a) | static_cast<std::uint32_t>(static_cast<std::uint16_t>(b)) << 16));
    };
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)), pair(w[0], w[2]));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), pair(w[1], w[3]));
    return {_mm256_add_epi32(sum.v, _mm256_add_epi32(even, odd))};
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold; `add` and `scale` point
// to float32.
inline std::uint32_t cells_reaching(CellSums sums, float unit, float upper, const std::uint8_t* add,
                                    const std::uint8_t* scale, float threshold) {
    const __m256 inner =
        _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(unit), _mm256_cvtepi32_ps(sums.v)), _mm256_set1_ps(upper));
    const __m256 f = _mm256_loadu_ps(reinterpret_cast<const float*>(scale));
    const __m256 bound = _mm256_add_ps(_mm256_mul_ps(f, inner), _mm256_loadu_ps(reinterpret_cast<const float*>(add)));
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(bound, _mm256_set1_ps(threshold), _CMP_GE_OQ)));
}

// Codes as floats, kUnpackDims at a time.
inline constexpr std::size_t kUnpackDims = 16;

inline void unpack_bytes(__m128i x, F32 (&out)[2]) {
    out[0].v = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x));
    out[1].v = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x)));
}
inline void unpack_bytes(const std::uint8_t* p, F32 (&out)[2]) {
    unpack_bytes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), out);
}
inline void unpack_nibbles(const std::uint8_t* p, F32 (&out)[2]) {
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
// pairs += fields (unsigned) * weights (signed), in 16 bits.
inline PieceSums piece_multiply(PieceSums pairs, PieceBytes fields, PieceBytes weights) {
    return {_mm256_add_epi16(pairs.v, _mm256_maddubs_epi16(fields, weights))};
}
inline PieceSums piece_widen(PieceSums sums, PieceSums pairs) {
    return {_mm256_add_epi32(sums.v, _mm256_madd_epi16(pairs.v, _mm256_set1_epi16(1)))};
}
// sums += x * y, bytes from -127 to 127: two products of 127 * 127 fit 16 bits.
inline PieceSums piece_multiply_signed(PieceSums sums, PieceBytes x, PieceBytes y) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
    return {_mm256_add_epi32(sums.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}

// byte sets (kernel/set_kernels.hpp)

struct ByteSet {
    __m256i low, high;  // bits of bytes 0 … 127 and 128 … 255
};
inline ByteSet load_set(const std::uint8_t* set) {
    const auto* p = reinterpret_cast<const __m128i*>(set);
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(p)), _mm256_broadcastsi128_si256(_mm_loadu_si128(p + 1))};
}
// Bit j is set when byte j of x is in the set; a shuffle gives zero where the index has bit 7.
inline std::uint64_t bytes_in(Bytes x, const ByteSet& s) {
    const __m256i powers = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    const __m256i bit = _mm256_shuffle_epi8(powers, high_nibbles(x));
    const __m256i bits = _mm256_or_si256(_mm256_shuffle_epi8(s.low, x),
                                         _mm256_shuffle_epi8(s.high, _mm256_xor_si256(x, _mm256_set1_epi8(-128))));
    const __m256i hit = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(hit));
}

}  // namespace
}  // namespace residua::kernel
