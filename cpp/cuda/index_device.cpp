// SPDX-License-Identifier: Apache-2.0
#include "cuda/index_device.hpp"

#include <utility>

#include "core/error.hpp"

namespace residua::cuda {

IndexDevice::IndexDevice(std::shared_ptr<SharedContext> context, MakeScan make)
    : context_(std::move(context)), make_(std::move(make)) {}

IndexDevice::~IndexDevice() {
    try {
        context_->use([&](Context&) { drop(); });
    } catch (const Error&) {  // the driver is gone already, and the memory with it
    }
}

void IndexDevice::drop() noexcept {
    scan_.reset();
    codec_.reset();
    ranks_.reset();
    stamp_ = 0;
    bytes_ = 0;
}

void IndexDevice::take(Context& context, const index::CodesNow& codes, int num_threads) {
    if (stamp_ == codes.stamp && codec_ == codes.codec) return;
    if (codec_ != codes.codec || codes.view.n == 0) drop();  // frees memory before more is taken
    stamp_ = 0;
    bytes_ = 0;
    ranks_.reset();
    try {
        if (scan_ == nullptr) scan_ = make_(context, *codes.codec);
        codec_ = codes.codec;
        if (codes.view.n > 0) scan_->take(*codec_, codes.view, num_threads);
    } catch (...) {
        drop();
        throw;
    }
    stamp_ = codes.stamp;
    bytes_ = codes.view.n > 0 ? scan_->device_bytes() : 0;
}

RowChoice IndexDevice::choice(Context& context, const index::CodesNow& codes, const Bitset* allowed, int num_threads) {
    if (codes.ranks && ranks_ == nullptr) {
        ranks_ = std::make_unique<DeviceRanks>(context, codes.ranks());
        bytes_ += ranks_->bytes();
    }
    RowChoice out;
    out.allowed = allowed;
    out.num_threads = num_threads;
    out.kept = ranks_.get();
    return out;
}

void IndexDevice::hold(const index::CodesNow& codes, int num_threads) {
    context_->use([&](Context& context) { take(context, codes, num_threads); });
}

index::RowLists IndexDevice::best(const index::CodesNow& codes, const codec::Scorer& queries, std::size_t keep,
                                  const Bitset* allowed, int num_threads) {
    return context_->use([&](Context& context) {
        take(context, codes, num_threads);
        if (codes.view.n == 0 || queries.size() == 0) return index::RowLists(queries.size());
        return scan_->best(queries, keep, choice(context, codes, allowed, num_threads));
    });
}

index::RowLists IndexDevice::best_of(const index::CodesNow& codes, const codec::Scorer& queries, std::span<const RowRange> ranges,
                                     std::size_t keep, const Bitset* allowed, int num_threads) {
    return context_->use([&](Context& context) {
        take(context, codes, num_threads);
        if (ranges.empty()) return index::RowLists(queries.size());
        return scan_->best_of(queries, ranges, keep, choice(context, codes, allowed, num_threads));
    });
}

}  // namespace residua::cuda
