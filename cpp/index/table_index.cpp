// SPDX-License-Identifier: Apache-2.0
// Changes of the table, what it weighs, and how it travels (docs/format.md).
#include "index/table_index.hpp"

#include <algorithm>
#include <mutex>
#include <optional>

#include "core/error.hpp"
#include "core/held_still.hpp"
#include "core/parallel.hpp"

namespace residua::index {
namespace {

using store::VectorMode;

VectorMode kept_mode(VectorMode mode, bool wants_codec) {
    // Without a codec the vectors are what is scanned: "auto" keeps them as they are.
    return mode == VectorMode::automatic && !wants_codec ? VectorMode::float32 : mode;
}

}  // namespace

TableIndex::TableIndex(std::size_t dim, Metric metric, VectorMode mode, bool wants_codec, std::string codec_recipe)
    : dim_(dim),
      metric_(metric),
      mode_(mode),
      wants_codec_(wants_codec),
      codec_recipe_(std::move(codec_recipe)),
      vectors_(kept_mode(mode, wants_codec), dim, metric) {
    if (!wants_codec && mode == VectorMode::none) {
        throw Error(ErrorKind::value, "vectors='none' needs a codec: without one there is nothing to search");
    }
    if (wants_codec) staging_ = std::make_unique<store::VectorStore>(VectorMode::float32, dim, metric);
}

std::size_t TableIndex::size() const {
    std::shared_lock lock(mutex_);
    return ids_.size();
}

bool TableIndex::awaits_codec() const {
    std::shared_lock lock(mutex_);
    return wants_codec_ && codec_ == nullptr;
}

std::shared_ptr<const codec::Codec> TableIndex::codec() const {
    std::shared_lock lock(mutex_);
    return codec_;
}

std::unique_lock<FairMutex> TableIndex::lock_unless_aside() {
    std::unique_lock lock(mutex_, std::defer_lock);
    if (!prepares_aside()) lock.lock();
    return lock;
}

void TableIndex::take_codec(std::shared_ptr<const codec::Codec> codec, int num_threads) {
    const std::lock_guard writing(writing_);
    std::unique_lock lock = lock_unless_aside();
    take_codec_under(std::move(codec), num_threads, lock);
}

void TableIndex::take_codec_under(std::shared_ptr<const codec::Codec> codec, int num_threads,
                                  std::unique_lock<FairMutex>& lock) {
    if (!wants_codec_ || codec_ != nullptr) throw Error(ErrorKind::value, "the index has its codec already, or was made without one");
    if (codec->dim() != dim_) {
        throw Error(ErrorKind::shape, "the codec has " + std::to_string(codec->dim()) + " dims, the index " +
                                          std::to_string(dim_));
    }
    if (!takes_metric_of(*codec)) {
        throw Error(ErrorKind::value, std::string("the codec is fitted for metric '") + to_string(codec->metric()) +
                                          "', the index uses '" + to_string(metric_) + "'");
    }
    const store::RowSource rows = staging_->view();
    const ConstMatrix x(static_cast<const float*>(rows.data), rows.n, dim_);
    store::VectorStore kept(kept_mode(mode_, true), dim_, metric_);
    kept.append(x, num_threads);
    const Commit commit = prepare_codec(*codec, x, num_threads);
    if (!lock.owns_lock()) lock.lock();
    codec_ = std::move(codec);
    commit();
    vectors_ = std::move(kept);
    staging_.reset();
}

std::vector<float> TableIndex::staged_vectors() const {
    std::shared_lock lock(mutex_);
    if (vectors().empty_mode()) return {};
    const std::vector<std::uint32_t> live = ids_.live_rows();
    std::vector<float> out(live.size() * dim_);
    for (std::size_t i = 0; i < live.size(); ++i) vectors().get(live[i], out.data() + i * dim_);
    return out;
}

IdList TableIndex::add(ConstMatrix x, const IdList* ids, bool upsert, int num_threads,
                       const filter::Columns::Batch* columns, std::span<const std::uint32_t> lists) {
    if (x.cols != dim_) {
        throw Error(ErrorKind::shape,
                    "vectors have " + std::to_string(x.cols) + " dims, the index " + std::to_string(dim_));
    }
    const std::lock_guard writing(writing_);
    std::unique_lock lock = lock_unless_aside();
    std::vector<std::string_view> texts;
    const store::AddPlan plan = plan_add(ids, x.rows, upsert, texts);
    store::VectorStore& kept = staging_ ? *staging_ : vectors_;
    // Everything that can fail comes first; then only memory that is reserved is used.
    std::vector<float> chosen_rows;
    const bool only_new = plan.n_new == x.rows;
    if (!only_new) chosen_rows.reserve(plan.n_new * dim_);
    for (std::size_t i = 0; i < x.rows && !only_new; ++i) {
        if (plan.is_new(i)) chosen_rows.insert(chosen_rows.end(), x.row(i), x.row(i) + dim_);
    }
    const ConstMatrix new_rows = only_new ? x : ConstMatrix(chosen_rows.data(), plan.n_new, dim_);
    kept.check(x, num_threads);
    const Commit commit = staging_ ? Commit([] {}) : prepare_rows(x, plan, lists, num_threads);
    const bool in_parts = !lock.owns_lock() && mode_ != VectorMode::disk;
    std::optional<store::VectorStore> larger;
    if (in_parts && !kept.has_room(x, plan.n_new, num_threads)) larger = kept.with_room(x, plan.n_new, num_threads);
    store::VectorStore& into = larger ? *larger : kept;
    const filter::Columns::Batch nothing(columns_.fields().size());
    const filter::Columns::Batch& cells = columns != nullptr ? *columns : nothing;
    try {
        if (in_parts) into.stage(new_rows, num_threads);
        if (!lock.owns_lock()) lock.lock();
        ids_.reserve(plan);
        versions_.reserve(plan.n_new);
        columns_.prepare(cells, plan.rows, plan.n_new);
        if (!in_parts) {
            into.prepare(x, plan.n_new, num_threads);
            into.append(new_rows, num_threads);
        }
    } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        into.truncate(into.size());
        throw;
    }
    if (larger) kept = std::move(*larger);
    if (in_parts) kept.publish(plan.n_new);
    for (std::size_t i = 0; i < x.rows && !only_new; ++i) {
        if (!plan.is_new(i)) kept.assign(plan.rows[i], x.row(i));
    }
    commit();
    versions_.commit(plan.rows, plan.n_new);
    columns_.commit(cells, plan.rows, plan.n_new);
    ids_.commit(plan);
    return ids_of(plan.rows);
}

