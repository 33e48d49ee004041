// SPDX-License-Identifier: Apache-2.0
// What every codec offers. A codec is a value: immutable once built, identified by its content.
// Indexes own codes and never name a concrete codec; the one virtual call is per batch of rows.
//
// Two forms of the same codes:
//   row code   code_bytes() bytes per vector, what users see (encode, search_codes, files of codes);
//   block      kBlockRows rows in the layout that the codec scans fastest, 32 * code_bytes() bytes.
// A third one, the row form, is for walks that score rows here and there (codec/row_scorer.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codec/linear_form.hpp"
#include "codec/lookup_form.hpp"
#include "codec/row_scorer.hpp"
#include "core/bitset.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "core/top_k.hpp"
#include "store/row_source.hpp"

namespace residua::store {
class Writer;
class Reader;
}  // namespace residua::store

namespace residua::codec {

inline constexpr std::size_t kBlockRows = 32;

// Rows [0, n) of an index in block form; `data` is 64-byte aligned.
struct BlockView {
    const std::uint8_t* data = nullptr;
    std::size_t n = 0;
};

// How far an encoder may search for a better code: plain rounding, the best scale of the vector, or
// the best level of every dim as well.
enum class Effort : std::uint8_t { rounded, scaled, refined };

// A batch of queries, prepared once for any number of scans. Thread-safe to share.
// Scores are "larger is better" estimates of the metric (l2: minus the squared distance).
class Scorer {
public:
    virtual ~Scorer() = default;
    virtual std::size_t size() const = 0;

    // Offers the allowed rows of [row_begin, row_end) to pools[0 … q_end - q_begin), one per query of
    // [q_begin, q_end). row_begin is a multiple of kBlockRows. allowed == nullptr: all rows.
    virtual void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                       std::size_t q_begin, std::size_t q_end, TopK* pools) const = 0;

    // The same for some queries, in any order: pools[queries[i]] gets the rows for queries[i].
    virtual void top_k_of(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                          std::span<const std::uint32_t> queries, TopK* pools) const;

    // Scores of all rows [row_begin, row_end) for one query; row_begin is a multiple of kBlockRows.
    virtual void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                        float* out) const = 0;

    // Scores of some rows, which ascend, for one query.
    virtual void scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query,
                           float* out) const;

    // A query of a codec with a linear form, of one with a lookup_shape(), and of one whose codes are rows().
    virtual std::optional<LinearQuery> linear_query(std::size_t) const { return std::nullopt; }
    virtual std::optional<LookupForm> lookup_query(std::size_t) const { return std::nullopt; }
    virtual std::span<const float> float_query(std::size_t) const { return {}; }
};

// A batch of queries against units: a few rows whose codes stand together for one pass, as those of a graph
// node's neighbours do. Thread-safe to share. Scores order rows as a Scorer's do, and may be rougher.
class EdgeScorer {
public:
    virtual ~EdgeScorer() = default;
    virtual std::size_t size() const = 0;
    // out: scores of all edge_rows() rows of a unit. Bit r of the result: out[r] > threshold.
    virtual std::uint32_t scores(const std::uint8_t* unit, std::size_t query, float threshold, float* out) const = 0;
};

class Codec {
public:
    virtual ~Codec() = default;

    virtual std::string kind() const = 0;  // also the kind of its file
    virtual std::size_t dim() const = 0;
    virtual std::size_t code_bytes() const = 0;
    virtual Metric metric() const = 0;
    // Whether scores of codes against codes are dim - 2 hamming, whatever the metric.
    virtual bool counts_bits() const { return false; }
    virtual std::size_t memory_bytes() const = 0;

    // How many candidates exact re-ranking needs for the k best of n rows when the caller leaves the
    // choice to the codec.
    virtual std::size_t candidates(std::size_t k, std::size_t n) const = 0;

    // codes: x.rows * code_bytes() bytes. x is finite (and not zero under cosine); callers check.
    // Codecs without anything to search for give the same codes at any effort.
    virtual void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const = 0;
    virtual void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const = 0;

    // Row codes (n <= kBlockRows, contiguous) into a block; missing rows become zero.
    virtual void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const = 0;
    virtual void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const = 0;

