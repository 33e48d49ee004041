/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C interface of Residua: load an index that Python has saved, and search it. C11 or any C++.
 *
 * - Every function that can fail returns a residua_status and writes its results only on
 *   RESIDUA_OK. residua_last_error() then says what was given, what was expected and what works.
 * - No exception crosses this interface; nothing is printed; nothing ends the process.
 * - Loaded indexes are never changed, so any number of threads may use one at once. Only
 *   residua_index_free() needs the last of them to have returned.
 * - Structs begin with their own size. A field that a caller does not know is 0, and 0 always means
 *   the default, so programs keep working with later versions of the library.
 *
 * docs/embedding.md has the rest.
 */
#ifndef RESIDUA_RESIDUA_H
#define RESIDUA_RESIDUA_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(RESIDUA_BUILDING)
#define RESIDUA_API __declspec(dllexport)
#elif defined(_WIN32) && !defined(RESIDUA_STATIC)
#define RESIDUA_API __declspec(dllimport)
#elif defined(__GNUC__)
#define RESIDUA_API __attribute__((visibility("default")))
#else
#define RESIDUA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers never change; new ones are added at the end. */
typedef enum residua_status {
    RESIDUA_OK = 0,
    RESIDUA_INVALID_VALUE = 1, /* an argument is NULL or outside its range */
    RESIDUA_SHAPE = 2,         /* wrong dim or length */
    RESIDUA_DTYPE = 3,         /* wrong type: integer ids asked of an index of string ids */
    RESIDUA_NON_FINITE = 4,    /* NaN or infinity in a query */
    RESIDUA_NOT_TRAINED = 5,
    RESIDUA_DUPLICATE_ID = 6,
    RESIDUA_UNKNOWN_ID = 7,
    RESIDUA_CORRUPT_FILE = 8, /* damaged, of a newer version, or something else */
    RESIDUA_UNSUPPORTED = 9,  /* valid, but not for this index or version */
    RESIDUA_IO = 10,          /* the operating system refused */
    RESIDUA_OUT_OF_MEMORY = 11,
    RESIDUA_INTERNAL = 12
} residua_status;

typedef enum residua_metric { RESIDUA_COSINE = 0, RESIDUA_IP = 1, RESIDUA_L2 = 2 } residua_metric;

/* An index that never held a row has integer ids. */
typedef enum residua_id_kind { RESIDUA_INTEGER_IDS = 1, RESIDUA_STRING_IDS = 2 } residua_id_kind;

typedef enum residua_scoring {
    RESIDUA_ASYMMETRIC = 0, /* float query against codes */
    RESIDUA_SYMMETRIC = 1   /* the query is encoded too, at the scale that suits its code best */
} residua_scoring;

/* Flags of residua_index_load(). */
#define RESIDUA_LOAD_MMAP 1u        /* map the file: opening is quick, pages come in as they are used */
#define RESIDUA_LOAD_VERIFY_FULL 2u /* with MMAP: compare every checksum; without it that is always done */

/* A value of residua_search_options.rerank. */
#define RESIDUA_RERANK_NONE (-1)

typedef struct residua_index residua_index;

typedef struct residua_index_info {
    size_t size;     /* sizeof(residua_index_info), set by the caller */
    size_t dim;      /* dims of a vector */
    size_t rows;     /* vectors in the index */
    int32_t metric;  /* residua_metric */
    int32_t id_kind; /* residua_id_kind */
} residua_index_info;

typedef struct residua_search_options {
    size_t size;           /* sizeof(residua_search_options), set by the caller */
    int32_t num_threads;   /* 0: the CPUs that the process may use; at most 4096 */
    int32_t scoring;       /* residua_scoring */
    int64_t rerank;        /* 0: automatic; RESIDUA_RERANK_NONE: code scores only; else how many
                              candidates are settled exactly */
    const uint8_t* filter; /* NULL: all rows. Otherwise row i may be returned when bit i % 8 of byte
                              i / 8 is set (least significant bit first). Rows are those of the index
                              in order of insertion, removed ones left out. */
    size_t filter_rows;    /* bits of the filter: the rows of the index; 0 without a filter */
    int64_t nprobe;        /* lists that an index of inverted lists reads per query; 0: automatic; more than
                              there are: all. Indexes without lists take no notice of it. */
} residua_search_options;

/* "0.1.0"; never NULL. */
RESIDUA_API const char* residua_version(void);

/* Text of this thread's last failed call, "" before the first. Valid until this thread's next failed
   call. */
RESIDUA_API const char* residua_last_error(void);

/* Reads an index of any kind; *index must be freed. The path is UTF-8. */
RESIDUA_API residua_status residua_index_load(const char* path, uint32_t flags, residua_index** index);

/* NULL is fine. */
RESIDUA_API void residua_index_free(residua_index* index);

RESIDUA_API residua_status residua_index_get_info(const residua_index* index, residua_index_info* info);

/*
 * The k best rows of every query, best first, ties by smaller id.
 *
 * queries     n_queries x dim float32, row-major; finite, and not zero under RESIDUA_COSINE
 * k           1 ... 2^31 - 1; may exceed the rows of the index
 * options     NULL: defaults
 * ids         n_queries x k: integer ids, or rows for residua_index_string_id(); -1 where fewer than k
 *             were found
 * scores      n_queries x k, or NULL: similarity, squared distance under RESIDUA_L2, dim - 2 hamming
 *             for codes that count bits; -infinity (+infinity under RESIDUA_L2) where there is no id
 * counts      n_queries, or NULL: how many were found
 *
 * Ids and scores equal those of Python's index.search() bit for bit.
 */
RESIDUA_API residua_status residua_index_search(const residua_index* index, const float* queries, size_t n_queries,
                                                size_t dim, size_t k, const residua_search_options* options,
                                                int64_t* ids, float* scores, int64_t* counts);

/* The id of a row, 0 ... rows - 1 as a filter counts them. A text is UTF-8, `bytes` long, not
   terminated, may hold zero bytes, and lives as long as the index. */
RESIDUA_API residua_status residua_index_int_id(const residua_index* index, size_t row, int64_t* id);
RESIDUA_API residua_status residua_index_string_id(const residua_index* index, size_t row, const char** text,
                                                   size_t* bytes);

#ifdef __cplusplus
}
#endif

#endif /* RESIDUA_RESIDUA_H */