// `rows` may name a row twice.
std::size_t TableIndex::erase(std::vector<std::uint32_t> rows) {
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    before_erase(rows);
    for (std::uint32_t r : rows) ids_.erase_row(r);
    columns_.forget_results();
    return rows.size();
}

void TableIndex::declare_columns(std::vector<filter::Field> fields) {
    std::unique_lock lock(mutex_);
    if (!columns_.empty() || ids_.rows() > 0) throw Error(ErrorKind::value, "columns are declared once, before any rows");
    columns_ = filter::Columns(std::move(fields));
}

std::vector<filter::Field> TableIndex::fields() const {
    std::shared_lock lock(mutex_);
    return {columns_.fields().begin(), columns_.fields().end()};
}

void TableIndex::set_columns(const IdList& ids, const filter::Columns::Batch& columns) {
    std::unique_lock lock(mutex_);
    const std::vector<std::uint32_t> rows = rows_of(ids, false);
    columns_.prepare(columns, rows, 0);
    columns_.commit(columns, rows, 0);
}

filter::Columns::Batch TableIndex::columns(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    return columns_.read(rows_of(ids, false));
}

std::size_t TableIndex::remove(const IdList& ids, bool ignore_missing) {
    const std::lock_guard writing(writing_);
    std::unique_lock lock(mutex_);
    const std::size_t erased = erase(rows_of(ids, ignore_missing));
    lock.unlock();
    after_erase(default_num_threads());
    return erased;
}

