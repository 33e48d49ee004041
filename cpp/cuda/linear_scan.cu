// SPDX-License-Identifier: Apache-2.0
#include "cuda/linear_scan.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "cuda/launch.hpp"
#include "cuda/linear_kernels.hpp"
#include "cuda/row_choice.hpp"

namespace residua::cuda {
namespace {

using codec::kBlockRows;

constexpr std::size_t kUploadRows = std::size_t{1} << 16;
constexpr std::size_t kTaskRows = 4096;                     // of a task of the first kernel
constexpr std::size_t kMostShared = std::size_t{64} << 10;  // that fragments of a tile may take
constexpr std::size_t kMostQueries = 16'384;                // of one batch, and of one over ranges
constexpr std::size_t kMostRangeQueries = 1024;

std::size_t padded(std::size_t rows) { return (rows + kBlockRows - 1) / kBlockRows * kBlockRows; }

template <class T>
DeviceArray<T> uploaded(Context& context, const std::vector<T>& host, const char* what) {
    return host.empty() ? DeviceArray<T>() : DeviceArray<T>(context, host, what);
}

}  // namespace

// What a batch of queries needs on the device, while it is searched.
struct LinearScan::Batch {
    Batch(LinearScan& scan, const codec::Scorer& scorer, std::size_t begin, std::size_t end, const DeviceChoice& choice, int num_threads_)
        : owner(scan),
          context(scan.context_),
          queries(linear_queries(scorer, begin, end, scan.layout_, num_threads_)),
          chosen(choice),
          num_threads(num_threads_) {
        weights = uploaded(context, queries.weights, kWhat);
        rests = uploaded(context, queries.rests, kWhat);
        bounds = uploaded(context, queries.bounds, kWhat);
        terms = uploaded(context, queries.terms, kWhat);
    }

    LinearCodes codes() const {
        return {owner.layout_, owner.codes_.data(), owner.scale_.data(), owner.add_.data(), chosen.view()};
    }

    void rescore(Pools& pools) const {
        launch(Rescore{codes(), pools.view(), weights.data(), rests.data(), terms.data()}, context,
               {pools.size() * Rescore::kBlocksPerQuery});
    }

    void scan_bits(Pools& pools, const BitTiles& tiles, const DeviceArray<std::uint32_t>& fragments,
                   const DeviceArray<ScanTask>& tasks) const {
        const auto run = [&](auto kernel, std::size_t shared) { launch(kernel, context, {tasks.size()}, shared); };
        const auto make = [&](auto kernel) {
            kernel.codes = codes();
            kernel.pools = pools.view();
            kernel.tasks = tasks.data();
            kernel.fragments = fragments.data();
            kernel.tile_words = tiles.tile_words;
            kernel.planes = tiles.planes;
            kernel.bounds = bounds.data();
            kernel.n_queries = static_cast<std::uint32_t>(queries.n);
            return kernel;
        };
        const std::size_t shared = tiles.tile_words * sizeof(std::uint32_t);
        if (tiles.slots == 2) {
            shared <= kMostShared ? run(make(ScanBits<true, true>{}), shared) : run(make(ScanBits<true, false>{}), 0);
        } else {
            shared <= kMostShared ? run(make(ScanBits<false, true>{}), shared) : run(make(ScanBits<false, false>{}), 0);
        }
    }

