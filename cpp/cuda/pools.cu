// SPDX-License-Identifier: Apache-2.0
#include "cuda/pools.hpp"

#include "core/error.hpp"
#include "cuda/launch.hpp"

#if defined(__CUDACC__)
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_scan.cuh>
#endif

namespace residua::cuda {
namespace {

// Sorts the keys of a block's pool, drops those that stand there twice, and keeps the best.
template <int kItems>
struct SelectBest {
    static constexpr int kThreads = 512;
    static constexpr int kCapacity = kItems * kThreads;

    Key* keys;
    std::uint32_t* counts;
    Key* thresholds;
    std::uint32_t keep;
    std::uint32_t* kept;
    std::uint32_t* most;

#if defined(__CUDACC__)
    using Sort = cub::BlockRadixSort<Key, kThreads, kItems>;
    using Scan = cub::BlockScan<std::uint32_t, kThreads>;
    union Shared {
        typename Sort::TempStorage sort;
        typename Scan::TempStorage scan;
        Key last[kThreads];
    };
    static constexpr std::size_t kSharedBytes = sizeof(Shared);

    RZ_DEVICE void operator()() const {
        auto& shared = *reinterpret_cast<Shared*>(shared_memory());
        const std::uint32_t query = block_index().x;
        Key* pool = keys + std::size_t{query} * kCapacity;
        const std::uint32_t offered = counts[query];
        const std::uint32_t n = offered < kCapacity ? offered : kCapacity;
        const auto thread = static_cast<std::uint32_t>(thread_index());
        Key mine[kItems];
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
            const std::uint32_t at = thread * kItems + static_cast<std::uint32_t>(i);
            mine[i] = at < n ? pool[at] : 0;
        }
        Sort(shared.sort).SortDescending(mine);
        sync_block();
        shared.last[thread] = mine[kItems - 1];
        sync_block();
        Key before = thread > 0 ? shared.last[thread - 1] : 0;
        std::uint32_t different = 0;
        bool first[kItems];
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
            first[i] = mine[i] != 0 && mine[i] != before;
            before = mine[i];
            different += first[i] ? 1u : 0u;
        }
        sync_block();
        std::uint32_t place = 0, total = 0;
        Scan(shared.scan).ExclusiveSum(different, place, total);
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
            if (!first[i]) continue;
            if (place < keep) pool[place] = mine[i];
            if (place == keep - 1) thresholds[query] = mine[i];
            ++place;
        }
        finish(query, offered, total);
    }
#else
    static constexpr std::size_t kSharedBytes = 0;

    void operator()() const {
        if (thread_index() != 0) return;
        const std::uint32_t query = block_index().x;
        Key* pool = keys + std::size_t{query} * kCapacity;
        const std::uint32_t offered = counts[query];
        Key* end = pool + std::min<std::uint32_t>(offered, kCapacity);
        std::sort(pool, end, std::greater<>());
        end = std::find(pool, std::unique(pool, end), Key{0});
        const auto total = static_cast<std::uint32_t>(end - pool);
        if (total >= keep) thresholds[query] = pool[keep - 1];
        finish(query, offered, total);
    }
#endif

    RZ_DEVICE void finish(std::uint32_t query, std::uint32_t offered, std::uint32_t total) const {
        if (thread_index() != 0) return;
        counts[query] = kept[query] = total < keep ? total : keep;
        atomic_max(most, offered);
    }
};

// Kept keys, close together.
struct GatherKept {
    static constexpr int kThreads = 256;

    const Key* keys;
    const std::uint32_t* kept;
    Key* out;
    std::size_t n;  // of out
    std::uint32_t keep, capacity;

    RZ_DEVICE void operator()() const {
        const std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (i >= n) return;
        const std::size_t query = i / keep, place = i % keep;
        out[i] = place < kept[query] ? keys[query * capacity + place] : 0;
    }
};

using SelectSmall = SelectBest<8>;
using SelectLarge = SelectBest<32>;

