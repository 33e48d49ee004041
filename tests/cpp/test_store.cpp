// SPDX-License-Identifier: Apache-2.0
// The storage layer under sanitizers: every read of damaged files, every change of ids and vectors.
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/checksum.hpp"
#include "core/half.hpp"
#include "store/container.hpp"
#include "store/id_map.hpp"
#include "store/vector_store.hpp"

using namespace residua;
using namespace residua::store;

namespace {

struct TempFolder {
    std::filesystem::path path;
    TempFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "residua-test-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~TempFolder() { std::filesystem::remove_all(path); }
    std::string file(const char* name) const { return (path / name).string(); }
};

void write_bytes(const std::string& path, const std::vector<std::uint8_t>& bytes) {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
}

std::vector<float> random_rows(std::size_t n, std::size_t dim) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * dim);
    for (float& v : x) v = normal(rng);
    return x;
}

// A file with ids and vectors, as an index has.
std::vector<std::uint8_t> example(VectorMode mode, bool strings) {
    IdMap ids;
    const std::vector<std::int64_t> ints = {9, 4, 1000000007, 2, 3};
    const std::vector<std::string_view> texts = {"b", "a", "", "abc", "ab"};
    ids.commit(strings ? ids.plan_add(std::span(texts)) : ids.plan_add(std::span(ints)));
    ids.erase_row(1);
    VectorStore vectors(mode, 7, Metric::cosine);
    const auto x = random_rows(5, 7);
    vectors.append({x.data(), 5, 7});
    Writer writer("example");
    ids.save(writer);
    vectors.save(writer);
    return writer.to_bytes();
}

void load(const Reader& reader) {
    const IdMap ids = IdMap::load(reader);
    for (const std::uint32_t row : ids.live_rows()) CHECK_FALSE(ids.id_text(row).empty());
    const VectorStore vectors = VectorStore::load(reader, 7, Metric::cosine);
    std::vector<float> out(7);
    for (std::size_t i = 0; vectors.mode() != VectorMode::none && i < vectors.size(); ++i) vectors.get(i, out.data());
}

// Repairs both checksums that protect the structure, so that damage reaches the code behind them.
void repair(std::vector<std::uint8_t>& bytes) {
    std::uint32_t count;
    std::memcpy(&count, &bytes[12], 4);
    if (count > (bytes.size() - 64) / 64) return;
    for (std::size_t i = 0; i < count; ++i) {
        std::uint8_t* entry = &bytes[64 + 64 * i];
        std::uint64_t offset, length;
        std::memcpy(&offset, entry + 40, 8);
        std::memcpy(&length, entry + 48, 8);
        if (offset > bytes.size() || length > bytes.size() - offset) continue;
        const std::uint64_t sum = xxh64(bytes.data() + offset, length);
        std::memcpy(entry + 56, &sum, 8);
    }
    const std::uint64_t table = xxh64(&bytes[64], 64 * count);
    std::memcpy(&bytes[24], &table, 8);
    const std::uint64_t header = xxh64(bytes.data(), 56);
    std::memcpy(&bytes[56], &header, 8);
}

}  // namespace

TEST_CASE("mutated files either load or throw, with and without right checksums") {
    std::mt19937_64 rng(7);
    const TempFolder folder;
    const std::string path = folder.file("x");
    for (const VectorMode mode : {VectorMode::none, VectorMode::automatic, VectorMode::int8, VectorMode::disk}) {
        const auto original = example(mode, mode == VectorMode::int8);
        load(Reader::from_bytes(original));
        for (int i = 0; i < 1500; ++i) {
            auto bytes = original;
            for (std::uint64_t n = 1 + rng() % 3; n > 0; --n) {
                const std::size_t at = rng() % bytes.size();
                const std::uint64_t extreme[] = {0, 1, ~0ull, 1ull << 63, (1ull << 63) - 1, rng()};
                const std::uint64_t value = extreme[rng() % 6];
                std::memcpy(&bytes[at / 8 * 8], &value, i % 2 == 0 ? 8 : 1);
            }
            if (i % 3 != 0) repair(bytes);
            try {
                load(Reader::from_bytes(bytes));
            } catch (const Error& e) {
                CHECK(e.kind() == ErrorKind::corrupt_file);
            }
            if (i % 16 == 0) {
                write_bytes(path, bytes);
                try {
                    load(Reader::open(path, {true, Verify::quick}));
                } catch (const Error& e) {
                    CHECK(e.kind() == ErrorKind::corrupt_file);
                }
            }
        }
    }
}

