// SPDX-License-Identifier: Apache-2.0
// search_cpp INDEX QUERIES K [FILTER]: as the C program beside this one.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <residua/index.hpp>

namespace {

std::vector<char> read_file(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string("cannot read ") + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

void print(const residua::Index& index, const residua::Hits& hits) {
    for (std::size_t q = 0; q < hits.queries(); ++q) {
        const auto ids = hits.ids_of(q);
        const auto scores = hits.scores_of(q);
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const std::string id = index.has_string_ids() ? std::string(index.string_id(static_cast<std::size_t>(ids[i])))
                                                          : std::to_string(ids[i]);
            std::printf("%zu\t%zu\t%s\t%a\n", q, i, id.c_str(), static_cast<double>(scores[i]));
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4 && argc != 5) {
        std::fprintf(stderr, "usage: %s INDEX QUERIES K [FILTER]\n", argv[0]);
        return 2;
    }
    try {
        const auto index = residua::Index::load(argv[1], {.mmap = true});
        const std::vector<char> bytes = read_file(argv[2]);
        std::vector<float> queries(bytes.size() / sizeof(float));
        std::memcpy(queries.data(), bytes.data(), queries.size() * sizeof(float));
        residua::SearchOptions options;
        std::vector<char> filter;
        if (argc == 5) {
            filter = read_file(argv[4]);
            options.filter = {reinterpret_cast<const std::uint8_t*>(filter.data()), filter.size()};
        }
        print(index, index.search(queries, std::strtoul(argv[3], nullptr, 10), options));
    } catch (const residua::Error& e) {
        std::fprintf(stderr, "residua: %s (status %d)\n", e.what(), static_cast<int>(e.status()));
        return 1;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
