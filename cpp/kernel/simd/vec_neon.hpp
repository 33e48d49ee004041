// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary on NEON as every AArch64 CPU has it. Include from an ISA translation unit only.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace residua::kernel {
namespace {

// float32
// `_n` forms touch the first n < kLanes elements only; loads fill the rest with zero.

struct F32 {
    static constexpr std::size_t kLanes = 4;
    float32x4_t v;
};

template <class T>
struct Tail {
    T value[4] = {};
    Tail() = default;
    Tail(const T* p, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) value[i] = p[i];
    }
    void store(T* p, std::size_t n) const {
        for (std::size_t i = 0; i < n; ++i) p[i] = value[i];
    }
};

inline F32 f32_zero() { return {vdupq_n_f32(0.0f)}; }
inline F32 f32_set(float x) { return {vdupq_n_f32(x)}; }
inline F32 f32_load(const float* p) { return {vld1q_f32(p)}; }
inline F32 f32_load_n(const float* p, std::size_t n) { return f32_load(Tail<float>(p, n).value); }
inline void f32_store(float* p, F32 a) { vst1q_f32(p, a.v); }
inline void f32_store_n(float* p, F32 a, std::size_t n) {
    Tail<float> tail;
    f32_store(tail.value, a);
    tail.store(p, n);
}

inline F32 f32_load_f16(const std::uint16_t* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
inline F32 f32_load_f16_n(const std::uint16_t* p, std::size_t n) {
    return f32_load_f16(Tail<std::uint16_t>(p, n).value);
}
// Round to nearest even.
inline void f32_store_f16(std::uint16_t* p, F32 a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }
inline void f32_store_f16_n(std::uint16_t* p, F32 a, std::size_t n) {
    Tail<std::uint16_t> tail;
    f32_store_f16(tail.value, a);
    tail.store(p, n);
}

inline F32 f32_load_bf16(const std::uint16_t* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))}; }
inline F32 f32_load_bf16_n(const std::uint16_t* p, std::size_t n) {
    return f32_load_bf16(Tail<std::uint16_t>(p, n).value);
}

inline F32 f32_load_i8(const std::int8_t* p) {
    std::uint32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    const int16x8_t wide = vmovl_s8(vcreate_s8(four));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)))};
}
inline F32 f32_load_i8_n(const std::int8_t* p, std::size_t n) { return f32_load_i8(Tail<std::int8_t>(p, n).value); }

inline F32 f32_add(F32 a, F32 b) { return {vaddq_f32(a.v, b.v)}; }
inline F32 f32_sub(F32 a, F32 b) { return {vsubq_f32(a.v, b.v)}; }
inline F32 f32_mul(F32 a, F32 b) { return {vmulq_f32(a.v, b.v)}; }
inline F32 f32_fma(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }   // a * b + c
inline F32 f32_fnma(F32 a, F32 b, F32 c) { return {vfmsq_f32(c.v, a.v, b.v)}; }  // c - a * b

// Bit i is set where lane i is all ones.
inline std::uint32_t lane_mask(uint32x4_t x) {
    static constexpr std::uint32_t kBit[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(x, vld1q_u32(kBit)));
}
// Bit i is set when lane i of a is larger than that of b.
inline std::uint32_t f32_above(F32 a, F32 b) { return lane_mask(vcgtq_f32(a.v, b.v)); }

inline float f32_sum(F32 a) { return vaddvq_f32(a.v); }

// Where x > best: best = x and its label = l.
inline void f32_keep_larger(F32 x, F32 l, F32& best, F32& label) {
    const uint32x4_t larger = vcgtq_f32(x.v, best.v);
    best.v = vbslq_f32(larger, x.v, best.v);
    label.v = vbslq_f32(larger, l.v, label.v);
}

inline float f32_max_lane(F32 a) { return vmaxvq_f32(a.v); }
// The smallest lane of a where b == x; +infinity when there is none.
inline float f32_min_lane_where(F32 a, F32 b, float x) {
    return vminvq_f32(vbslq_f32(vceqq_f32(b.v, vdupq_n_f32(x)), a.v, vdupq_n_f32(__builtin_inff())));
}

