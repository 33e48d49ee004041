/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search_c INDEX QUERIES K [FILTER]: searches raw float32 queries and prints one line per result:
 * query, rank, id, score (as a hexadecimal float, so that nothing is rounded). FILTER holds a bit per
 * row.
 */
#include <stdio.h>
#include <stdlib.h>

#include <residua.h>

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, residua_last_error());
    return 1;
}

/* The bytes of a file, or NULL. */
static void* read_file(const char* path, size_t* bytes) {
    FILE* file = fopen(path, "rb");
    if (file == NULL) return NULL;
    char* data = NULL;
    size_t capacity = 0;
    *bytes = 0;
    do {
        capacity = capacity == 0 ? 65536 : 2 * capacity;
        char* larger = realloc(data, capacity);
        if (larger == NULL) break;
        data = larger;
        *bytes += fread(data + *bytes, 1, capacity - *bytes, file);
    } while (*bytes == capacity);
    fclose(file);
    return data;
}

static int print_id(const residua_index* index, int32_t kind, int64_t id) {
    if (kind == RESIDUA_INTEGER_IDS) {
        printf("%lld", (long long)id);
        return 0;
    }
    const char* text = NULL;
    size_t bytes = 0;
    if (residua_index_string_id(index, (size_t)id, &text, &bytes) != RESIDUA_OK) return fail("string_id");
    fwrite(text, 1, bytes, stdout);
    return 0;
}

static int search(const residua_index* index, const float* queries, size_t floats, size_t k, const uint8_t* filter) {
    residua_index_info info = {.size = sizeof info};
    if (residua_index_get_info(index, &info) != RESIDUA_OK) return fail("get_info");
    const size_t n = floats / info.dim;
    int64_t* ids = malloc(n * k * sizeof *ids);
    float* scores = malloc(n * k * sizeof *scores);
    int64_t* counts = malloc(n * sizeof *counts);
    residua_search_options options = {.size = sizeof options, .num_threads = 2};
    if (filter != NULL) {
        options.filter = filter;
        options.filter_rows = info.rows;
    }
    int status = 1;
    if (ids == NULL || scores == NULL || counts == NULL) {
        fprintf(stderr, "out of memory\n");
    } else if (residua_index_search(index, queries, n, info.dim, k, &options, ids, scores, counts) != RESIDUA_OK) {
        fail("search");
    } else {
        status = 0;
        for (size_t q = 0; q < n && status == 0; ++q) {
            for (size_t i = 0; i < (size_t)counts[q] && status == 0; ++i) {
                printf("%zu\t%zu\t", q, i);
                status = print_id(index, info.id_kind, ids[q * k + i]);
                printf("\t%a\n", (double)scores[q * k + i]);
            }
        }
    }
    free(counts);
    free(scores);
    free(ids);
    return status;
}

int main(int argc, char** argv) {
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: %s INDEX QUERIES K [FILTER]\n", argv[0]);
        return 2;
    }
    residua_index* index = NULL;
    if (residua_index_load(argv[1], RESIDUA_LOAD_MMAP, &index) != RESIDUA_OK) return fail("load");
    size_t bytes = 0;
    size_t filter_bytes = 0;
    float* queries = read_file(argv[2], &bytes);
    uint8_t* filter = argc == 5 ? read_file(argv[4], &filter_bytes) : NULL;
    int status = 1;
    if (queries == NULL || (argc == 5 && filter == NULL)) {
        fprintf(stderr, "cannot read the queries or the filter\n");
    } else {
        status = search(index, queries, bytes / sizeof *queries, strtoul(argv[3], NULL, 10), filter);
    }
    free(filter);
    free(queries);
    residua_index_free(index);
    return status;
}