std::uint32_t capacity_for(std::size_t keep) {
    return keep <= SelectSmall::kCapacity / 2 ? SelectSmall::kCapacity : SelectLarge::kCapacity;
}

}  // namespace

Pools::Pools(Context& context, std::size_t n_queries, std::size_t keep)
    : context_(context), n_(n_queries), keep_(keep), capacity_(capacity_for(keep)) {
    if (keep == 0 || keep > kMostKept) {
        throw Error(ErrorKind::unsupported, "the GPU keeps 1 to " + std::to_string(kMostKept) + " candidates per query, not " +
                                                std::to_string(keep) + "; ask for a smaller k or rerank, or search on the CPU");
    }
    const std::size_t shared = capacity_ == SelectSmall::kCapacity ? SelectSmall::kSharedBytes : SelectLarge::kSharedBytes;
    if (shared > context.info().shared_bytes) {
        throw Error(ErrorKind::unsupported, context.info().name + " keeps at most " + std::to_string(SelectSmall::kCapacity / 2) +
                                                " candidates per query, not " + std::to_string(keep) +
                                                "; ask for a smaller k or rerank, or search on the CPU");
    }
    keys_ = {context, n_ * capacity_, "the pools of the queries"};
    counts_ = {context, n_, "the pools of the queries"};
    thresholds_ = {context, n_, "the pools of the queries"};
    kept_ = {context, n_, "the pools of the queries"};
    most_ = {context, 1, "the pools of the queries"};
    counts_.fill(0);
    kept_.fill(0);
    thresholds_.fill(0);
}

std::size_t Pools::bytes_per_query(std::size_t keep) {
    return capacity_for(keep) * sizeof(Key) + sizeof(Key) + 2 * sizeof(std::uint32_t);
}

bool Pools::select() {
    most_.fill(0);
    const auto run = [&](auto kernel) { launch(kernel, context_, {n_}, decltype(kernel)::kSharedBytes); };
    const auto keep = static_cast<std::uint32_t>(keep_);
    if (capacity_ == SelectSmall::kCapacity) {
        run(SelectSmall{keys_.data(), counts_.data(), thresholds_.data(), keep, kept_.data(), most_.data()});
    } else {
        run(SelectLarge{keys_.data(), counts_.data(), thresholds_.data(), keep, kept_.data(), most_.data()});
    }
    std::uint32_t most = 0;
    most_.copy_out(&most, 1);
    return most > capacity_;
}

void Pools::scan(std::size_t n, std::size_t step, std::size_t growth, const Offer& offer_rows,
                 const std::function<void()>& rescore) {
    const auto rounded = [step](std::size_t rows) { return std::max(step, rows / step * step); };
    // All rows of the first part are offered; of later ones, in random order, at most half of what there is room for.
    const std::size_t room = (capacity_ - keep_) / 2;
    std::size_t part = rounded(std::min<std::size_t>(capacity_, growth * keep_ * 8));
    bool lost = false;
    for (std::size_t begin = 0; begin < n;) {
        const std::size_t end = std::min(n, begin + part);
        offer_rows(begin, end);
        if (rescore) rescore();
        if (select()) {
            // Rows that tie with the threshold by an upper bound would fill the pools again and again: fewer, down to
            // what always has room.
            lost = true;
            part = std::max(rounded((end - begin) / 2), rounded(capacity_ - keep_));
            continue;
        }
        const std::size_t most = lost ? 2 * (end - begin) : n;
        begin = end;
        part = rounded(std::min({begin * growth, begin / keep_ * room + capacity_ / 2, most}));
    }
}

std::vector<Key> Pools::take() const {
    DeviceArray<Key> out(context_, n_ * keep_, "the results");
    launch(GatherKept{keys_.data(), kept_.data(), out.data(), out.size(), static_cast<std::uint32_t>(keep_), capacity_}, context_,
           {(out.size() + GatherKept::kThreads - 1) / GatherKept::kThreads});
    return out.to_host();
}

}  // namespace residua::cuda