// In place: lane j of rows[i] and lane i of rows[j] change places.
inline void f32_transpose(F32 (&rows)[F32::kLanes]) {
    const float32x4_t a = vtrn1q_f32(rows[0].v, rows[1].v), b = vtrn2q_f32(rows[0].v, rows[1].v);
    const float32x4_t c = vtrn1q_f32(rows[2].v, rows[3].v), d = vtrn2q_f32(rows[2].v, rows[3].v);
    rows[0].v = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    rows[1].v = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    rows[2].v = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    rows[3].v = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

// float64: as many lanes as F32 has, in two registers; lane i is lane i of the F32 it came from.

struct F64 {
    float64x2_t lo, hi;
};

inline F64 f64_zero() { return {vdupq_n_f64(0.0), vdupq_n_f64(0.0)}; }
inline F64 f64_set(double x) { return {vdupq_n_f64(x), vdupq_n_f64(x)}; }
inline F64 f64_widen(F32 a) { return {vcvt_f64_f32(vget_low_f32(a.v)), vcvt_high_f64_f32(a.v)}; }
inline F64 f64_add(F64 a, F64 b) { return {vaddq_f64(a.lo, b.lo), vaddq_f64(a.hi, b.hi)}; }
inline F64 f64_sub(F64 a, F64 b) { return {vsubq_f64(a.lo, b.lo), vsubq_f64(a.hi, b.hi)}; }
inline F64 f64_mul(F64 a, F64 b) { return {vmulq_f64(a.lo, b.lo), vmulq_f64(a.hi, b.hi)}; }
inline F64 f64_fma(F64 a, F64 b, F64 c) { return {vfmaq_f64(c.lo, a.lo, b.lo), vfmaq_f64(c.hi, a.hi, b.hi)}; }
inline void f64_store(double* p, F64 a) {
    vst1q_f64(p, a.lo);
    vst1q_f64(p + 2, a.hi);
}

}  // namespace
}  // namespace residua::kernel
namespace residua::kernel {
namespace {

// integers

// One strip of the plane layout (kernel/plane_kernels.hpp), or its table.
using Bytes = uint8x16_t;
inline constexpr std::size_t kVecStrips = 1;

inline Bytes load_bytes(const std::uint8_t* p) { return vld1q_u8(p); }
inline void prefetch(const std::uint8_t* p) { __builtin_prefetch(p); }
inline Bytes low_nibbles(Bytes x) { return vandq_u8(x, vdupq_n_u8(15)); }
inline Bytes high_nibbles(Bytes x) { return vshrq_n_u8(x, 4); }
inline constexpr float kCellsFrom = 1e9f;  // without integer products of four bytes, never

inline Bytes look_up(Bytes tables, Bytes index) { return vqtbl1q_u8(tables, index); }
inline Bytes add_bytes(Bytes x, Bytes y) { return vaddq_u8(x, y); }

// 32-bit sums of 32 rows, four to a register.
struct RowsI32 {
    int32x4_t v[8];
};
inline RowsI32 zero_rows() {
    RowsI32 z;
    for (int32x4_t& v : z.v) v = vdupq_n_s32(0);
    return z;
}
inline RowsI32 add_rows(const RowsI32& x, const RowsI32& y) {
    RowsI32 z;
    for (int i = 0; i < 8; ++i) z.v[i] = vaddq_s32(x.v[i], y.v[i]);
    return z;
}
inline void store_rows(const RowsI32& x, std::int32_t* out) {
    for (int i = 0; i < 8; ++i) vst1q_s32(out + 4 * i, x.v[i]);
}

// 16-bit sums of 32 rows: `low` rows 0 … 15, `high` rows 16 … 31. The sums of even bytes carry 256
// times the odd ones, modulo 2^16, until they are widened: that saves a mask per addition.
struct RowsU16 {
    uint16x8_t low_even, low_odd, high_even, high_odd;