    static constexpr const char* kWhat = "the queries";
    LinearScan& owner;
    Context& context;
    LinearQueries queries;
    const DeviceChoice& chosen;
    int num_threads;
    DeviceArray<std::int16_t> weights, rests;
    DeviceArray<LinearBound> bounds;
    DeviceArray<LinearTerms> terms;
};

void LinearScan::make_room(const codec::LinearForm& form, std::size_t n) {
    rows_ = 0;
    codes_ = {};
    scale_ = {};
    add_ = {};
    layout_ = linear_layout(form);
    codes_ = {context_, padded(n) * layout_.words, "the codes of the index"};
    if (!form.has_scalars) return;
    scale_ = {context_, padded(n), "the codes of the index"};
    add_ = {context_, padded(n), "the codes of the index"};
}

void LinearScan::take_made(const codec::LinearForm& form, std::size_t n, const std::function<void(std::uint32_t* words, std::size_t count)>& make) {
    make_room({form.layout, false}, n);
    make(codes_.data(), codes_.size());
    rows_ = n;
}

void LinearScan::take(const codec::Codec& codec, codec::BlockView codes, int num_threads) {
    const auto form = codec.linear_form();
    if (!form) throw Error(ErrorKind::unsupported, "scores of a " + codec.kind() + " are not linear in bits");
    make_room(*form, codes.n);
    const std::size_t row_words = layout_.words, plane_bytes = form->layout.code_bytes();
    std::vector<std::uint32_t> words;
    std::vector<float> scale, add;
    for (std::size_t begin = 0; begin < codes.n; begin += kUploadRows) {
        const std::size_t end = std::min(codes.n, begin + kUploadRows), n = padded(end - begin);
        words.assign(n * row_words, 0);
        scale.assign(n, 0.0f);
        add.assign(n, 0.0f);
        parallel_for((end - begin + kBlockRows - 1) / kBlockRows, 32, num_threads, [&](std::size_t first, std::size_t last, int) {
            std::vector<std::uint8_t> planes(kBlockRows * plane_bytes);
            for (std::size_t b = first; b < last; ++b) {
                const std::size_t row = begin + b * kBlockRows, stop = std::min(end, row + kBlockRows);
                codec.linear_rows(codes, row, stop, planes.data(), scale.data() + b * kBlockRows, add.data() + b * kBlockRows);
                for (std::size_t r = row; r < stop; ++r) {
                    for (std::size_t w = 0; w < plane_bytes / 4; ++w) {
                        std::memcpy(&words[layout_.at(r - begin, static_cast<std::uint32_t>(w))],
                                    planes.data() + (r - row) * plane_bytes + w * 4, 4);
                    }
                }
            }
        });
        codes_.copy_in(words.data(), words.size(), begin * row_words);
        if (!form->has_scalars) continue;
        scale_.copy_in(scale.data(), n, begin);
        add_.copy_in(add.data(), n, begin);
    }
    rows_ = codes.n;
}

// Whether spreading codes out for up to 256 queries at once takes less time than reading them for one or two.
bool LinearScan::takes_many(std::size_t n_queries) const {
    if (way_.many_from != 0) return n_queries >= way_.many_from;
    constexpr double kBytesPerSecond = 4e12, kProductsPerSecond = 5e14;
    const double slots = layout_.planes == 1 ? 2 : 1;
    const double few = static_cast<double>(n_queries) / slots * layout_.words * 4 / kBytesPerSecond;
    constexpr std::size_t kTile = ScanBytes<true>::kQueries;
    const auto queries = static_cast<double>((n_queries + kTile - 1) / kTile * kTile);
    return few > queries * layout_.groups * 32 / kProductsPerSecond;
}

// Queries whose pools, and as much again, fit what is left of the cap.
std::size_t LinearScan::batch_size(std::size_t most, std::size_t keep) const {
    if (context_.limit() == 0) return most;
    const std::size_t left = context_.limit() - std::min(context_.limit(), context_.used());
    return std::clamp<std::size_t>(left / 2 / Pools::bytes_per_query(keep), 1, most);
}

void LinearScan::scan_for_many(const Batch& batch, Pools& pools) {
    const ByteTiles tiles = byte_tiles(batch.queries, ScanBytes<true>::kQueries, batch.num_threads);
    if (ScanBytes<true>::shared_bytes(tiles.steps) <= context_.info().shared_bytes) {
        scan_for_many<true>(batch, tiles, pools);
    } else {
        scan_for_many<false>(batch, tiles, pools);
    }
}

template <bool kResident>
void LinearScan::scan_for_many(const Batch& batch, const ByteTiles& tiles, Pools& pools) {
    using Kernel = ScanBytes<kResident>;
    const auto weights = uploaded(context_, tiles.fragments, Batch::kWhat);
    const std::size_t query_blocks = (batch.queries.n + Kernel::kQueries - 1) / Kernel::kQueries;
    // A block takes several tiles of rows for one load of its weights; a few blocks per multiprocessor, so that they end together.
    constexpr std::size_t kBlocksPerProcessor = 4;
    const std::size_t enough = kBlocksPerProcessor * static_cast<std::size_t>(context_.info().multiprocessors);
    const std::size_t most_row_blocks = std::max<std::size_t>(1, enough / query_blocks);
    Kernel kernel{};
    kernel.codes = batch.codes();
    kernel.pools = pools.view();
    kernel.weights = weights.data();
    kernel.steps = static_cast<std::uint32_t>(tiles.steps);
    kernel.bounds = batch.bounds.data();
    kernel.n_queries = static_cast<std::uint32_t>(batch.queries.n);
    kernel.query_blocks = static_cast<std::uint32_t>(query_blocks);
    pools.scan(rows_, kBlockRows, way_.growth != 0 ? way_.growth : 8, [&](std::size_t begin, std::size_t end) {
        kernel.row_begin = static_cast<std::uint32_t>(begin);
        kernel.row_end = static_cast<std::uint32_t>(end);
        const std::size_t row_blocks = std::min(most_row_blocks, (end - begin + Kernel::kRows - 1) / Kernel::kRows);
        launch(kernel, context_, {query_blocks * row_blocks}, Kernel::shared_bytes(tiles.steps));
    }, [&] { batch.rescore(pools); });
}

// make_tasks(begin, end, out): what the tiles read of a part.
template <class MakeTasks>
void LinearScan::scan_for_few(const Batch& batch, const BitTiles& tiles, std::size_t n, std::size_t growth, Pools& pools, MakeTasks make_tasks) {
    const auto fragments = uploaded(context_, tiles.fragments, Batch::kWhat);
    std::vector<ScanTask> tasks;
    pools.scan(n, kBlockRows, way_.growth != 0 ? way_.growth : growth, [&](std::size_t begin, std::size_t end) {
        tasks.clear();
        make_tasks(begin, end, tasks);
        if (tasks.empty()) return;
        const DeviceArray<ScanTask> on_device(context_, tasks, "the parts of the scan");
        batch.scan_bits(pools, tiles, fragments, on_device);
    }, [&] { batch.rescore(pools); });
}

std::vector<std::vector<ScoredRow>> LinearScan::best(const codec::Scorer& scorer, std::size_t keep, const RowChoice& choice) {
    std::vector<std::vector<ScoredRow>> out(scorer.size());
    const DeviceChoice chosen(context_, choice, rows_);
    const std::size_t most = batch_size(kMostQueries, keep);
    for (std::size_t first = 0; first < scorer.size(); first += most) {
        const Batch batch(*this, scorer, first, std::min(scorer.size(), first + most), chosen, choice.num_threads);
        Pools pools(context_, batch.queries.n, keep);
        if (takes_many(batch.queries.n)) {
            scan_for_many(batch, pools);
        } else {
            const BitTiles tiles = bit_tiles(batch.queries, layout_, true);
            const std::size_t n_tiles = (batch.queries.n + tiles.slots - 1) / tiles.slots;
            scan_for_few(batch, tiles, rows_, 64, pools, [&](std::size_t begin, std::size_t end, std::vector<ScanTask>& tasks) {
                // Tiles of the same rows stand together, so that codes come from the caches for all but the first.
                for (std::size_t row = begin; row < end; row += kTaskRows) {
                    for (std::uint32_t tile = 0; tile < n_tiles; ++tile) {
                        tasks.push_back({tile, static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(std::min(end, row + kTaskRows)), 0.0f});
                    }
                }
            });
        }
        chosen.take(pools, batch.queries.n, out.begin() + static_cast<std::ptrdiff_t>(first));
    }
    return out;
}

std::vector<std::vector<ScoredRow>> LinearScan::best_of(const codec::Scorer& scorer, std::span<const RowRange> ranges, std::size_t keep,
                                                        const RowChoice& choice) {
    // Every query has its ranges one after the other, each filled up to whole blocks; a part is the same stretch of all.
    std::vector<std::vector<RowRange>> by_query(scorer.size());
    std::vector<std::size_t> lengths(scorer.size());
    for (const RowRange& range : ranges) {
        if (range.begin >= range.end) continue;
        by_query[range.query].push_back(range);
        lengths[range.query] += padded(range.end - range.begin);
    }
    std::vector<std::vector<ScoredRow>> out(scorer.size());
    const DeviceChoice chosen(context_, choice, rows_);
    const std::size_t most = batch_size(kMostRangeQueries, keep);
    for (std::size_t first = 0; first < scorer.size(); first += most) {
        const Batch batch(*this, scorer, first, std::min(scorer.size(), first + most), chosen, choice.num_threads);
        Pools pools(context_, batch.queries.n, keep);
        const auto length = lengths.begin() + static_cast<std::ptrdiff_t>(first);
        const std::size_t longest = *std::max_element(length, length + static_cast<std::ptrdiff_t>(batch.queries.n));
        scan_for_few(batch, bit_tiles(batch.queries, layout_, false), longest, 8, pools,
                     [&](std::size_t begin, std::size_t end, std::vector<ScanTask>& tasks) {
            for (std::uint32_t q = 0; q < batch.queries.n; ++q) {
                std::size_t at = 0;
                for (const RowRange& range : by_query[first + q]) {
                    const std::size_t stretch = padded(range.end - range.begin);
                    for (std::size_t p = std::max(begin, at); p < std::min(end, at + stretch); p += kTaskRows) {
                        const std::size_t stop = std::min(std::min(end, at + stretch), p + kTaskRows);
                        tasks.push_back({q, static_cast<std::uint32_t>(range.begin + (p - at)),
                                         static_cast<std::uint32_t>(std::min<std::size_t>(range.end, range.begin + (stop - at))), range.term});
                    }
                    at += stretch;
                }
            }
        });
        chosen.take(pools, batch.queries.n, out.begin() + static_cast<std::ptrdiff_t>(first));
    }
    return out;
}

}  // namespace residua::cuda