TEST_CASE("a plan is refused once the ids have changed") {
    IdMap ids;
    const AddPlan first = ids.plan_auto(3);
    const AddPlan second = ids.plan_auto(2);
    ids.reserve(second);
    ids.commit(first);
    CHECK_THROWS_AS(ids.commit(second), Error);
    CHECK(ids.size() == 3);
    CHECK(ids.plan_auto(0).n_new == 0);
}

TEST_CASE("a reserved plan that is dropped leaves the ids as they were") {
    IdMap ids;
    ids.commit(ids.plan_auto(4));
    const std::vector<std::int64_t> scattered = {100, 50};
    ids.reserve(ids.plan_add(std::span(scattered)));
    CHECK(ids.size() == 4);
    CHECK(ids.find(2) == 2u);
    CHECK_FALSE(ids.find(50).has_value());
    ids.commit(ids.plan_auto(1));
    CHECK(ids.find(4) == 4u);
}

TEST_CASE("strings against a hash map") {
    std::mt19937 rng(3);
    IdMap ids;
    std::unordered_map<std::string, std::uint32_t> model;
    for (int step = 0; step < 3000; ++step) {
        const std::string id = std::to_string(rng() % 500);
        if (model.contains(id)) {
            ids.erase_row(model[id]);
            model.erase(id);
        } else {
            const std::vector<std::string_view> one = {id};
            const AddPlan plan = ids.plan_add(std::span(one));
            ids.commit(plan);
            model[id] = plan.rows[0];
        }
        if (step % 500 == 499) {
            const auto keep = ids.live_rows();
            ids.compact(keep);
            for (auto& [_, row] : model) {
                row = static_cast<std::uint32_t>(std::lower_bound(keep.begin(), keep.end(), row) - keep.begin());
            }
        }
    }
    CHECK(ids.size() == model.size());
    for (const auto& [id, row] : model) CHECK(ids.find(std::string_view(id)) == row);
}

TEST_CASE("sections outlive the reader") {
    const TempFolder folder;
    const std::string path = folder.file("x");
    const auto bytes = example(VectorMode::float32, false);
    write_bytes(path, bytes);
    for (const bool mmap : {false, true}) {
        std::shared_ptr<const void> owner;
        std::span<const float> span;
        {
            const Reader reader = Reader::open(path, {mmap, Verify::full});
            span = reader.array<float>("vectors.data", 35);
            owner = reader.keep_alive("vectors.data");
        }
        const auto x = random_rows(5, 7);
        CHECK(std::equal(span.begin(), span.end(), x.begin()));
    }
}

TEST_CASE("prepare lets later changes keep their values") {
    for (const VectorMode mode : {VectorMode::automatic, VectorMode::disk, VectorMode::int8}) {
        VectorStore vectors(mode, 3, Metric::ip);
        const std::vector<float> x = {1, 2, 3, 4, 5, 6};
        vectors.append({x.data(), 2, 3});
        const std::vector<float> large = {1e6f, 0, 0};
        vectors.prepare({large.data(), 1, 3}, 1);
        std::vector<float> out(3);
        vectors.get(0, out.data());
        CHECK(vectors.size() == 2);
        CHECK(out[0] == doctest::Approx(1).epsilon(0.02));
        vectors.append({large.data(), 1, 3});
        vectors.truncate(2);
        CHECK(vectors.size() == 2);
        const RowSource source = vectors.view();
        CHECK(source.n == 2);
        CHECK(source.stride_bytes == 3 * row_type_bytes(source.type));
    }
}

TEST_CASE("half conversion survives a round trip of every half") {
    for (std::uint32_t h = 0; h < 0x10000; ++h) {
        const auto half = static_cast<std::uint16_t>(h);
        const float f = float_from_half(half);
        if (f == f) CHECK(half_from_float(f) == half);
    }
}
