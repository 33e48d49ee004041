// SPDX-License-Identifier: Apache-2.0
// Training, changes, and the file of an IvfIndex (docs/format.md).
#include "index/ivf_index.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"

namespace residua::index {

IvfIndex::IvfIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe,
                   std::size_t nlist, std::uint64_t seed)
    : TableIndex(dim, metric, mode, wants_codec, std::move(codec_recipe)), wanted_nlist_(nlist), seed_(seed) {
    if (nlist > kMaxLists) throw Error(ErrorKind::value, "nlist must be at most " + std::to_string(kMaxLists));
}

void IvfIndex::set_waiting(std::shared_ptr<const codec::Codec> codec) {
    std::unique_lock lock(mutex_);
    waiting_ = std::move(codec);
}

std::shared_ptr<const codec::Codec> IvfIndex::waiting() const {
    std::shared_lock lock(mutex_);
    return waiting_;
}

bool IvfIndex::is_trained() const {
    std::shared_lock lock(mutex_);
    return lists_.size() > 0;
}

bool IvfIndex::is_residual() const {
    std::shared_lock lock(mutex_);
    return residual_;
}

std::size_t IvfIndex::nlist() const {
    std::shared_lock lock(mutex_);
    return lists_.size();
}

IvfFit IvfIndex::fit() const {
    std::shared_lock lock(mutex_);
    return fit_;
}

double IvfIndex::imbalance() const {
    std::shared_lock lock(mutex_);
    return current_imbalance();
}

std::vector<std::uint32_t> IvfIndex::list_sizes() const {
    std::shared_lock lock(mutex_);
    std::vector<std::uint32_t> sizes;
    for (std::size_t l = 0; l < lists_.size(); ++l) sizes.push_back(lists_[l].n);
    return sizes;
}

double IvfIndex::current_imbalance() const {
    double sum = 0, squares = 0;
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        const double n = lists_[l].n;
        sum += n;
        squares += n * n;
    }
    return sum > 0 ? squares * static_cast<double>(lists_.size()) / (sum * sum) : 1.0;
}

void IvfIndex::set_centroids(std::vector<float> centroids) {
    const ConstMatrix c(centroids.data(), centroids.size() / dim_, dim_);
    nearest_ = train::NearestCentroids(c);
    if (metric_ == Metric::ip) probing_ = std::make_unique<train::NearestCentroids>(c, train::Nearness::product);
    centroid_norms_.resize(c.rows);
    for (std::size_t l = 0; l < c.rows; ++l) {
        centroid_norms_[l] = static_cast<float>(std::inner_product(c.row(l), c.row(l) + dim_, c.row(l), 0.0));
    }
    centroids_ = std::move(centroids);
    lists_ = IvfLists(c.rows);
}

void IvfIndex::train(Training t, int num_threads) {
    if (t.centroids.empty() || t.centroids.size() % dim_ != 0 || t.centroids.size() / dim_ > kMaxLists) {
        throw Error(ErrorKind::shape, "centroids must be 1 to " + std::to_string(kMaxLists) + " rows of " +
                                          std::to_string(dim_) + " values");
    }
    if (t.codec == nullptr && wants_codec_) throw Error(ErrorKind::value, "this index was made for a codec, and got none");
    std::unique_lock lock(mutex_);
    if (lists_.size() > 0) throw Error(ErrorKind::value, "the index is trained already");
    residual_ = t.residual;
    try {
        set_centroids(std::move(t.centroids));
        if (t.codec != nullptr) {
            take_codec_under(std::move(t.codec), num_threads, lock);
        } else {
            const store::RowSource rows = vectors().view();
            std::vector<float> x(rows.n * dim_);
            for (std::size_t r = 0; r < rows.n; ++r) vectors().get(r, x.data() + r * dim_);
            place_all(nullptr, {x.data(), rows.n, dim_}, num_threads)();
        }
    } catch (...) {
        residual_ = false;
        centroids_ = {};
        lists_ = IvfLists();
        throw;
    }
    fit_ = {t.error, current_imbalance(), 0.0, 0};
    waiting_.reset();
}

bool IvfIndex::takes_metric_of(const codec::Codec& codec) const {
    if (!residual_) return TableIndex::takes_metric_of(codec);
    if (metric_ != Metric::l2) return codec.metric() == Metric::ip;
    return codec.metric() == Metric::l2 || (codec.metric() == Metric::ip && codec.gains_from_residuals());
}

// The residual of a row as the metric sees it, and the term of l2 that goes into its code.
void IvfIndex::take_residual(const float* x, std::uint32_t list, float* out, float& term) const {
    const float* c = centroids_.data() + list * dim_;
    codec::copy_for_metric(x, dim_, metric_, out);
    for (std::size_t i = 0; i < dim_; ++i) out[i] -= c[i];
    if (metric_ != Metric::l2) return;
    double cr = 0, rr = 0;
    for (std::size_t i = 0; i < dim_; ++i) {
        cr += static_cast<double>(c[i]) * out[i];
        rr += static_cast<double>(out[i]) * out[i];
    }
    term = static_cast<float>(-(cr + rr / 2));
}