    void clear() { low_even = low_odd = high_even = high_odd = vdupq_n_u16(0); }
    void add(Bytes low, Bytes high) {
        const uint16x8_t x = vreinterpretq_u16_u8(low), y = vreinterpretq_u16_u8(high);
        low_even = vaddq_u16(low_even, x);
        low_odd = vsraq_n_u16(low_odd, x, 8);
        high_even = vaddq_u16(high_even, y);
        high_odd = vsraq_n_u16(high_odd, y, 8);
    }
    void twice() {
        low_even = vaddq_u16(low_even, low_even);
        low_odd = vaddq_u16(low_odd, low_odd);
        high_even = vaddq_u16(high_even, high_even);
        high_odd = vaddq_u16(high_odd, high_odd);
    }
};
inline void widen_half(uint16x8_t even, uint16x8_t odd, int32x4_t* out) {
    even = vsubq_u16(even, vshlq_n_u16(odd, 8));
    const uint16x8_t first = vzip1q_u16(even, odd), second = vzip2q_u16(even, odd);
    out[0] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(first)));
    out[1] = vreinterpretq_s32_u32(vmovl_high_u16(first));
    out[2] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(second)));
    out[3] = vreinterpretq_s32_u32(vmovl_high_u16(second));
}
inline RowsI32 widen(const RowsU16& x) {
    RowsI32 out;
    widen_half(x.low_even, x.low_odd, out.v);
    widen_half(x.high_even, x.high_odd, out.v + 4);
    return out;
}
// A vector has one strip, so its sums are those of the rows.
inline RowsI32 widen_small(const RowsU16& x) { return widen(x); }

// What turns the sums of the 32 rows of a block into bounds: `add` points to 32 float32, `scale` to
// 32 float16.
struct RowFactors {
    float32x4_t add[8], scale[8];
};
inline RowFactors load_factors(const std::uint8_t* add, const std::uint8_t* scale) {
    RowFactors f;
    for (int i = 0; i < 8; ++i) {
        f.add[i] = vreinterpretq_f32_u8(vld1q_u8(add + 16 * i));
        f.scale[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(scale + 8 * i)));
    }
    return f;
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold.
inline std::uint32_t rows_reaching(const RowsI32& sums, float unit, float upper, const RowFactors& factors,
                                   float threshold) {
    const float32x4_t u = vdupq_n_f32(unit), c = vdupq_n_f32(upper), limit = vdupq_n_f32(threshold);
    std::uint32_t mask = 0;
    for (int i = 0; i < 8; ++i) {
        const float32x4_t inner = vaddq_f32(vmulq_f32(u, vcvtq_f32_s32(sums.v[i])), c);
        const float32x4_t bound = vaddq_f32(vmulq_f32(factors.scale[i], inner), factors.add[i]);
        mask |= lane_mask(vcgeq_f32(bound, limit)) << (4 * i);
    }
    return mask;
}

// Bit j is set when values[j] <= limit, for 32 values.
inline std::uint32_t rows_at_most(const std::int32_t* values, std::int32_t limit) {
    const int32x4_t l = vdupq_n_s32(limit);
    std::uint32_t mask = 0;
    for (int i = 0; i < 8; ++i) mask |= lane_mask(vcleq_s32(vld1q_s32(values + 4 * i), l)) << (4 * i);
    return mask;
}

// look-ups (kernel/lookup_kernels.hpp)

