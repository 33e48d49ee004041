// SPDX-License-Identifier: Apache-2.0
// The token kernels on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/generic/byte-inl.hpp"
#include "kernel/generic/float-inl.hpp"
#include "kernel/generic/token-scalar-inl.hpp"

namespace residua::kernel {
namespace {

// Pairs of products of J cells are added as 16 bits before they are widened.
template <std::size_t NQ, std::size_t J>
void best_tile(const std::uint8_t* cells, std::size_t n_cells, const float* scale, const float* add,
               const TokenQuery* queries, std::uint32_t number, float* best, std::uint32_t* at) {
    std::int32_t sums[NQ][kByteRows];
    for (std::size_t first = 0; first < kByteRows; first += kCellStep) {
        CellSums sum[NQ][kCellVecs];
        for (auto& of_query : sum) {
            for (CellSums& s : of_query) s = zero_sums();
        }
        const std::uint8_t* x = cells + first * kCellBytes;
        std::size_t c = 0;
        for (; J > 1 && c + J <= n_cells; c += J) {
            PairSums pairs[NQ][kCellVecs];
            for (std::size_t j = 0; j < J; ++j, x += kCellRowBytes) {
                Bytes codes[kCellVecs];
                for (std::size_t v = 0; v < kCellVecs; ++v) codes[v] = load_bytes(x + v * kCellVecBytes);
                for (std::size_t i = 0; i < NQ; ++i) {
                    const Bytes w = spread_cell(queries[i].weights + (c + j) * kCellBytes);
                    for (std::size_t v = 0; v < kCellVecs; ++v) {
                        pairs[i][v] = j == 0 ? pair_cells(codes[v], w) : add_pair_cells(pairs[i][v], codes[v], w);
                    }
                }
            }
            for (std::size_t i = 0; i < NQ; ++i) {
                for (std::size_t v = 0; v < kCellVecs; ++v) sum[i][v] = widen_pairs(sum[i][v], pairs[i][v]);
            }
        }
        for (; c < n_cells; ++c, x += kCellRowBytes) {
            Bytes codes[kCellVecs];
            for (std::size_t v = 0; v < kCellVecs; ++v) codes[v] = load_bytes(x + v * kCellVecBytes);
            for (std::size_t i = 0; i < NQ; ++i) {
                const Bytes w = spread_cell(queries[i].weights + c * kCellBytes);
                for (std::size_t v = 0; v < kCellVecs; ++v) sum[i][v] = add_cells(sum[i][v], codes[v], w);
            }
        }
        for (std::size_t i = 0; i < NQ; ++i) {
            for (std::size_t v = 0; v < kCellVecs; ++v) store_sums(sum[i][v], sums[i] + first + v * kVecRows);
        }
    }
    for (std::size_t i = 0; i < NQ; ++i) {
        keep_best(sums[i], scale, add, queries[i].unit, queries[i].offset, number, best + i * kByteRows,
                  at == nullptr ? nullptr : at + i * kByteRows);
    }
}

template <std::size_t NQ, std::size_t J>
void best_tiles(const std::uint8_t* cells, std::size_t n_cells, const float* scale, const float* add,
                const TokenQuery* queries, std::size_t nq, std::uint32_t number, float* best, std::uint32_t* at) {
    for (; nq >= NQ; nq -= NQ, queries += NQ, best += NQ * kByteRows) {
        best_tile<NQ, J>(cells, n_cells, scale, add, queries, number, best, at);
        at = at == nullptr ? nullptr : at + NQ * kByteRows;
    }
    // What is left, in halves: the sums of one query wait for each other.
    if constexpr (NQ > 1) best_tiles<NQ / 2, J>(cells, n_cells, scale, add, queries, nq, number, best, at);
}

inline void best_simd(const std::uint8_t* cells, std::size_t n_cells, std::size_t joined, const float* scale,
                      const float* add, const TokenQuery* queries, std::size_t nq, std::uint32_t number, float* best,
                      std::uint32_t* at) {
    if constexpr (kJoinsCells) {
        switch (joined) {
            case 8: return best_tiles<kPairTile, 8>(cells, n_cells, scale, add, queries, nq, number, best, at);
            case 4: return best_tiles<kPairTile, 4>(cells, n_cells, scale, add, queries, nq, number, best, at);
            case 2: return best_tiles<kPairTile, 2>(cells, n_cells, scale, add, queries, nq, number, best, at);
            default: break;
        }
    }
    best_tiles<kCellTile, 1>(cells, n_cells, scale, add, queries, nq, number, best, at);
}

inline void widen_i8_simd(const std::int8_t* rows, const float* scale, std::size_t n, std::size_t d, float* out) {
    constexpr std::size_t L = F32::kLanes;
    for (std::size_t r = 0; r < n; ++r, rows += d, out += d) {
        const F32 s = f32_set(scale == nullptr ? 1.0f : scale[r]);
        std::size_t i = 0;
        for (; i + L <= d; i += L) f32_store(out + i, f32_mul(s, f32_load_i8(rows + i)));
        if (i < d) f32_store_n(out + i, f32_mul(s, f32_load_i8_n(rows + i, d - i)), d - i);
    }
}

// Query tokens in V vectors and NR rows: a product of every pair of lanes stays in a register, in one chain.
template <std::size_t NR, std::size_t V>
void best_rows_tile(const float* rows, std::size_t stride, const float* (&query)[V], std::size_t d, float number,
                    float* (&best)[V], float* (&at)[V], F32& check) {
    F32 sum[NR][V];
    for (auto& row : sum) {
        for (F32& s : row) s = f32_zero();
    }
    for (std::size_t k = 0; k < d; ++k) {
        F32 q[V];
        for (std::size_t v = 0; v < V; ++v) q[v] = f32_load(query[v] + k * kPanelRows);
        for (std::size_t r = 0; r < NR; ++r) {
            const F32 x = f32_set(rows[r * stride + k]);
            for (std::size_t v = 0; v < V; ++v) sum[r][v] = f32_fma(x, q[v], sum[r][v]);
        }
    }
    for (std::size_t v = 0; v < V; ++v) {
        F32 top = f32_load(best[v]), label = at[v] == nullptr ? f32_zero() : f32_load(at[v]);
        for (std::size_t r = 0; r < NR; ++r) {
            f32_keep_larger(sum[r][v], f32_set(number + static_cast<float>(r)), top, label);
            check = f32_fma(sum[r][v], f32_zero(), check);
        }
        f32_store(best[v], top);
        if (at[v] != nullptr) f32_store(at[v], label);
    }
}

// V vectors of query tokens from `first` on, and all rows.
template <std::size_t V>
void best_rows_vectors(const float* rows, std::size_t stride, std::size_t n, const float* panels, std::size_t first,
                       std::size_t d, float number, float* best, float* at, F32& check) {
    constexpr std::size_t L = F32::kLanes;
    constexpr std::size_t kRows = 2 * kTileQueries / V;  // sums that fill the registers
    const float* query[V];
    float *b[V], *a[V];
    for (std::size_t v = 0; v < V; ++v) {
        const std::size_t lane = (first + v) * L;
        query[v] = panels + lane / kPanelRows * d * kPanelRows + lane % kPanelRows;
        b[v] = best + lane;
        a[v] = at == nullptr ? nullptr : at + lane;
    }
    std::size_t r = 0;
    for (; r + kRows <= n; r += kRows) {
        best_rows_tile<kRows, V>(rows + r * stride, stride, query, d, number + static_cast<float>(r), b, a, check);
    }
    for (; r < n; ++r) {
        best_rows_tile<1, V>(rows + r * stride, stride, query, d, number + static_cast<float>(r), b, a, check);
    }
}

inline float best_rows_simd(const float* rows, std::size_t stride, std::size_t n, const float* panels,
                            std::size_t n_panels, std::size_t d, float number, float* best, float* at) {
    F32 check = f32_zero();
    const std::size_t vectors = n_panels * (kPanelRows / F32::kLanes);
    std::size_t v = 0;
    for (; v + 2 <= vectors; v += 2) best_rows_vectors<2>(rows, stride, n, panels, v, d, number, best, at, check);
    if (v < vectors) best_rows_vectors<1>(rows, stride, n, panels, v, d, number, best, at, check);
    return f32_sum(check);
}

constexpr TokenKernels simd_token_kernels() { return {best_rows_simd, best_simd, widen_i8_simd}; }

}  // namespace
}  // namespace residua::kernel
