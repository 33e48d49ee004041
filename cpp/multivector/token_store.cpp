// SPDX-License-Identifier: Apache-2.0
#include "multivector/token_store.hpp"

#include <limits>
#include <shared_mutex>

#include "core/error.hpp"
#include "core/held_still.hpp"

namespace residua::multivector {
namespace {

// Numbers of documents are rows of a TopK.
constexpr std::size_t kMaxDocuments = std::numeric_limits<std::uint32_t>::max();

}  // namespace

std::size_t TokenStore::size() const {
    const std::shared_lock lock(mutex_);
    return documents();
}

std::size_t TokenStore::tokens() const {
    const std::shared_lock lock(mutex_);
    return static_cast<std::size_t>(offsets_.back()) - removed_tokens_;
}

std::size_t TokenStore::removed() const {
    const std::shared_lock lock(mutex_);
    return removed_count_;
}

void TokenStore::check_dim(const TokenSets& sets, const char* what) const {
    if (sets.dim == dim_) return;
    throw Error(ErrorKind::shape, std::string(what) + " have " + std::to_string(sets.dim) + " dims, expected " +
                                      std::to_string(dim_));
}

void TokenStore::add(const TokenSets& documents_added, int num_threads) {
    check_dim(documents_added, "tokens");
    const std::unique_ptr<TokenData> more = data_->encoded(documents_added, num_threads);
    const std::lock_guard writing(writing_);
    const std::lock_guard lock(mutex_);
    if (documents() + documents_added.n > kMaxDocuments) {
        throw Error(ErrorKind::value, "a token store holds at most " + std::to_string(kMaxDocuments) + " documents");
    }
    // All memory first: what follows cannot fail.
    make_room(offsets_, documents_added.n);
    removed_.resize(documents() + documents_added.n);
    data_->append(*more);
    for (std::size_t i = 0; i < documents_added.n; ++i) {
        offsets_.push_back(offsets_.back() + static_cast<std::int64_t>(documents_added.count(i)));
    }
}

void TokenStore::remove(std::span<const std::int64_t> numbers) {
    const std::lock_guard writing(writing_);
    const std::lock_guard lock(mutex_);
    check_numbers(numbers, documents());
    Bitset after = removed_;
    for (const std::int64_t number : numbers) {
        const auto document = static_cast<std::size_t>(number);
        if (after.test(document)) {
            throw Error(ErrorKind::value, "documents: " + std::to_string(number) +
                                              (removed_.test(document) ? " is removed already" : " is given twice"));
        }
        after.set(document);
    }
    mark_removed(numbers);
}

// Distinct documents that are not removed yet.
void TokenStore::mark_removed(std::span<const std::int64_t> numbers) {
    for (const std::int64_t number : numbers) {
        const auto document = static_cast<std::size_t>(number);
        removed_.set(document);
        removed_tokens_ += static_cast<std::size_t>(offsets_[document + 1] - offsets_[document]);
    }
    removed_count_ += numbers.size();
}

void TokenStore::compact() {
    const std::lock_guard writing(writing_);  // nothing changes below, and others read
    if (removed_tokens_ == 0) return;
    std::vector<std::int64_t> offsets{0};
    for (std::size_t i = 0; i < documents(); ++i) {
        offsets.push_back(offsets.back() + static_cast<std::int64_t>(places().count(i)));
    }
    std::unique_ptr<TokenData> kept = data_->compacted(places(), documents());
    const std::lock_guard lock(mutex_);
    data_ = std::move(kept);
    offsets_ = std::move(offsets);
    removed_tokens_ = 0;
}

void TokenStore::show(const std::function<void(const TokenData& data, const DocumentPlaces& places)>& look) const {
    const std::shared_lock lock(mutex_);
    look(*data_, places());
}

std::vector<float> TokenStore::decode(std::size_t document) const {
    const std::shared_lock lock(mutex_);
    if (document >= documents()) {
        throw Error(ErrorKind::out_of_range, "document " + std::to_string(document) + " is not one of the " +
                                                 std::to_string(documents()) + " documents");
    }
    std::vector<float> out(places().count(document) * dim_);
    data_->decode(places(), document, out.data());
    return out;
}

std::vector<float> TokenStore::maxsim(const TokenSets& queries, const DocumentNumbers& chosen,
                                      int num_threads) const {
    check_dim(queries, "query tokens");
    const std::shared_lock lock(mutex_);
    return multivector::maxsim(*data_->prepare(queries, places(), num_threads), queries, chosen, num_threads);
}

BestTokens TokenStore::best_tokens(const TokenSets& query, const DocumentNumbers& chosen, int num_threads) const {
    check_dim(query, "query tokens");
    const std::shared_lock lock(mutex_);
    return multivector::best_tokens(*data_->prepare(query, places(), num_threads), chosen, num_threads);
}

Ranking TokenStore::rank(const TokenSets& queries, const Candidates& candidates, std::size_t k,
                         int num_threads) const {
    check_dim(queries, "query tokens");
    const std::shared_lock lock(mutex_);
    const auto make = [this](const TokenSets& query) { return data_->prepare(query, places(), 1); };
    return multivector::rank(queries, places(), candidates, k, make, num_threads);
}

std::map<std::string, std::size_t> TokenStore::memory() const {
    const std::shared_lock lock(mutex_);
    std::map<std::string, std::size_t> parts;
    parts["offsets"] = offsets_.capacity() * sizeof(std::int64_t) + removed_.words().size_bytes();
    data_->add_memory(parts);
    return parts;
}

void TokenStore::save(const std::string& path) const {
    store::Writer w(kKind);
    const auto held = write(w);
    w.write_file(path);
}

std::shared_ptr<const void> TokenStore::write(store::Writer& out) const {
    auto held = std::make_shared<HeldStill>(writing_, mutex_);
    out.put("offsets", std::span<const std::int64_t>(offsets_));
    std::vector<std::int64_t> removed;
    for (std::size_t i = 0; i < documents(); ++i) {
        if (removed_.test(i)) removed.push_back(static_cast<std::int64_t>(i));
    }
    if (!removed.empty()) out.put_copy("removed", std::span<const std::int64_t>(removed));
    data_->write(out);
    return held;
}

std::shared_ptr<TokenStore> TokenStore::load(const store::Reader& in) {
    const auto offsets = in.array<std::int64_t>("offsets");
    in.verify("offsets");
    if (offsets.empty() || offsets[0] != 0) in.fail("offsets", "does not begin with 0");
    if (offsets.size() - 1 > kMaxDocuments) in.fail("offsets", "holds too many documents");
    for (std::size_t i = 1; i < offsets.size(); ++i) {
        // Bounded so that numbers of bytes cannot overflow.
        if (offsets[i] < offsets[i - 1] || offsets[i] > std::int64_t{1} << 40) in.fail("offsets", "does not ascend");
    }
    auto out = std::make_shared<TokenStore>(read_token_data(in, offsets));
    out->offsets_.assign(offsets.begin(), offsets.end());
    out->removed_.resize(out->documents());
    if (!in.has("removed")) return out;
    const auto removed = in.array<std::int64_t>("removed");
    in.verify("removed");
    for (std::size_t i = 0; i < removed.size(); ++i) {
        const std::int64_t least = i == 0 ? 0 : removed[i - 1] + 1;
        if (removed[i] < least || static_cast<std::size_t>(removed[i]) >= out->documents()) {
            in.fail("removed", "does not hold ascending numbers of documents");
        }
    }
    out->mark_removed(removed);
    return out;
}

}  // namespace residua::multivector