// Bit r is set when sums[r] >= least.
inline std::uint32_t rows_at_least(const RowsI32& sums, std::int32_t least) {
    const int32x4_t l = vdupq_n_s32(least);
    std::uint32_t mask = 0;
    for (int i = 0; i < 8; ++i) mask |= lane_mask(vcgeq_s32(sums.v[i], l)) << (4 * i);
    return mask;
}
// Half a column of one block; `step` leads to the next block, for wider vectors.
inline Bytes load_columns(const std::uint8_t* codes, std::size_t) { return load_bytes(codes); }
// Entries of NQ tables of 256, a quarter at a time: indices outside of it change nothing.
template <std::size_t NQ>
inline void look_up_256(const std::uint8_t* const (&tables)[NQ], Bytes codes, Bytes (&out)[NQ]) {
    for (std::size_t i = 0; i < NQ; ++i) {
        const std::uint8_t* t = tables[i];
        Bytes x = vqtbl4q_u8(vld1q_u8_x4(t), codes);
        x = vqtbx4q_u8(x, vld1q_u8_x4(t + 64), vsubq_u8(codes, vdupq_n_u8(64)));
        x = vqtbx4q_u8(x, vld1q_u8_x4(t + 128), vsubq_u8(codes, vdupq_n_u8(128)));
        out[i] = vqtbx4q_u8(x, vld1q_u8_x4(t + 192), vsubq_u8(codes, vdupq_n_u8(192)));
    }
}
// 16-bit sums of the bytes of vectors; even ones carry 256 times the odd ones, modulo 2^16.
struct ByteSums {
    uint16x8_t even, odd;

    void clear() { even = odd = vdupq_n_u16(0); }
    void add(Bytes x) {
        even = vaddq_u16(even, vreinterpretq_u16_u8(x));
        odd = vsraq_n_u16(odd, vreinterpretq_u16_u8(x), 8);
    }
    // Bit j: of byte j.
    std::uint64_t at_least(std::int32_t least) const {
        static constexpr std::uint8_t kBit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        const uint16x8_t l = vdupq_n_u16(static_cast<std::uint16_t>(least));
        const uint16x8_t e = vcgeq_u16(vsubq_u16(even, vshlq_n_u16(odd, 8)), l), o = vcgeq_u16(odd, l);
        const uint8x16_t both = vreinterpretq_u8_u16(vsliq_n_u16(e, o, 8));
        const uint8x16_t bits = vandq_u8(both, vld1q_u8(kBit));
        return std::uint64_t{vaddv_u8(vget_low_u8(bits))} | std::uint64_t{vaddv_u8(vget_high_u8(bits))} << 8;
    }
};

// scalar codes (kernel/byte_kernels.hpp)

// 32-bit sums of 4 rows, a cell of 4 bytes each.
struct CellSums {
    int32x4_t v;
};
inline constexpr std::size_t kCellVecs = 2;
inline constexpr std::size_t kCellTile = 4;

