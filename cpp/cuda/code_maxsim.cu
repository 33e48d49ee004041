// SPDX-License-Identifier: Apache-2.0
// MaxSim of recurrent codes: levels are unpacked in registers and multiplied by int8 tensor cores; sums are exact, and
// scores have the bits of the CPU's. What bounds it, on an H200 with 4.3 TB/s: with one query the bytes of the codes, 70 per
// token of 128 dims and 4 bits, 0.025 ms for 5,000 x 300; with more, what follows the products, six instructions per
// token and query token, 0.01 ms per 32 query tokens.
// Warps copy tiles to shared memory in 16-byte pieces, two steps ahead.
#include "cuda/code_maxsim.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/maxsim_units.hpp"

namespace residua::cuda {
namespace {

using codec::kBlockRows;

constexpr std::uint32_t kMostSlabGroups = 4;

// Level of dim `d` of a group, of row `row` of a block (kernel/plane_kernels.hpp).
RZ_HD inline std::uint32_t level_of(const kernel::PlaneLayout& layout, const std::uint8_t* block, std::uint32_t group, std::uint32_t d,
                                    std::uint32_t row) {
    std::uint32_t level = 0;
    std::size_t plane = 0;
    for (std::uint32_t t = layout.planes; t-- > 0;) {
        if (group < layout.groups[t]) {
            const std::uint8_t pair = block[plane + (group * kernel::kGroupStrips + d / 4) * kernel::kStripBytes + row % 16];
            level = 2 * level + (pair >> (row < 16 ? 0 : 4) >> (3 - d % 4) & 1u);
        }
        plane += layout.groups[t] * kernel::kGroupStrips * kernel::kStripBytes;
    }
    return level;
}

// The CPU's blocks to tiles: a warp per block and group. Rows that are not there score -infinity.
struct RepackCodes {
    static constexpr int kThreads = 128;
    kernel::PlaneLayout layout;
    const std::uint8_t* blocks;
    std::size_t n_blocks, block_bytes, first;  // the first one here is block `first` of all
    const std::uint8_t* present;               // rows of every block
    const GroupPlace* groups;
    std::size_t tile_bytes;
    std::uint8_t* tiles;

    RZ_DEVICE void operator()() const {
        const std::size_t at = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        const auto lane = static_cast<std::uint32_t>(lane_index());
        const std::uint32_t group = block_index().y;
        if (at >= n_blocks) return;
        const std::uint8_t* block = blocks + at * block_bytes;
        std::uint8_t* tile = tiles + (first + at) * tile_bytes;
        std::uint32_t left = groups[group].bits;
        std::uint8_t* field = tile + groups[group].at;
        for (std::uint32_t width = 4; width > 0; width /= 2) {
            for (; left >= width; field += width * kGroupBitBytes) {
                left -= width;
                write_field(block, group, width, left, field + lane * width * 4);
            }
        }
        if (group == 0) {
            float term = -INFINITY;
            std::uint16_t scale = 0;
            const std::uint8_t* from = block + block_bytes - kTileScalarBytes;
            if (lane < present[first + at]) {
                term = reinterpret_cast<const float*>(from)[lane];
                scale = reinterpret_cast<const std::uint16_t*>(from + kBlockRows * 4)[lane];
            }
            std::uint8_t* scalars = tile + tile_bytes - kTileScalarBytes;
            reinterpret_cast<float*>(scalars)[lane] = term;
            reinterpret_cast<std::uint16_t*>(scalars + kBlockRows * 4)[lane] = scale;
        }
    }

