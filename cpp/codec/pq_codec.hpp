// SPDX-License-Identifier: Apache-2.0
// Product quantization (Jégou, Douze, Schmid, TPAMI 2011): the dims are cut into sub-spaces, and a code holds for
// each the number of its nearest codeword. On request behind a matrix with orthonormal rows, as OPQ learns it (Ge,
// He, Ke, Sun, CVPR 2013): y = R x, x ~ R^T y.
//
// Sub-space m has dims / n_subspaces of the dims of y, the first dims % n_subspaces one more; codebooks are
// (n_subspaces, 2^bits, subspace_dims()), with zeros past the dims of narrower ones.
//
// Row code. 8 bits: byte m is the number of sub-space m. 4 bits: sub-space 2i is the low and 2i + 1 the high half of
// byte i. A block has the layout of kernel/lookup_kernels.hpp.
//
// A code stands for its codewords y. The score is -|q - y|^2 for l2, and for cosine (of unit vectors) and ip
//     <q, y> - w (|y|^2 - s),     s the mean of |y|^2.
// Codewords are means, so |y| is below |x|, by the more the worse the code; and where q is close to x, what the
// code lacks points to q, too. The second term gives that back (docs/codecs.md). With w = 0 it is the product alone.
// Symmetric scores put the codewords of a code in the place of the query.
//
// Encoding takes the nearest codewords. With `error_weights` W an effort beyond rounding goes on from there, sub-space by
// sub-space, to make e^T W e small for the error e: errors of one sub-space then make up for those of others
// in the directions in which near neighbours differ (codec/pq_refine.cpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "codec/codec.hpp"
#include "codec/lookup_query.hpp"
#include "kernel/matmul.hpp"
#include "train/nearest.hpp"

namespace residua::codec {

// Everything that defines a codec.
struct PqParams {
    Metric metric = Metric::cosine;
    std::size_t dim = 0;
    std::size_t n_subspaces = 0;
    int bits = 8;                  // 8 or 4
    std::vector<float> rotation;   // R, (dims, dim); empty: the dims as they are
    std::vector<float> codebooks;  // (n_subspaces, 2^bits, ceil(dims / n_subspaces))
    std::vector<float> error_weights;  // W, (dims, dims), symmetric and positive definite; may be empty
    float square_weight = 0;       // w, at least 0; 0 for l2
    float mean_square = 0;         // s, at least 0
    float expansion = 10;          // candidates per result that re-ranking needs at 100,000 rows
};

class PqCodec final : public Codec {
public:
    static constexpr const char* kKind = "pq_codec";

    // Validates everything; throws ErrorKind::value.
    explicit PqCodec(PqParams params);
    ~PqCodec() override;
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    std::size_t dim() const override { return p_.dim; }
    std::size_t code_bytes() const override { return layout_.code_bytes(); }
    Metric metric() const override { return p_.metric; }
    std::size_t memory_bytes() const override;
    std::size_t candidates(std::size_t k, std::size_t n) const override;

    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override;
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override;
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    // From the entries between all pairs of codewords, which the first call makes.
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    std::optional<LookupShape> lookup_shape() const override { return LookupShape{code_bytes(), p_.bits}; }
    void write(store::Writer& out) const override;

    const PqParams& params() const { return p_; }
    const LookupLayout& layout() const { return layout_; }
    std::size_t dims() const { return dims_; }  // of y
    std::size_t subspace_dims() const { return (dims_ + p_.n_subspaces - 1) / p_.n_subspaces; }

    // The score of a turned query and what a code stands for.
    float score(const float* query, const float* y) const;

    // The same score as a sum, of 8 bits: entries without the cancellation of |q|^2 - 2 <q, c> + |c|^2.
    LookupForm score_entries(const float* query) const;

    // The dims of y that a code stands for.
    void gather(const std::uint8_t* code, float* y) const;

private:
    struct PairTables;

    std::size_t begin_of(std::size_t m) const {
        return m * (dims_ / p_.n_subspaces) + std::min(m, dims_ % p_.n_subspaces);
    }
    ConstMatrix codebook(std::size_t m) const {
        const std::size_t stride = subspace_dims();
        return {p_.codebooks.data() + m * layout_.values() * stride, layout_.values(), begin_of(m + 1) - begin_of(m),
                stride};
    }
    void check() const;
    // y: x.rows x dims().
    void transform(ConstMatrix x, MutMatrix y) const;
    // Improves the numbers of all rows of y, number m of row i being numbers[m * y.rows + i].
    void refine(ConstMatrix y, std::uint32_t* numbers, int sweeps) const;
    void prepare_refinement();
    // Entries (n_subspaces, values) of every row of y, which replace `entries`.
    void fill_entries(ConstMatrix y, std::vector<float>& entries) const;
    // Scores that are sums of entries need these without the cancellation of |q|^2 - 2 <q, c> + |c|^2.
    bool distances_are_entries() const { return p_.metric == Metric::l2 && p_.bits == 4; }
    // products, of all codewords of sub-space m and one query, become entries.
    void finish_entries(std::size_t m, float* products) const;
    // What the scores of a query have beside its entries.
    double shared_part(const float* y) const;
    // Four bits: entries (n_subspaces, 16) as a PqQuery keeps them.
    std::vector<float> strip_entries(const float* entries) const;
    double magnitude(const float* y) const;
    const PairTables& pair_tables(int num_threads) const;

    PqParams p_;
    LookupLayout layout_;
    std::size_t dims_ = 0;
    double codeword_length_ = 0;                   // no code stands for a longer vector
    std::vector<train::NearestCentroids> nearest_;  // per sub-space
    std::vector<kernel::PackedPanels> panels_;      // likewise: the codewords
    std::vector<float> squares_;                    // likewise: their squared lengths
    kernel::PackedPanels rotate_, rotate_back_;     // empty without a rotation
    kernel::PackedPanels weigh_;                    // W; empty without
    std::vector<float> word_bias_;                  // of a codeword c: -c^T W c / 2 within its sub-space
    mutable std::once_flag pairs_made_;
    mutable std::unique_ptr<PairTables> pairs_;
    mutable std::atomic<std::size_t> pair_bytes_{0};
};

}  // namespace residua::codec
