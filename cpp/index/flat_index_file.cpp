// SPDX-License-Identifier: Apache-2.0
// What a FlatIndex weighs and how it travels: memory, save, load (docs/format.md).
#include <mutex>

#include "core/error.hpp"
#include "index/flat_index.hpp"

namespace residua::index {

using store::VectorMode;

std::map<std::string, std::size_t> FlatIndex::memory() const {
    std::shared_lock lock(mutex_);
    const auto kept = vectors().memory();
    return {
        {"codec", codec_ ? codec_->memory_bytes() : 0},
        {"codes", codes_.is_shown() ? codes_.size() : codes_.memory_bytes()},
        {"ids", ids_.memory_bytes()},
        {"vectors", kept.rows + kept.scalars},
        {"vectors_on_disk", kept.file},
    };
}

void FlatIndex::save(const std::string& path) const {
    std::shared_lock lock(mutex_);
    store::Writer w(kKind);
    w.put_string("metric", to_string(metric_));
    w.put_int("dim", static_cast<std::int64_t>(dim_));
    w.put_string("vectors", to_string(mode_));
    w.put_int("wants_codec", wants_codec_ ? 1 : 0);
    w.put_string("codec_recipe", codec_recipe_);
    if (!tuning_.empty()) w.put_string("tuning", tuning_);
    ids_.save(w);
    vectors().save(w);
    if (codec_) {
        store::Writer c(codec_->kind());
        codec_->write(c);
        w.nest("codec", c);
        w.put<std::uint8_t>("codes", codes_.span());
    }
    w.write_file(path);
}

std::shared_ptr<FlatIndex> FlatIndex::load(const store::Reader& in) {
    const auto dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
    Metric metric{};
    VectorMode mode{};
    std::shared_ptr<FlatIndex> out;
    try {
        metric = parse_metric(in.get_string("metric"));
        mode = store::parse_vector_mode(in.get_string("vectors"));
        out = std::make_shared<FlatIndex>(dim, metric, mode, in.get_int("wants_codec", 0, 1) == 1,
                                          in.get_string("codec_recipe"));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
    if (in.has_key("tuning")) out->tuning_ = in.get_string("tuning");
    out->ids_ = store::IdMap::load(in);
    store::VectorStore rows = store::VectorStore::load(in, dim, metric);
    if (rows.size() != out->ids_.rows()) in.fail("vectors", "holds another number of rows than the ids");
    if (in.has_nested("codec")) {
        if (!out->wants_codec_) in.fail("codec", "a codec in an index made without one");
        out->codec_ = codec::read_codec(in.nested("codec"));
        if (out->codec_->dim() != dim || out->codec_->metric() != metric) {
            in.fail("codec", "its dims or metric differ from the index");
        }
        const auto codes = in.array<std::uint8_t>("codes", out->blocks(rows.size()) * out->codec_->block_bytes());
        out->codes_ = store::SharedArray<std::uint8_t>(codes, in.keep_alive("codes"));
        out->staging_.reset();
    }
    if (out->staging_) {
        *out->staging_ = std::move(rows);
    } else {
        out->vectors_ = std::move(rows);
    }
    return out;
}

}  // namespace residua::index