    // Bits `shift` … `shift` + width - 1 of the levels, 4 * width bytes of the lane.
    RZ_DEVICE void write_field(const std::uint8_t* block, std::uint32_t group, std::uint32_t width, std::uint32_t shift,
                               std::uint8_t* out) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        const std::uint32_t per_word = 8 / width;  // subfields of a byte
        for (std::uint32_t w = 0; w < width; ++w) {
            std::uint32_t word = 0;
            for (std::uint32_t s = 0; s < per_word; ++s) {
                const std::uint32_t fragment = (w * per_word + s) / 2, half = s % 2;
                for (std::uint32_t byte = 0; byte < 4; ++byte) {
                    const std::uint32_t level = level_of(layout, block, group, dim_of(lane, half, byte), fragment * 8 + lane / 4);
                    word |= (level >> shift & ((1u << width) - 1)) << (byte * 8 + s * width);
                }
            }
            reinterpret_cast<std::uint32_t*>(out)[w] = word;
        }
    }
};

// Query terms of a token: unit, offset; constants are added at the end.
struct Terms {
    float unit, offset;
};

// kInShared: a pass's fragments go to shared memory, as they do but for thousands of dims.
template <int kTiles, bool kInShared>
struct CodeMaxsim {
    static constexpr int kThreads = kTiles == 2 ? 512 : 384;  // of one block per multiprocessor, as registers allow
    static constexpr int kStages = 3;
    static constexpr std::uint32_t kGroupTokens = kTiles * kQueryTile;
    static constexpr std::uint32_t kTile = kBlockRows;
    static constexpr std::uint32_t kWarps = kThreads / kWarp;

    MaxsimUnits units;
    const std::uint8_t* tiles;
    const std::size_t* first_tile;   // of every document
    std::size_t tile_bytes;
    const GroupPlace* groups;        // n_groups, and one more where they end
    std::uint32_t n_groups, slab_groups, stage_bytes;
    const Pack16* fragments;         // [tile of query tokens][group][lane]
    const Terms* terms;
    const float* constants;

    // In the order in which they stand in shared memory.
    RZ_HD std::size_t slot_bytes() const { return kWarps * kGroupTokens * sizeof(float); }
    RZ_HD std::size_t term_bytes() const { return kGroupTokens * sizeof(Terms); }
    RZ_HD std::size_t place_bytes() const { return (std::size_t{n_groups + 1} * sizeof(GroupPlace) + 15) / 16 * 16; }
    RZ_HD std::size_t ring_bytes() const { return std::size_t{kWarps} * kStages * stage_bytes; }
    std::size_t shared_bytes() const {
        return slot_bytes() + term_bytes() + place_bytes() + ring_bytes() +
               (kInShared ? std::size_t{kTiles} * n_groups * kWarp * sizeof(Pack16) : 0);
    }

    // A part of a tile: some groups, and the scalars with the last of them.
    struct Step {
        std::uint32_t unit, slab;
        bool any, ends_unit;
    };
    struct Reader {
        MaxsimUnits::Unit unit;
        std::uint32_t slab;
    };
    struct Shared {
        float* slot;
        const Terms* terms;
        const GroupPlace* groups;
        std::uint8_t* ring;
        const Pack16* fragments;
    };

    RZ_DEVICE Shared prepare() const {
        std::uint8_t* shared = shared_memory();
        const std::uint32_t group = block_index().y;
        const auto thread = static_cast<std::uint32_t>(thread_index());
        Shared out;
        out.slot = reinterpret_cast<float*>(shared) + static_cast<std::uint32_t>(warp_index()) * kGroupTokens;
        shared += slot_bytes();
        auto* my_terms = reinterpret_cast<Terms*>(shared);
        for (std::uint32_t i = thread; i < kGroupTokens; i += kThreads) my_terms[i] = terms[group * kGroupTokens + i];
        out.terms = my_terms;
        shared += term_bytes();
        auto* places = reinterpret_cast<GroupPlace*>(shared);
        for (std::uint32_t i = thread; i <= n_groups; i += kThreads) places[i] = groups[i];
        out.groups = places;
        shared += place_bytes();
        out.ring = shared + static_cast<std::uint32_t>(warp_index()) * kStages * stage_bytes;
        shared += ring_bytes();
        out.fragments = fragments + std::size_t{group} * kTiles * n_groups * kWarp;
        if constexpr (kInShared) {
            auto* to = reinterpret_cast<Pack16*>(shared);
            for (std::uint32_t i = thread; i < kTiles * n_groups * kWarp; i += kThreads) to[i] = out.fragments[i];
            out.fragments = to;
        }
        out.fragments += lane_index();
        sync_block();
        return out;
    }