inline CellSums zero_sums() { return {vdupq_n_s32(0)}; }
inline void store_sums(CellSums x, std::int32_t* out) { vst1q_s32(out, x.v); }
inline Bytes spread_cell(const std::int8_t* w) {
    std::uint32_t cell;
    __builtin_memcpy(&cell, w, sizeof cell);
    return vreinterpretq_u8_u32(vdupq_n_u32(cell));
}
// sum += codes (unsigned) * weights (signed), by cells; a pair of products fits 16 bits.
struct PairSums {
    int16x8_t v;
};
inline constexpr bool kJoinsCells = true;
inline constexpr std::size_t kPairTile = kCellTile;
inline PairSums pair_cells(Bytes codes, Bytes weights) {
    const int8x16_t w = vreinterpretq_s8_u8(weights);
    const int16x8_t low =
        vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes))), vmovl_s8(vget_low_s8(w)));
    const int16x8_t high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(codes)), vmovl_high_s8(w));
    return {vpaddq_s16(low, high)};
}
inline PairSums add_pair_cells(PairSums sum, Bytes codes, Bytes weights) {
    return {vaddq_s16(sum.v, pair_cells(codes, weights).v)};
}
inline CellSums widen_pairs(CellSums sum, PairSums x) { return {vpadalq_s16(sum.v, x.v)}; }
inline CellSums add_cells(CellSums sum, Bytes codes, Bytes weights) {
    return widen_pairs(sum, pair_cells(codes, weights));
}
// The same for two cells of codes up to 15, whose products fit 16 bits together.
inline CellSums add_nibble_cells(CellSums sum, Bytes low, Bytes low_weights, Bytes high, Bytes high_weights) {
    const int8x16_t x = vreinterpretq_s8_u8(low), wx = vreinterpretq_s8_u8(low_weights);
    const int8x16_t y = vreinterpretq_s8_u8(high), wy = vreinterpretq_s8_u8(high_weights);
    const int16x8_t first = vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(wx)), vget_low_s8(y), vget_low_s8(wy));
    const int16x8_t second = vmlal_high_s8(vmull_high_s8(x, wx), y, wy);
    return {vpadalq_s16(sum.v, vpaddq_s16(first, second))};
}
// sum += codes * weights, of 16 bits, by cells.
inline CellSums add_fine_cells(CellSums sum, Bytes codes, const std::int16_t* w) {
    const int16x4_t four = vld1_s16(w);
    const int16x8_t eight = vcombine_s16(four, four);
    const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
    const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(codes));
    const int32x4_t rows01 = vpaddq_s32(vmull_s16(vget_low_s16(low), four), vmull_high_s16(low, eight));
    const int32x4_t rows23 = vpaddq_s32(vmull_s16(vget_low_s16(high), four), vmull_high_s16(high, eight));
    return {vaddq_s32(sum.v, vpaddq_s32(rows01, rows23))};
}
// Bit r is set when  add[r] + scale[r] * (unit * sums[r] + upper) >= threshold; `add` and `scale` point
// to float32.
inline std::uint32_t cells_reaching(CellSums sums, float unit, float upper, const std::uint8_t* add,
                                    const std::uint8_t* scale, float threshold) {
    const float32x4_t inner = vaddq_f32(vmulq_f32(vdupq_n_f32(unit), vcvtq_f32_s32(sums.v)), vdupq_n_f32(upper));
    const float32x4_t f = vreinterpretq_f32_u8(vld1q_u8(scale)), a = vreinterpretq_f32_u8(vld1q_u8(add));
    return lane_mask(vcgeq_f32(vaddq_f32(vmulq_f32(f, inner), a), vdupq_n_f32(threshold)));
}

// Codes as floats, kUnpackDims at a time.
inline constexpr std::size_t kUnpackDims = 16;

inline void unpack_bytes(uint8x16_t x, F32 (&out)[4]) {
    const uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_high_u8(x);
    out[0].v = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
    out[1].v = vcvtq_f32_u32(vmovl_high_u16(low));
    out[2].v = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
    out[3].v = vcvtq_f32_u32(vmovl_high_u16(high));
}
inline void unpack_bytes(const std::uint8_t* p, F32 (&out)[4]) { unpack_bytes(vld1q_u8(p), out); }
inline void unpack_nibbles(const std::uint8_t* p, F32 (&out)[4]) {
    const uint8x8_t x = vld1_u8(p);
    const uint8x8_t low = vand_u8(x, vdup_n_u8(15)), high = vshr_n_u8(x, 4);
    unpack_bytes(vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high)), out);
}

// byte sets (kernel/set_kernels.hpp)

struct ByteSet {
    uint8x16_t low, high;  // bits of bytes 0 … 127 and 128 … 255
};
inline ByteSet load_set(const std::uint8_t* set) { return {vld1q_u8(set), vld1q_u8(set + 16)}; }
// Bit j is set when byte j of x is in the set; a look-up gives zero where the index is above 15.
inline std::uint64_t bytes_in(Bytes x, const ByteSet& s) {
    const uint8x16_t powers = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    const uint8x16_t bit = vqtbl1q_u8(powers, vshrq_n_u8(x, 4));
    const uint8x16_t index = vandq_u8(x, vdupq_n_u8(0x8F));
    const uint8x16_t bits = vorrq_u8(vqtbl1q_u8(s.low, index), vqtbl1q_u8(s.high, veorq_u8(index, vdupq_n_u8(0x80))));
    const uint8x16_t hit = vandq_u8(vtstq_u8(bits, bit), powers);
    return static_cast<std::uint64_t>(vaddv_u8(vget_low_u8(hit))) |
           static_cast<std::uint64_t>(vaddv_u8(vget_high_u8(hit))) << 8;
}

}  // namespace
}  // namespace residua::kernel
