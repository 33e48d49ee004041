// SPDX-License-Identifier: Apache-2.0
// residua.h under every misuse that a caller can be told about, and the growth of its structs.
#include <doctest/doctest.h>
#include <residua/residua.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "codec/binary_codec.hpp"
#include "core/random.hpp"
#include "index/flat_index.hpp"
#include "index/ivf_index.hpp"

namespace {

using residua::ConstMatrix;
using residua::Metric;
using residua::index::FlatIndex;
using residua::index::IdList;

constexpr std::size_t kDim = 24;
constexpr std::size_t kRows = 70;

std::vector<float> random_rows(std::size_t n, std::uint64_t seed) {
    residua::Random random(seed);
    std::vector<float> x(n * kDim);
    for (float& v : x) v = static_cast<float>(random.below(2001)) / 1000.0f - 1.0f;
    return x;
}

// A saved index in a file that goes with the object.
struct Saved {
    std::string path;
    std::vector<float> x = random_rows(kRows, 1);

    explicit Saved(Metric metric = Metric::cosine, bool codec = false, bool strings = false, bool remove = false,
                   residua::store::VectorMode mode = residua::store::VectorMode::automatic) {
        static int counter = 0;
        path = (std::filesystem::temp_directory_path() /
                ("residua-capi-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)) + "-" + std::to_string(counter++)))
                   .string();
        FlatIndex index(kDim, metric, mode, codec);
        if (codec) index.set_codec(std::make_shared<residua::codec::BinaryCodec>(kDim, kDim, metric), 1);
        IdList ids;
        if (strings) ids.kind = residua::store::IdKind::string;
        for (std::size_t i = 0; i < kRows; ++i) {
            if (strings) {
                ids.strings.push_back("row " + std::to_string(i));
            } else {
                ids.ints.push_back(static_cast<std::int64_t>(10 * i));
            }
        }
        index.add({x.data(), kRows, kDim}, &ids, false, 1);
        if (remove) {
            IdList gone;
            gone.kind = ids.kind;
            if (strings) gone.strings = {"row 0", "row 5"};
            if (!strings) gone.ints = {0, 50};
            index.remove(gone, false);
        }
        index.save(path);
    }
    ~Saved() { std::remove(path.c_str()); }
    Saved(const Saved&) = delete;
    Saved& operator=(const Saved&) = delete;
};

struct Loaded {
    residua_index* index = nullptr;
    explicit Loaded(const Saved& saved, std::uint32_t flags = 0) {
        REQUIRE(residua_index_load(saved.path.c_str(), flags, &index) == RESIDUA_OK);
    }
    ~Loaded() { residua_index_free(index); }
    Loaded(const Loaded&) = delete;
    Loaded& operator=(const Loaded&) = delete;
};

struct Out {
    std::vector<std::int64_t> ids;
    std::vector<float> scores;
    std::vector<std::int64_t> counts;
    Out(std::size_t n, std::size_t k) : ids(n * k, -7), scores(n * k, -7), counts(n, -7) {}
    bool untouched() const {
        for (auto i : ids) {
            if (i != -7) return false;
        }
        for (auto s : scores) {
            if (s != -7) return false;
        }
        for (auto c : counts) {
            if (c != -7) return false;
        }
        return true;
    }
};

residua_search_options options() {
    residua_search_options o{};
    o.size = sizeof o;
    o.num_threads = 1;
    return o;
}

bool says(const char* words) { return std::string(residua_last_error()).find(words) != std::string::npos; }

}  // namespace

TEST_CASE("capi: every vector finds itself, from memory and from a mapping") {
    for (const Metric metric : {Metric::cosine, Metric::l2}) {
        for (const bool strings : {false, true}) {
            for (const bool removed : {false, true}) {
                const Saved saved(metric, true, strings, removed);
                for (const std::uint32_t flags : {0u, RESIDUA_LOAD_MMAP, RESIDUA_LOAD_MMAP | RESIDUA_LOAD_VERIFY_FULL}) {
                    const Loaded loaded(saved, flags);
                    Out out(kRows, 3);
                    REQUIRE(residua_index_search(loaded.index, saved.x.data(), kRows, kDim, 3, nullptr, out.ids.data(),
                                                 out.scores.data(), out.counts.data()) == RESIDUA_OK);
                    for (std::size_t i = 0; i < kRows; ++i) {
                        CHECK(out.counts[i] == 3);
                        if (removed && (i == 0 || i == 5)) continue;
                        const auto row = static_cast<std::int64_t>(removed ? i - (i > 5 ? 2 : 1) : i);
                        CHECK(out.ids[3 * i] == (strings ? row : static_cast<std::int64_t>(10 * i)));
                        if (strings) {
                            const char* text = nullptr;
                            std::size_t bytes = 0;
                            REQUIRE(residua_index_string_id(loaded.index, static_cast<std::size_t>(row), &text, &bytes) ==
                                    RESIDUA_OK);
                            CHECK(std::string(text, bytes) == "row " + std::to_string(i));
                        } else {
                            std::int64_t id = -1;
                            REQUIRE(residua_index_int_id(loaded.index, static_cast<std::size_t>(row), &id) == RESIDUA_OK);
                            CHECK(id == static_cast<std::int64_t>(10 * i));
                        }
                        CHECK(std::abs(out.scores[3 * i] - (metric == Metric::l2 ? 0.0f : 1.0f)) < 1e-2f);
                    }
                }
            }
        }
    }
}

TEST_CASE("capi: what is loaded can be asked for") {
    const Saved saved(Metric::l2, false, true, true);
    const Loaded loaded(saved);
    residua_index_info info{};
    info.size = sizeof info;
    REQUIRE(residua_index_get_info(loaded.index, &info) == RESIDUA_OK);
    CHECK(info.size == sizeof info);
    CHECK(info.dim == kDim);
    CHECK(info.rows == kRows - 2);
    CHECK(info.metric == RESIDUA_L2);
    CHECK(info.id_kind == RESIDUA_STRING_IDS);
    CHECK(std::string(residua_version()).find('.') != std::string::npos);
}

TEST_CASE("capi: a filter is a bit per live row; what is not found is padded") {
    const Saved saved(Metric::l2, false, false, true);
    const Loaded loaded(saved);
    std::vector<std::uint8_t> bits((kRows - 2 + 7) / 8, 0);
    bits[0] = 1;                                                   // row 0 is id 10
    bits[5] = 1 << 3;                                              // row 43 is id 450
    bits.back() = static_cast<std::uint8_t>(0xff << ((kRows - 2) % 8));  // behind the last row: nothing
    residua_search_options o = options();
    o.filter = bits.data();
    o.filter_rows = kRows - 2;
    Out out(1, 4);
    REQUIRE(residua_index_search(loaded.index, saved.x.data() + kDim, 1, kDim, 4, &o, out.ids.data(), out.scores.data(),
                                 out.counts.data()) == RESIDUA_OK);
    CHECK(out.ids == std::vector<std::int64_t>{10, 450, -1, -1});
    CHECK(out.counts[0] == 2);
    CHECK(out.scores[0] == 0);
    CHECK(out.scores[2] == std::numeric_limits<float>::infinity());
    std::int64_t only[4];
    CHECK(residua_index_search(loaded.index, saved.x.data() + kDim, 1, kDim, 4, &o, only, nullptr, nullptr) == RESIDUA_OK);
    CHECK(only[1] == 450);
    CHECK(residua_index_search(loaded.index, nullptr, 0, kDim, 4, &o, nullptr, nullptr, nullptr) == RESIDUA_OK);
}

TEST_CASE("capi: misuse gives a code and a text, and leaves the buffers alone") {
    const Saved saved, coded(Metric::ip, true), bare(Metric::ip, true, false, false, residua::store::VectorMode::none);
    const Loaded loaded(saved), with_codec(coded), without_vectors(bare);
    std::vector<float> q(saved.x.begin(), saved.x.begin() + 2 * kDim);
    Out out(2, 5);
    const auto search = [&](residua_status wanted, const char* words, std::size_t dim, std::size_t k,
                            const residua_search_options* o, const residua_index* index) {
        const residua_status got = residua_index_search(index, q.data(), 2, dim, k, o, out.ids.data(), out.scores.data(),
                                                        out.counts.data());
        CHECK_MESSAGE(got == wanted, words);
        CHECK_MESSAGE(says(words), residua_last_error());
        CHECK(out.untouched());
    };
    const auto with = [&](residua_status wanted, const char* words, const std::function<void(residua_search_options&)>& set) {
        residua_search_options o = options();
        set(o);
        search(wanted, words, kDim, 5, &o, loaded.index);
    };
    search(RESIDUA_INVALID_VALUE, "index is NULL", kDim, 5, nullptr, nullptr);
    search(RESIDUA_INVALID_VALUE, "k is 0", kDim, 0, nullptr, loaded.index);
    search(RESIDUA_INVALID_VALUE, "expected 1 to 2147483647", kDim, std::size_t{1} << 31, nullptr, loaded.index);
    search(RESIDUA_SHAPE, "queries have 23 dims, the index 24", kDim - 1, 5, nullptr, loaded.index);
    search(RESIDUA_SHAPE, "queries have 0 dims", 0, 5, nullptr, loaded.index);
    const std::uint8_t bits[16] = {};
    with(RESIDUA_SHAPE, "filter_rows is 71", [&](auto& o) { o.filter = bits, o.filter_rows = kRows + 1; });
    with(RESIDUA_SHAPE, "one bit per row", [&](auto& o) { o.filter = bits; });
    with(RESIDUA_INVALID_VALUE, "filter is NULL", [&](auto& o) { o.filter_rows = kRows; });
    with(RESIDUA_INVALID_VALUE, "num_threads is -1", [](auto& o) { o.num_threads = -1; });
    with(RESIDUA_INVALID_VALUE, "num_threads is 4097", [](auto& o) { o.num_threads = 4097; });
    with(RESIDUA_INVALID_VALUE, "scoring is 2", [](auto& o) { o.scoring = 2; });
    with(RESIDUA_INVALID_VALUE, "rerank is -2", [](auto& o) { o.rerank = -2; });
    with(RESIDUA_INVALID_VALUE, "residua_search_options.size is 0", [](auto& o) { o.size = 0; });
    with(RESIDUA_INVALID_VALUE, "residua_search_options.size is", [](auto& o) { o.size = ~std::size_t{0}; });
    with(RESIDUA_UNSUPPORTED, "needs a codec", [](auto& o) { o.scoring = RESIDUA_SYMMETRIC; });
    residua_search_options o = options();
    o.rerank = 20;
    search(RESIDUA_INVALID_VALUE, "needs kept vectors", kDim, 5, &o, without_vectors.index);
    q[kDim + 3] = std::nanf("");
    search(RESIDUA_NON_FINITE, "row 1 contains NaN", kDim, 5, nullptr, loaded.index);
    q[kDim + 3] = -std::numeric_limits<float>::infinity();
    search(RESIDUA_NON_FINITE, "row 1 contains NaN", kDim, 5, nullptr, with_codec.index);
    std::fill(q.begin(), q.end(), -0.0f);
    search(RESIDUA_INVALID_VALUE, "row 0 is a zero vector", kDim, 5, nullptr, loaded.index);

    CHECK(residua_index_search(loaded.index, nullptr, 2, kDim, 5, nullptr, out.ids.data(), nullptr, nullptr) ==
          RESIDUA_INVALID_VALUE);
    CHECK(says("queries is NULL"));
    CHECK(residua_index_search(loaded.index, q.data(), 2, kDim, 5, nullptr, nullptr, nullptr, nullptr) ==
          RESIDUA_INVALID_VALUE);
    CHECK(says("ids is NULL"));
    CHECK(residua_index_search(loaded.index, q.data(), ~std::size_t{0} / 8, kDim, 1, nullptr, out.ids.data(), nullptr,
                               nullptr) == RESIDUA_SHAPE);
    CHECK(says("more than memory can hold"));
}

TEST_CASE("capi: questions about rows are checked") {
    const Saved saved, named(Metric::ip, false, true);
    const Loaded ints(saved), texts(named);
    std::int64_t id = -7;
    const char* text = nullptr;
    std::size_t bytes = 0;
    CHECK(residua_index_int_id(ints.index, kRows, &id) == RESIDUA_INVALID_VALUE);
    CHECK(says("row is 70, the index has 70 rows"));
    CHECK(residua_index_int_id(texts.index, 0, &id) == RESIDUA_DTYPE);
    CHECK(says("use residua_index_string_id()"));
    CHECK(residua_index_string_id(ints.index, 0, &text, &bytes) == RESIDUA_DTYPE);
    CHECK(residua_index_string_id(texts.index, kRows, &text, &bytes) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_int_id(nullptr, 0, &id) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_int_id(ints.index, 0, nullptr) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_string_id(texts.index, 0, nullptr, &bytes) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_string_id(texts.index, 0, &text, nullptr) == RESIDUA_INVALID_VALUE);
    CHECK(id == -7);
    CHECK(text == nullptr);
    residua_index_info info{};
    CHECK(residua_index_get_info(nullptr, &info) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_get_info(ints.index, nullptr) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_get_info(ints.index, &info) == RESIDUA_INVALID_VALUE);
    CHECK(says("residua_index_info.size is 0"));
    residua_index_free(nullptr);
}

TEST_CASE("capi: files that cannot be loaded") {
    residua_index* index = nullptr;
    CHECK(residua_index_load(nullptr, 0, &index) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_load("absent", 0, nullptr) == RESIDUA_INVALID_VALUE);
    CHECK(residua_index_load("absent", 0, &index) == RESIDUA_IO);
    CHECK(says("cannot load 'absent'"));
    CHECK(residua_index_load("", 0, &index) == RESIDUA_IO);
    const Saved saved;
    CHECK(residua_index_load(saved.path.c_str(), 4, &index) == RESIDUA_INVALID_VALUE);
    CHECK(says("flags are 4"));

    residua::store::Writer codec("binary_codec");
    residua::codec::BinaryCodec(kDim, kDim, Metric::ip).write(codec);
    codec.write_file(saved.path + ".codec");
    CHECK(residua_index_load((saved.path + ".codec").c_str(), 0, &index) == RESIDUA_UNSUPPORTED);
    CHECK(says("not an index of this version; expected 'flat_index'"));
    std::remove((saved.path + ".codec").c_str());

    std::ifstream in(saved.path, std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    const auto refused = [&](const std::string& bytes) {
        std::ofstream(saved.path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        CHECK(residua_index_load(saved.path.c_str(), 0, &index) == RESIDUA_CORRUPT_FILE);
        CHECK(residua_index_load(saved.path.c_str(), RESIDUA_LOAD_MMAP | RESIDUA_LOAD_VERIFY_FULL, &index) ==
              RESIDUA_CORRUPT_FILE);
        CHECK(std::strlen(residua_last_error()) > saved.path.size());
    };
    for (std::size_t at = 0; at < whole.size(); at += 61) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
        refused(bytes);
        refused(whole.substr(0, at));
    }
    CHECK(index == nullptr);
}

TEST_CASE("capi: structs of older and newer callers") {
    const Saved saved;
    const Loaded loaded(saved);
    struct Newer {
        residua_search_options known;
        std::uint64_t added;
    } newer{options(), 0};
    newer.known.size = sizeof newer;
    Out out(1, 2);
    const auto search = [&] {
        return residua_index_search(loaded.index, saved.x.data(), 1, kDim, 2, &newer.known, out.ids.data(), nullptr, nullptr);
    };
    CHECK(search() == RESIDUA_OK);
    newer.added = 1;
    CHECK(search() == RESIDUA_UNSUPPORTED);
    CHECK(says("does not know"));

    struct {
        residua_index_info known;
        std::uint64_t added;
    } info{{}, 99};
    info.known.size = sizeof info;
    CHECK(residua_index_get_info(loaded.index, &info.known) == RESIDUA_OK);
    CHECK(info.known.size == sizeof info);
    CHECK(info.known.dim == kDim);
    CHECK(info.added == 0);
}

TEST_CASE("capi: nprobe says how many lists are read") {
    // The row nearest to the query stands in the list that is second nearest.
    const auto on_axis = [](float at) {
        std::vector<float> v(kDim);
        v[0] = at;
        return v;
    };
    std::vector<float> centroids = on_axis(0.0f), x = on_axis(0.0f);
    for (const auto& [values, at] : {std::pair{&centroids, 10.0f}, std::pair{&x, 5.5f}}) {
        const std::vector<float> v = on_axis(at);
        values->insert(values->end(), v.begin(), v.end());
    }
    residua::index::IvfIndex made(kDim, Metric::l2, residua::store::VectorMode::automatic, false);
    made.add({x.data(), 2, kDim}, nullptr, false, 1);
    made.train({centroids, nullptr, false, 0.0}, 1);
    Saved saved;  // its file
    made.save(saved.path);
    const Loaded loaded(saved);
    const std::vector<float> q = on_axis(4.5f);
    const auto nearest = [&](residua_search_options o) {
        std::int64_t id = -7;
        REQUIRE(residua_index_search(loaded.index, q.data(), 1, kDim, 1, &o, &id, nullptr, nullptr) == RESIDUA_OK);
        return id;
    };
    residua_search_options o = options();
    CHECK(nearest(o) == 1);  // automatic: both
    o.nprobe = 1;
    CHECK(nearest(o) == 0);
    o.nprobe = 100;
    CHECK(nearest(o) == 1);
    o.nprobe = 1;
    o.size = offsetof(residua_search_options, nprobe);  // of a caller that does not know the field
    CHECK(nearest(o) == 1);
    o = options();
    o.nprobe = -1;
    Out out(1, 1);
    CHECK(residua_index_search(loaded.index, q.data(), 1, kDim, 1, &o, out.ids.data(), nullptr, nullptr) ==
          RESIDUA_INVALID_VALUE);
    CHECK(says("nprobe is -1"));
    CHECK(out.untouched());

    // Indexes without lists take no notice.
    const Saved flat;
    const Loaded other(flat);
    o.nprobe = 1;
    CHECK(residua_index_search(other.index, flat.x.data(), 1, kDim, 1, &o, out.ids.data(), nullptr, nullptr) == RESIDUA_OK);
    CHECK(out.ids[0] == 0);
}

TEST_CASE("capi: the error text belongs to its thread") {
    residua_index* index = nullptr;
    CHECK(residua_index_load("absent here", 0, &index) == RESIDUA_IO);
    std::string before, after;
    std::thread([&] {
        before = residua_last_error();
        (void)residua_index_load("absent there", 0, &index);
        after = residua_last_error();
    }).join();
    CHECK(before.empty());
    CHECK(after.find("absent there") != std::string::npos);
    CHECK(says("absent here"));
}

TEST_CASE("capi: threads share one index") {
    const Saved saved(Metric::cosine, true);
    const Loaded loaded(saved, RESIDUA_LOAD_MMAP);
    std::vector<std::thread> threads;
    std::vector<int> wrong(8, 0);
    for (std::size_t t = 0; t < wrong.size(); ++t) {
        threads.emplace_back([&, t] {
            residua_search_options o = options();
            o.num_threads = 1 + static_cast<std::int32_t>(t % 2);
            for (int turn = 0; turn < 10; ++turn) {
                Out out(kRows, 1);
                wrong[t] += residua_index_search(loaded.index, saved.x.data(), kRows, kDim, 1, &o, out.ids.data(),
                                                 out.scores.data(), out.counts.data()) != RESIDUA_OK;
                for (std::size_t i = 0; i < kRows; ++i) wrong[t] += out.ids[i] != static_cast<std::int64_t>(10 * i);
            }
        });
    }
    for (auto& t : threads) t.join();
    for (const int w : wrong) CHECK(w == 0);
}