IvfIndex::Coded IvfIndex::code_rows(const codec::Codec* codec, ConstMatrix x, std::span<const std::uint32_t> numbers,
                                    std::span<const std::uint32_t> given, int num_threads) const {
    std::vector<std::uint32_t> list(x.rows);
    std::vector<double> errors(x.rows);
    parallel_for(x.rows, 256, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> z((end - begin) * dim_);
        for (std::size_t i = begin; i < end; ++i) {
            codec::copy_for_metric(x.row(i), dim_, metric_, z.data() + (i - begin) * dim_);
        }
        if (given.empty()) {
            nearest_.assign({z.data(), end - begin, dim_}, list.data() + begin);
        } else {
            std::copy(given.begin() + static_cast<std::ptrdiff_t>(begin), given.begin() + static_cast<std::ptrdiff_t>(end),
                      list.begin() + static_cast<std::ptrdiff_t>(begin));
        }
        for (std::size_t i = begin; i < end; ++i) {
            const float* c = centroids_.data() + list[i] * dim_;
            const float* zi = z.data() + (i - begin) * dim_;
            for (std::size_t j = 0; j < dim_; ++j) errors[i] += static_cast<double>((zi[j] - c[j]) * (zi[j] - c[j]));
        }
    });
    // By list, in order of the call.
    std::vector<std::uint32_t> order(x.rows);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return list[a] < list[b]; });
    Coded out;
    out.entries.resize(x.rows);
    for (std::size_t i = 0; i < x.rows; ++i) out.entries[i] = {list[order[i]], numbers[order[i]]};
    out.error = std::accumulate(errors.begin(), errors.end(), 0.0);
    if (codec == nullptr) return out;
    const std::size_t bytes = codec->code_bytes();
    out.codes.resize(x.rows * bytes);
    parallel_for(x.rows, 256, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> z((end - begin) * dim_), terms(end - begin);
        for (std::size_t i = begin; i < end; ++i) {
            float* zi = z.data() + (i - begin) * dim_;
            if (residual_) {
                take_residual(x.row(order[i]), out.entries[i].list, zi, terms[i - begin]);
            } else {
                std::copy_n(x.row(order[i]), dim_, zi);
            }
        }
        codec->encode({z.data(), end - begin, dim_}, out.codes.data() + begin * bytes, 1, codec::Effort::rounded);
        if (!residual_ || metric_ != Metric::l2 || codec->metric() == Metric::l2) return;
        for (std::size_t i = begin; i < end; ++i) codec->add_to_score(out.codes.data() + i * bytes, terms[i - begin]);
    });
    return out;
}

// Rows of the whole table, where they are live.
TableIndex::Commit IvfIndex::place_all(const codec::Codec* codec, ConstMatrix x, int num_threads) {
    const std::vector<std::uint32_t> live = ids_.live_rows();
    std::vector<float> kept;
    if (live.size() < x.rows) {
        for (std::uint32_t r : live) kept.insert(kept.end(), x.row(r), x.row(r) + dim_);
        x = {kept.data(), live.size(), dim_};
    }
    Coded coded = code_rows(codec, x, live, {}, num_threads);
    std::vector<std::uint32_t> more(lists_.size());
    for (const IvfLists::Entry& e : coded.entries) ++more[e.list];
    lists_.reserve(codec, more);
    return [this, codec, coded = std::move(coded)] { lists_.append(codec, coded.entries, coded.codes.data()); };
}

TableIndex::Commit IvfIndex::prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) {
    return place_all(&codec, x, num_threads);
}

TableIndex::Commit IvfIndex::prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                                          int num_threads) {
    if (lists_.size() == 0) return [] {};
    if (!lists.empty()) check_lists(lists, x.rows);
    Coded coded = code_rows(codec_.get(), x, plan.rows, lists, num_threads);
    std::vector<std::uint32_t> more(lists_.size());
    for (const IvfLists::Entry& e : coded.entries) ++more[e.list];
    lists_.reserve(codec_.get(), more);
    Bitset replaced;
    if (plan.n_new < x.rows) {
        replaced.resize(ids_.rows());
        for (std::size_t i = 0; i < x.rows; ++i) {
            if (!plan.is_new(i)) replaced.set(plan.rows[i]);
        }
    }
    return [this, n = x.rows, coded = std::move(coded), replaced = std::move(replaced)] {
        if (replaced.size() > 0) lists_.erase(codec_.get(), replaced);
        lists_.append(codec_.get(), coded.entries, coded.codes.data());
        fit_.added_error += coded.error;
        fit_.added += n;
    };
}