    RZ_DEVICE void operator()() const {
        const Shared s = prepare();
        const std::uint32_t group = block_index().y, slabs = (n_groups + slab_groups - 1) / slab_groups;
        Reader reader{units.take(group, kGroupTokens), 0};
        Step steps[kStages];
        RZ_UNROLL
        for (int i = 0; i + 1 < kStages; ++i) steps[i] = read(reader, s, slabs, static_cast<std::uint32_t>(i));
        std::int32_t sums[kTiles][4][4] = {};
        float top[2 * kTiles];
        RZ_UNROLL
        for (float& x : top) x = -INFINITY;
        for (std::uint32_t stage = 0; steps[0].any; stage = stage + 1 == kStages ? 0 : stage + 1) {
            // The stage that is free now is the one before, which all lanes have left.
            steps[kStages - 1] = read(reader, s, slabs, stage == 0 ? kStages - 1 : stage - 1);
            wait_copies<kStages - 1>();
            sync_warp();
            const std::uint8_t* bytes = s.ring + stage * stage_bytes;
            const std::uint32_t begin = steps[0].slab * slab_groups;
            const std::uint32_t end = begin + slab_groups < n_groups ? begin + slab_groups : n_groups;
            for (std::uint32_t g = begin; g < end; ++g) multiply_group(s, g, bytes, sums);
            if (end == n_groups) keep_largest(s, bytes, sums, top);
            if (steps[0].ends_unit) finish(steps[0].unit, group, s, top);
            sync_warp();
            RZ_UNROLL
            for (int i = 0; i + 1 < kStages; ++i) steps[i] = steps[i + 1];
        }
    }

    // Starts the copies of the reader's step, if there is one left, and moves it on.
    RZ_DEVICE Step read(Reader& reader, const Shared& s, std::uint32_t slabs, std::uint32_t stage) const {
        const Step step{reader.unit.number, reader.slab, reader.unit.any(),
                        reader.unit.tile + 1 == reader.unit.end && reader.slab + 1 == slabs};
        if (step.any) {
            const std::uint8_t* tile = tiles + (first_tile[reader.unit.document] + reader.unit.tile) * tile_bytes;
            const std::uint32_t begin = s.groups[reader.slab * slab_groups].at;
            const bool last = reader.slab + 1 == slabs;
            const std::uint32_t end = last ? static_cast<std::uint32_t>(tile_bytes) : s.groups[(reader.slab + 1) * slab_groups].at;
            std::uint8_t* to = s.ring + stage * stage_bytes;
            for (std::uint32_t i = static_cast<std::uint32_t>(lane_index()) * 16; begin + i < end; i += kWarp * 16) {
                copy_16(to + i, tile + begin + i);
            }
            if (!last) {
                ++reader.slab;
            } else {
                reader.slab = 0;
                if (++reader.unit.tile == reader.unit.end) reader.unit = units.take(block_index().y, kGroupTokens);
            }
        }
        end_copies();
        return step;
    }

    // Levels of a group as the words of four fragments; `bytes` moves on.
    RZ_DEVICE static void unpack(const std::uint8_t*& bytes, std::uint32_t bits, std::uint32_t (&b)[4][2]) {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        RZ_UNROLL
        for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = 0;
        for (; bits >= 4; bits -= 4, bytes += 4 * kGroupBitBytes) {
            const Pack16 x = reinterpret_cast<const Pack16*>(bytes)[lane];
            RZ_UNROLL
            for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = b[i / 2][i % 2] << 4 | (x.word[i / 2] >> (i % 2 * 4) & 0x0F0F0F0Fu);
        }
        if ((bits & 2u) != 0) {
            const Pack8 x = reinterpret_cast<const Pack8*>(bytes)[lane];
            RZ_UNROLL
            for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = b[i / 2][i % 2] << 2 | (x.word[i / 4] >> (i % 4 * 2) & 0x03030303u);
            bytes += 2 * kGroupBitBytes;
        }
        if ((bits & 1u) != 0) {
            const std::uint32_t x = reinterpret_cast<const std::uint32_t*>(bytes)[lane];
            RZ_UNROLL
            for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = b[i / 2][i % 2] << 1 | (x >> i & 0x01010101u);
            bytes += kGroupBitBytes;
        }
    }

