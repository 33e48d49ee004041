// SPDX-License-Identifier: Apache-2.0
// Codes of one index on one device (index/code_device.hpp).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/code_scan.hpp"
#include "cuda/row_choice.hpp"
#include "cuda/shared_context.hpp"
#include "index/code_device.hpp"

namespace residua::cuda {

class IndexDevice final : public index::CodeDevice {
public:
    using MakeScan = std::function<std::unique_ptr<CodeScan>(Context&, const codec::Codec&)>;

    explicit IndexDevice(std::shared_ptr<SharedContext> context, MakeScan make = make_code_scan);
    ~IndexDevice() override;

    std::string name() const override { return "cuda:" + std::to_string(context_->device()); }
    std::size_t most_kept() const override { return Pools::kMostKept; }
    std::size_t memory_bytes() const override { return bytes_; }

    void hold(const index::CodesNow& codes, int num_threads) override;
    index::RowLists best(const index::CodesNow& codes, const codec::Scorer& queries, std::size_t keep, const Bitset* allowed,
                         int num_threads) override;
    index::RowLists best_of(const index::CodesNow& codes, const codec::Scorer& queries, std::span<const RowRange> ranges,
                            std::size_t keep, const Bitset* allowed, int num_threads) override;

private:
    // The context is in use.
    void take(Context& context, const index::CodesNow& codes, int num_threads);
    RowChoice choice(Context& context, const index::CodesNow& codes, const Bitset* allowed, int num_threads);
    void drop() noexcept;

    const std::shared_ptr<SharedContext> context_;
    const MakeScan make_;
    std::unique_ptr<CodeScan> scan_;               // of codec_
    std::shared_ptr<const codec::Codec> codec_;
    std::uint64_t stamp_ = 0;                      // of the codes that scan_ holds; 0: of none
    std::unique_ptr<DeviceRanks> ranks_;           // of the rows of stamp_, once a search needed them
    std::atomic<std::size_t> bytes_{0};
};

}  // namespace residua::cuda
