// SPDX-License-Identifier: Apache-2.0
// Rows as sums of codewords, one of each of several codebooks of 256: the search of residual quantization. Codebook
// by codebook it keeps, for every row, the `beam` choices so far of least |x - sum|^2 (Babenko and Lempitsky, CVPR
// 2014, section 3; Liu et al., "Improved residual vector quantization", 2015). Lengths of sums come from tables of
// <codeword, codeword>, so that a step costs one product of the row with a codebook, and look-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "core/matrix.hpp"
#include "kernel/matmul.hpp"

namespace residua::train {

inline constexpr std::size_t kCodewords = 256;  // of a codebook
inline constexpr std::size_t kMaxCodebooks = 32;
inline constexpr std::size_t kMaxBeam = 64;

// The best choices so far of some rows.
struct Beams {
    Beams(std::size_t n_rows, std::size_t n_kept)
        : rows(n_rows), beam(n_kept), cost(n_rows * n_kept), path(n_rows * n_kept * kMaxCodebooks) {}

    std::size_t rows, beam;
    std::size_t width = 0;           // choices per row; 0 before the first codebook
    std::size_t depth = 0;           // codebooks chosen from
    std::vector<float> cost;         // rows x beam: |x - sum|^2 - |x|^2, ascending
    std::vector<std::uint8_t> path;  // rows x beam x kMaxCodebooks

    const std::uint8_t* best(std::size_t row) const { return path.data() + row * beam * kMaxCodebooks; }
};

class BeamSearch {
public:
    explicit BeamSearch(std::size_t dim) : dim_(dim) {}

    // Adds a codebook, kCodewords x dim. Not while others search.
    void append(ConstMatrix codewords, int num_threads);

    std::size_t size() const { return levels_.size(); }
    std::size_t memory_bytes() const;

    // Chooses from the next codebook, number beams.depth < size(), for x.rows == beams.rows rows.
    void extend(ConstMatrix x, Beams& beams) const;

    // codes: size() bytes per row, `stride` apart. A row's codes do not depend on other rows or threads.
    void encode(ConstMatrix x, std::size_t beam, std::uint8_t* codes, std::size_t stride, int num_threads) const;

    static constexpr std::size_t kChunkRows = 64;  // rows of an extend() that keep within a cache

private:
    struct Level {
        kernel::PackedPanels panels;
        std::vector<float> norms;            // |c|^2
        AlignedVector<float> products;       // 2 <earlier codeword, c>, one row per earlier codeword
    };
    std::vector<float> costs(const Level& level, ConstMatrix x, const Beams& beams) const;

    std::size_t dim_;
    std::vector<float> codewords_;  // all, as rows
    std::vector<Level> levels_;
};

}  // namespace residua::train