void IvfIndex::before_erase(std::span<const std::uint32_t> rows) {
    if (lists_.size() == 0 || rows.empty()) return;
    Bitset gone(ids_.rows());
    for (std::uint32_t r : rows) gone.set(r);
    lists_.own(codec_.get());
    lists_.erase(codec_.get(), gone);
}

void IvfIndex::keep_rows(std::span<const std::uint32_t> keep) {
    if (lists_.size() == 0) return;
    std::vector<std::uint32_t> numbers(ids_.rows());
    for (std::size_t i = 0; i < keep.size(); ++i) numbers[keep[i]] = static_cast<std::uint32_t>(i);
    lists_.pack(codec_.get(), numbers);
}

std::vector<float> IvfIndex::decoded(std::span<const std::uint32_t> rows) const {
    std::vector<std::uint32_t> lists;
    const std::vector<std::uint8_t> codes = lists_.gather(*codec_, rows, lists);
    std::vector<float> out(rows.size() * dim_);
    codec_->decode(codes.data(), rows.size(), out.data(), 1);
    for (std::size_t i = 0; residual_ && i < rows.size(); ++i) {
        const float* c = centroids_.data() + lists[i] * dim_;
        for (std::size_t j = 0; j < dim_; ++j) out[i * dim_ + j] += c[j];
    }
    return out;
}

void IvfIndex::add_memory(std::map<std::string, std::size_t>& parts) const {
    parts["codes"] = lists_.code_memory();
    parts["lists"] = lists_.list_memory();
    parts["centroids"] =
        (centroids_.capacity() + centroid_norms_.capacity()) * sizeof(float) +
        (lists_.size() > 0 ? nearest_.memory_bytes() : 0) + (probing_ ? probing_->memory_bytes() : 0);
}

void IvfIndex::save_parts(store::Writer& out) const {
    out.put_int("nlist", static_cast<std::int64_t>(wanted_nlist_));
    out.put_int("seed", static_cast<std::int64_t>(seed_));
    out.put_int("lists", static_cast<std::int64_t>(lists_.size()));
    if (waiting_) codec::write_codec(out, "waiting", *waiting_);
    if (lists_.size() == 0) return;
    out.put_int("residual", residual_ ? 1 : 0);
    out.put_double("trained_error", fit_.trained_error);
    out.put_double("trained_imbalance", fit_.trained_imbalance);
    out.put_double("added_error", fit_.added_error);
    out.put_int("added", static_cast<std::int64_t>(fit_.added));
    out.put<float>("centroids", centroids_);
    lists_.save(out, codec_.get());
}

std::shared_ptr<IvfIndex> IvfIndex::load(const store::Reader& in) {
    auto out = read_header(in, [&](Header h) {
        const auto nlist = static_cast<std::size_t>(in.get_int("nlist", 0, kMaxLists));
        const auto seed = static_cast<std::uint64_t>(in.get_int("seed"));
        return std::make_shared<IvfIndex>(h.dim, h.metric, h.mode, h.wants_codec, std::move(h.codec_recipe), nlist, seed);
    });
    const auto nlist = static_cast<std::size_t>(in.get_int("lists", 0, kMaxLists));
    out->residual_ = nlist > 0 && in.get_int("residual", 0, 1) == 1;
    out->load_table(in);
    if (out->wants_codec_ && (nlist > 0) != (out->codec_ != nullptr)) in.fail("meta", "lists and codec come together");
    if (out->residual_ && out->codec_ == nullptr) in.fail("meta", "residuals need a codec");
    if (in.has_nested("waiting")) {
        if (nlist > 0 || !out->wants_codec_) in.fail("waiting", "a codec in an index that waits for none");
        out->waiting_ = codec::read_codec(in.nested("waiting"));
        if (out->waiting_->dim() != out->dim_ || out->waiting_->metric() != out->metric_) {
            in.fail("waiting", "its dims or metric differ from the index");
        }
    }
    if (nlist == 0) return out;
    const auto centroids = in.array<float>("centroids", nlist * out->dim_);
    for (float v : centroids) {
        if (!std::isfinite(v)) in.fail("centroids", "a value is infinite or NaN");
    }
    out->set_centroids({centroids.begin(), centroids.end()});
    Bitset live(out->ids_.rows());
    for (std::uint32_t r : out->ids_.live_rows()) live.set(r);
    out->lists_ = IvfLists::load(in, out->codec_.get(), nlist, live, 1);
    out->fit_ = {in.get_double("trained_error"), in.get_double("trained_imbalance"), in.get_double("added_error"),
                 static_cast<std::uint64_t>(in.get_int("added", 0, std::numeric_limits<std::int64_t>::max()))};
    const IvfFit& f = out->fit_;
    if (!(f.trained_error >= 0 && f.trained_imbalance >= 0 && f.added_error >= 0) || std::isinf(f.added_error)) {
        in.fail("meta", "statistics of the lists must not be negative");
    }
    return out;
}

}  // namespace residua::index