void TableIndex::take_back(const IdList& ids, std::int64_t max_id) {
    const std::lock_guard writing(writing_);
    std::unique_lock lock(mutex_);
    erase(rows_of(ids, true));
    lock.unlock();
    before_compact(default_num_threads());
    lock.lock();
    drop_erased_rows();
    ids_.lower_max_id(max_id);
}

std::int64_t TableIndex::max_id() const {
    std::shared_lock lock(mutex_);
    return ids_.max_id();
}

bool TableIndex::contains(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    return rows_of(ids, true).size() == ids.size();
}

store::IdKind TableIndex::id_kind() const {
    std::shared_lock lock(mutex_);
    return ids_.kind();
}

std::vector<float> TableIndex::get(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    const std::vector<std::uint32_t> rows = rows_of(ids, false);
    if (vectors().empty_mode()) return decoded(rows);
    std::vector<float> out(rows.size() * dim_);
    for (std::size_t i = 0; i < rows.size(); ++i) vectors().get(rows[i], out.data() + i * dim_);
    return out;
}

void TableIndex::compact() {
    const std::lock_guard writing(writing_);
    before_compact(default_num_threads());
    std::unique_lock lock(mutex_);
    drop_erased_rows();
}

void TableIndex::drop_erased_rows() {
    const std::vector<std::uint32_t> keep = ids_.live_rows();
    if (keep.size() == ids_.rows()) return;
    keep_rows(keep);
    columns_.compact(keep);
    versions_.compact(keep);
    (staging_ ? *staging_ : vectors_).compact(keep);
    ids_.compact(keep);
}

std::map<std::string, std::size_t> TableIndex::memory() const {
    const std::lock_guard writing(writing_);
    std::shared_lock lock(mutex_);
    const auto kept = vectors().memory();
    std::map<std::string, std::size_t> parts{
        {"codec", codec_ ? codec_->memory_bytes() : 0},
        {"ids", ids_.memory_bytes() + versions_.memory_bytes()},
        {"vectors", kept.rows + kept.scalars},
        {"vectors_on_disk", kept.file},
    };
    if (!columns_.empty()) {
        parts["columns"] = columns_.memory_bytes();
        parts["filter_cache"] = columns_.cache_bytes();
    }
    add_memory(parts);
    return parts;
}

void TableIndex::save(const std::string& path) const {
    store::Writer w(kind());
    const auto held = write(w);
    w.write_file(path);
}

std::shared_ptr<const void> TableIndex::write(store::Writer& w) const {
    auto held = std::make_shared<HeldStill>(writing_, mutex_);  // what is prepared aside is no part of it
    w.put_string("metric", to_string(metric_));
    w.put_int("dim", static_cast<std::int64_t>(dim_));
    w.put_string("vectors", to_string(mode_));
    w.put_int("wants_codec", wants_codec_ ? 1 : 0);
    w.put_string("codec_recipe", codec_recipe_);
    if (!tuning_.empty()) w.put_string("tuning", tuning_);
    ids_.save(w);
    vectors().save(w);
    columns_.save(w);
    if (codec_) codec::write_codec(w, "codec", *codec_);
    versions_.save(w);
    save_parts(w);
    return held;
}

void TableIndex::load_table(const store::Reader& in) {
    if (in.has_key("tuning")) tuning_ = in.get_string("tuning");
    ids_ = store::IdMap::load(in);
    store::VectorStore rows = store::VectorStore::load(in, dim_, metric_);
    if (rows.size() != ids_.rows()) in.fail("vectors", "holds another number of rows than the ids");
    columns_ = filter::Columns::load(in, ids_.rows());
    if (in.has_nested("codec")) {
        if (!wants_codec_) in.fail("codec", "a codec in an index made without one");
        codec_ = codec::read_codec(in.nested("codec"));
        if (codec_->dim() != dim_ || !takes_metric_of(*codec_)) {
            in.fail("codec", "its dims or metric differ from the index");
        }
        if (CodecVersions::stands_in(in)) versions_ = CodecVersions::load(in, ids_.rows(), codec::fingerprint(*codec_));
        staging_.reset();
    }
    if (staging_) {
        *staging_ = std::move(rows);
    } else {
        vectors_ = std::move(rows);
    }
}

}  // namespace residua::index