    // Whether bytes that no encoder of ours has seen are a code: padding is zero, scalars are finite.
    virtual bool is_code(const std::uint8_t*) const { return true; }
    // Whether scores are the metric between the query and the decoded code, but for rounding that scores of
    // decoded codes do not have: an index that keeps no vectors settles its candidates by those.
    virtual bool settles_decoded() const { return false; }

    // Float query against code.
    virtual std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const = 0;
    // Code against code (SDC).
    virtual std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const = 0;

    // Codes in units of edge_rows() rows, for one query at a time. The default units are blocks.
    virtual std::size_t edge_rows() const { return kBlockRows; }
    virtual std::size_t edge_unit_bytes() const { return block_bytes(); }
    // Row codes (n <= edge_rows(), contiguous) into a unit; missing rows become zero.
    virtual void pack_edges(const std::uint8_t* codes, std::size_t n, std::uint8_t* unit) const;
    virtual void unpack_edge(const std::uint8_t* unit, std::size_t row, std::uint8_t* code) const;
    virtual std::unique_ptr<EdgeScorer> prepare_edges(ConstMatrix queries, int num_threads) const;

    // Dims that stand in the code one after the other, so that any first ones of them score by
    // themselves; 0 where the code has none.
    virtual std::size_t prefix_dims() const { return 0; }
    // Float query against the first `dims` of these (1 … prefix_dims()), reading no others. Scores order
    // rows by the metric of the shortened vectors and may lack terms that all rows share.
    virtual std::unique_ptr<Scorer> prepare_prefix(ConstMatrix queries, std::size_t dims, int num_threads) const;
    // The codes as rows of numbers, where that is what they are: searches then need no Scorer.
    virtual std::optional<store::RowSource> rows(BlockView) const { return std::nullopt; }

    // What other devices score by, where scores are linear (codec/linear_form.hpp).
    virtual std::optional<LinearForm> linear_form() const { return std::nullopt; }
    // Rows [row_begin, row_end) as planes, layout.code_bytes() each, and the scalars of those that have some.
    // row_begin is a multiple of kBlockRows.
    virtual void linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes,
                             float* scale, float* add) const;

    // The numbers of a code, where scores are sums of table entries (codec/lookup_form.hpp).
    virtual std::optional<LookupShape> lookup_shape() const { return std::nullopt; }

    // Row codes to row form and back, row_bytes() each; by default they are the same. Scores of row forms
    // are estimates to walk by, which may be coarser than those of a scan.
    virtual std::size_t row_bytes() const { return code_bytes(); }
    virtual void to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const;
    virtual void from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const;
    virtual std::unique_ptr<RowScorer> prepare_rows(ConstMatrix queries, int num_threads) const;

    // Whether queries score codes of the other codec as they would its own: the encoders alone may differ.
    virtual bool reads_codes_of(const Codec& other) const;

    // Whether codes of what is left of vectors after a centroid is taken off (metric ip) order rows better
    // than codes of the vectors, by measurement (docs/ivf.md); then codes can take in a term of their row.
    virtual bool gains_from_residuals() const { return false; }
    // Adds `value` to the score of a row code. Only where residuals gain.
    virtual void add_to_score(std::uint8_t* code, float value) const;

    virtual void write(store::Writer& out) const = 0;

    std::size_t block_bytes() const { return kBlockRows * code_bytes(); }
};

// Reads any codec; the file's kind chooses the class.
std::shared_ptr<const Codec> read_codec(const store::Reader& in);

// Nests the codec into a file under a name, for read_codec(in.nested(name)).
void write_codec(store::Writer& out, const std::string& name, const Codec& codec);

// The "metric" of a codec's file.
Metric read_metric(const store::Reader& in);

// 16 hexadecimal digits that depend on everything that a codec's answers depend on.
std::string fingerprint(const Codec& codec);

// Scores of n row codes against every query: out is (queries, n), row-major. Packs blocks on the way.
void score_rows(const Codec& codec, const Scorer& scorer, const std::uint8_t* codes, std::size_t n, float* out,
                int num_threads);

}  // namespace residua::codec