    RZ_DEVICE void multiply_group(const Shared& s, std::uint32_t g, const std::uint8_t*& bytes, std::int32_t (&sums)[kTiles][4][4]) const {
        std::uint32_t b[4][2];
        unpack(bytes, s.groups[g].bits, b);
        RZ_UNROLL
        for (int m = 0; m < kTiles; ++m) {
            const Pack16 a = s.fragments[(static_cast<std::uint32_t>(m) * n_groups + g) * kWarp];
            RZ_UNROLL
            for (int n = 0; n < 4; ++n) multiply_bytes(sums[m][n], a.word, b[n]);
        }
    }

    // The scores of a tile; `bytes` is where its scalars are.
    RZ_DEVICE void keep_largest(const Shared& s, const std::uint8_t* bytes, std::int32_t (&sums)[kTiles][4][4],
                                float (&top)[2 * kTiles]) const {
        const int g = lane_index() / 4, t = lane_index() % 4;
        const auto* adds = reinterpret_cast<const Pack8*>(bytes);
        const auto* scales = reinterpret_cast<const std::uint32_t*>(bytes + kBlockRows * 4);
        float add_of[4][2], scale_of[4][2];
        RZ_UNROLL
        for (int n = 0; n < 4; ++n) {
            const Pack8 add_words = adds[n * 4 + t];
            const std::uint32_t halves = scales[n * 4 + t];
            RZ_UNROLL
            for (int i = 0; i < 2; ++i) {
                add_of[n][i] = bits_to_float(add_words.word[i]);
                scale_of[n][i] = half_to_float(static_cast<std::uint16_t>(halves >> (16 * i)));
            }
        }
        RZ_UNROLL
        for (int m = 0; m < kTiles; ++m) {
            RZ_UNROLL
            for (int half = 0; half < 2; ++half) {
                const Terms of = s.terms[m * kQueryTile + half * 8 + g];
                RZ_UNROLL
                for (int n = 0; n < 4; ++n) {
                    RZ_UNROLL
                    for (int i = 0; i < 2; ++i) {
                        std::int32_t& sum = sums[m][n][2 * half + i];
                        const float x = add(multiply(scale_of[n][i], add(multiply(of.unit, static_cast<float>(sum)), of.offset)),
                                            add_of[n][i]);
                        top[2 * m + half] = fmaxf(top[2 * m + half], x);
                        sum = 0;
                    }
                }
            }
        }
    }

