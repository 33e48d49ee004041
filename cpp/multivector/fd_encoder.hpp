// SPDX-License-Identifier: Apache-2.0
// Fixed-dimensional encodings of token sets (MUVERA, arXiv 2405.19504): <query, document> estimates
// sum over query tokens of the largest inner product with a document token.
//
// Per repetition, k_sim hyperplanes send every token to one of 2^k_sim cells, and each token is projected to
// proj_dim values. A query's cell holds the sum of its tokens, a document's the mean. An empty cell of a
// document takes the token whose cell differs in the fewest bits; of equals the first token (fastembed: the
// first token of the lowest cell). Cells stand one after the other, repetition by repetition; on request a
// count sketch shortens the whole.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/aligned.hpp"
#include "multivector/fd_tables.hpp"
#include "multivector/tokens.hpp"
#include "store/container.hpp"

namespace residua::multivector {

// What encoding reads, for devices that do it by themselves.
struct FdView {
    std::span<const float> hyperplanes, offsets;
    std::span<const std::uint32_t> place, sketch_limits, sketch_dims;
    std::span<const float> dense;
    std::span<const std::uint32_t> final_entries;
};

// Immutable; any number of threads may encode.
class FdEncoder {
public:
    static constexpr const char* kKind = "fd_encoder";

    // center: dim values that are taken off tokens before they are hashed, or none. Throws ErrorKind::value.
    FdEncoder(const FdParams& params, FdTables tables, std::vector<float> center);

    const FdParams& params() const { return p_; }
    const std::vector<float>& center() const { return center_; }
    std::size_t output_dim() const { return p_.output_dim(); }
    FdView view() const { return {tables_.hyperplanes, offset_, place_, sketch_limits_, sketch_dims_, dense_, final_}; }

    // out: sets.n x output_dim(), zero for a set without tokens. A set's row depends on its tokens only.
    void encode(const TokenSets& sets, bool document, float* out, int num_threads) const;

    void save(const std::string& path) const;
    // Shows the encoder, which must outlive the writer.
    void write(store::Writer& out) const;
    static std::shared_ptr<FdEncoder> load(const store::Reader& in);

private:
    struct Scratch;
    void check() const;
    void encode_set(const TokenSets& sets, std::size_t i, bool document, Scratch& s, float* out) const;
    void pack(const TokenSets& sets, std::size_t i, Scratch& s) const;
    void hash(Scratch& s) const;
    const float* project(std::size_t rep, const float* panel, Scratch& s) const;
    void collect(std::size_t rep, bool fill, Scratch& s, float* block) const;
    void average(const Scratch& s, float* block) const;
    void fill_empty(Scratch& s, float* block) const;

    FdParams p_;
    FdTables tables_;
    std::vector<float> center_;
    AlignedVector<float> offset_;              // <center, hyperplane>: what a token must exceed
    std::vector<std::uint32_t> place_;         // of a cell within its repetition
    // Count sketch: the dims of column c, positive ones, then negative ones, between three limits.
    std::vector<std::uint32_t> sketch_limits_;  // reps * (2 * proj_dim + 1)
    std::vector<std::uint32_t> sketch_dims_;    // reps * dim
    AlignedVector<float> dense_;                // signs over sqrt(proj_dim)
    std::vector<std::uint32_t> final_;
};

}  // namespace residua::multivector
