// SPDX-License-Identifier: Apache-2.0
#include "index/code_units.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "core/parallel.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kSpare = 256;  // rows above those kept, after which the best are chosen again

// The best rows of a stream; better ones raise the threshold now and then.
class Chosen {
public:
    explicit Chosen(std::size_t keep) : keep_(keep) { rows_.reserve(keep + kSpare); }
    float threshold() const { return threshold_; }
    void push(float score, std::uint32_t row) {
        rows_.push_back({score, row});
        if (rows_.size() == keep_ + kSpare) cut();
    }
    std::vector<ScoredRow> take() {
        if (rows_.size() > keep_) cut();
        return std::move(rows_);
    }

private:
    void cut() {
        const auto last = rows_.begin() + static_cast<std::ptrdiff_t>(keep_ - 1);
        std::nth_element(rows_.begin(), last, rows_.end(), [](const ScoredRow& a, const ScoredRow& b) {
            return a.score != b.score ? a.score > b.score : a.row < b.row;
        });
        threshold_ = last->score;
        rows_.resize(keep_);
    }
    std::size_t keep_;
    float threshold_ = kWorstScore;
    std::vector<ScoredRow> rows_;
};

// Bits of the rows [begin, begin + count), count at most 32.
std::uint32_t bits_at(const Bitset& rows, std::size_t begin, std::size_t count) {
    const std::size_t block = begin / 32, shift = begin % 32;
    const std::uint64_t bits = rows.block32(block) | std::uint64_t{rows.block32(block + 1)} << 32;
    return static_cast<std::uint32_t>(bits >> shift) & (count == 32 ? ~0u : (1u << count) - 1u);
}

}  // namespace

CodeUnits::Change CodeUnits::prepare(const codec::Codec& codec, std::size_t n, std::span<const std::uint32_t> rows,
                                     const CodeOf& code, int num_threads) {
    const EdgeForm form = edge_form(codec);
    const std::size_t step = form.unit_rows, bytes = form.unit_bytes;
    Change change;
    change.bytes = form.units(n) * bytes;
    change.unit_bytes = bytes;
    for (const std::uint32_t r : rows) change.units.push_back(static_cast<std::uint32_t>(r / step));
    std::sort(change.units.begin(), change.units.end());
    change.units.erase(std::unique(change.units.begin(), change.units.end()), change.units.end());
    change.packed.resize(change.units.size() * bytes);
    units_.reserve(std::max(units_.size(), change.bytes));
    parallel_for(change.units.size(), 16, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<std::uint8_t> codes;
        std::uint32_t of_unit[kMaxUnitRows];
        for (std::size_t u = begin; u < end; ++u) {
            const std::size_t first = change.units[u] * step, m = std::min(step, n - first);
            std::iota(of_unit, of_unit + m, static_cast<std::uint32_t>(first));
            pack_units(codec, {of_unit, m}, code, codes, change.packed.data() + u * bytes);
        }
    });
    return change;
}

void CodeUnits::commit(const Change& change) noexcept {
    const std::size_t bytes = change.unit_bytes;
    if (change.bytes > units_.size()) units_.resize(change.bytes, 0);
    for (std::size_t u = 0; u < change.units.size(); ++u) {
        std::memcpy(units_.edit() + change.units[u] * bytes, change.packed.data() + u * bytes, bytes);
    }
}

void CodeUnits::load(const store::Reader& in, const codec::Codec& codec, std::size_t n) {
    const auto units = in.array<std::uint8_t>("units", edge_form(codec).units(n) * codec.edge_unit_bytes());
    units_ = GrowArray<std::uint8_t>(units, in.keep_alive("units"));
}

namespace {

// Units of `rows`, whose codes code(row, out) writes.
template <class CodeOf>
AlignedVector<std::uint8_t> make_units(const codec::Codec& codec, std::span<const std::uint32_t> rows, const CodeOf& code,
                                       int num_threads) {
    const EdgeForm form = edge_form(codec);
    AlignedVector<std::uint8_t> out(form.units(rows.size()) * form.unit_bytes);
    parallel_for(rows.size(), 32 * form.unit_rows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<std::uint8_t> codes;
        pack_units(codec, rows.subspan(begin, end - begin), code, codes, out.data() + begin / form.unit_rows * form.unit_bytes);
    });
    return out;
}

}  // namespace

AlignedVector<std::uint8_t> gather_units(const codec::Codec& codec, const std::uint8_t* units, std::span<const std::uint32_t> rows,
                                         int num_threads) {
    const std::size_t step = codec.edge_rows(), bytes = codec.edge_unit_bytes();
    return make_units(codec, rows, [&](std::uint32_t row, std::uint8_t* code) {
        codec.unpack_edge(units + row / step * bytes, row % step, code);
    }, num_threads);
}

AlignedVector<std::uint8_t> pack_rows(const codec::Codec& codec, const std::uint8_t* table, std::span<const std::uint32_t> rows,
                                      int num_threads) {
    const std::size_t row_bytes = codec.row_bytes();
    return make_units(codec, rows, [&](std::uint32_t row, std::uint8_t* code) {
        codec.from_rows(table + row * row_bytes, 1, code);
    }, num_threads);
}

namespace {

// offer(score, row) sees every allowed row whose score is above threshold().
template <class Threshold, class Offer>
void scan(const codec::EdgeScorer& scorer, const EdgeForm& form, const std::uint8_t* units, std::size_t n, const Bitset* allowed,
          std::size_t query, const Threshold& threshold, const Offer& offer) {
    const std::size_t unit_rows = form.unit_rows, unit_bytes = form.unit_bytes;
    alignas(kCacheLine) float scores[kMaxUnitRows];
    for (std::size_t begin = 0; begin < n; begin += unit_rows, units += unit_bytes) {
        const std::size_t m = std::min(unit_rows, n - begin);
        std::uint32_t live = m == 32 ? ~0u : (1u << m) - 1u;
        if (allowed != nullptr) live = bits_at(*allowed, begin, m);
        if (live == 0) continue;
        std::uint32_t above = scorer.scores(units, query, threshold(), scores) & live;
        for (; above != 0; above &= above - 1) {
            const auto j = static_cast<std::size_t>(std::countr_zero(above));
            offer(scores[j], static_cast<std::uint32_t>(begin + j));
        }
    }
}

}  // namespace

std::vector<ScoredRow> scan_units(const codec::EdgeScorer& scorer, const EdgeForm& form, const std::uint8_t* units, std::size_t n,
                                  const Bitset* allowed, std::size_t query, std::size_t keep) {
    Chosen best(keep);
    scan(scorer, form, units, n, allowed, query, [&] { return best.threshold(); },
         [&](float score, std::uint32_t row) { best.push(score, row); });
    return best.take();
}

void scan_units(const codec::EdgeScorer& scorer, const EdgeForm& form, const std::uint8_t* units, std::size_t n,
                const Bitset* allowed, std::size_t query, float threshold, std::vector<ScoredRow>& out) {
    scan(scorer, form, units, n, allowed, query, [&] { return threshold; },
         [&](float score, std::uint32_t row) { out.push_back({score, row}); });
}

}  // namespace residua::index