    RZ_DEVICE void finish(std::uint32_t unit, std::uint32_t group, const Shared& s, float (&top)[2 * kTiles]) const {
        RZ_UNROLL
        for (int i = 0; i < 2 * kTiles; ++i) {
            float x = fmaxf(top[i], shuffle_xor(top[i], 1));
            x = fmaxf(x, shuffle_xor(x, 2));
            const std::uint32_t token = static_cast<std::uint32_t>(i * 8 + lane_index() / 4);
            if (lane_index() % 4 == 0) s.slot[token] = add(x, constants[group * kGroupTokens + token]);
            top[i] = -INFINITY;
        }
        units.answer(unit, group, kGroupTokens, s.slot);
    }
};

// The largest steps that fit; whether any do.
template <class Kernel>
bool fit_shared(Kernel& kernel, const std::vector<GroupPlace>& groups, std::size_t room) {
    const std::uint32_t n = kernel.n_groups;
    for (kernel.slab_groups = kMostSlabGroups; kernel.slab_groups > 0; kernel.slab_groups /= 2) {
        kernel.stage_bytes = kTileScalarBytes;
        for (std::uint32_t g = 0; g < n; g += kernel.slab_groups) {
            const std::uint32_t end = std::min(n, g + kernel.slab_groups);
            kernel.stage_bytes = std::max(kernel.stage_bytes, groups[end].at - groups[g].at + (end == n ? kTileScalarBytes : 0));
        }
        if (kernel.shared_bytes() <= room) return true;
    }
    return false;
}

template <int kTiles, bool kInShared>
MaxsimPass pass_of(Context& context, const CodeTiles& tiles, const CodeQueries& queries) {
    using Kernel = CodeMaxsim<kTiles, kInShared>;
    Kernel kernel{};
    kernel.tiles = tiles.tiles.data();
    kernel.first_tile = tiles.first_tile.data();
    kernel.tile_bytes = tiles.tile_bytes;
    kernel.groups = tiles.device_groups.data();
    kernel.n_groups = tiles.n_groups();
    kernel.fragments = queries.fragments;
    kernel.terms = reinterpret_cast<const Terms*>(queries.terms);
    kernel.constants = queries.constants;
    if (!fit_shared(kernel, tiles.groups, context.info().shared_bytes)) {
        if constexpr (kInShared) return pass_of<kTiles, false>(context, tiles, queries);
        throw Error(ErrorKind::unsupported, "codes of " + std::to_string(kernel.n_groups * kernel::kGroupDims) +
                                                " dims are too long for the device's shared memory");
    }
    return {Kernel::kGroupTokens, Kernel::kTile, [&context, kernel](const MaxsimUnits& units, std::size_t groups) mutable {
                kernel.units = units;
                launch(kernel, context, {static_cast<std::size_t>(context.info().multiprocessors), groups}, kernel.shared_bytes());
            }};
}

}  // namespace

CodeTiles::CodeTiles(Context& context, const std::vector<std::uint8_t>& group_bits, const std::vector<std::size_t>& first) {
    std::uint32_t at = 0;
    for (const std::uint8_t bits : group_bits) {
        groups.push_back({at, bits});
        at += bits * kGroupBitBytes;
    }
    groups.push_back({at, 0});
    tile_bytes = at + kTileScalarBytes;
    constexpr const char* kWhat = "the codes of documents";
    device_groups = {context, groups, kWhat};
    first_tile = {context, first, kWhat};
    tiles = {context, first.back() * tile_bytes, kWhat};
}

void CodeTiles::take(Context& context, const kernel::PlaneLayout& layout, const std::uint8_t* blocks,
                     const std::vector<std::uint8_t>& present) {
    constexpr std::size_t kStagedBytes = std::size_t{64} << 20, kPerBlock = RepackCodes::kThreads / kWarp;
    const DeviceArray<std::uint8_t> rows(context, present, "the codes of documents");
    const std::size_t bytes = layout.block_bytes(), step = std::max<std::size_t>(1, kStagedBytes / bytes);
    DeviceArray<std::uint8_t> staged(context, std::min(step, present.size()) * bytes, "codes on their way");
    RepackCodes kernel{};
    kernel.layout = layout;
    kernel.blocks = staged.data();
    kernel.block_bytes = bytes;
    kernel.present = rows.data();
    kernel.groups = device_groups.data();
    kernel.tile_bytes = tile_bytes;
    kernel.tiles = tiles.data();
    for (std::size_t begin = 0; begin < present.size(); begin += step) {
        kernel.n_blocks = std::min(step, present.size() - begin);
        kernel.first = begin;
        staged.copy_in(blocks + begin * bytes, kernel.n_blocks * bytes);
        launch(kernel, context, {(kernel.n_blocks + kPerBlock - 1) / kPerBlock, n_groups()});
    }
    context.synchronize();  // the staged codes are done with
}

std::uint32_t code_pass_tokens(std::size_t n) { return n <= 16 ? 16 : n <= 32 ? 32 : 64; }

MaxsimPass code_pass(Context& context, const CodeTiles& tiles, std::uint32_t pass_tokens, const CodeQueries& queries) {
    if (pass_tokens == 16) return pass_of<1, true>(context, tiles, queries);
    if (pass_tokens == 32) return pass_of<2, true>(context, tiles, queries);
    return pass_of<4, true>(context, tiles, queries);
}

}  // namespace residua::cuda
