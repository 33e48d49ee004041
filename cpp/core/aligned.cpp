// SPDX-License-Identifier: Apache-2.0
#include "core/aligned.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <array>
#include <new>
#include <utility>

namespace residua {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Below this the pages at both ends would be most of it.
std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{bytes >= 4 * kHugePage ? kHugePage : kCacheLine};
}

// What a thread releases after its Kept is gone goes to the system.
thread_local constinit bool closed = false;

// Small pieces that a thread gave back. The tables of a batch of queries come and go with every search: given back
// to the system each time, their pages would have to be cleared again.
class Kept {
public:
    Kept() = default;
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;
    ~Kept() {
        for (Bin& bin : bins_) clear(bin);
        closed = true;
    }

    void* take(std::size_t bytes) noexcept {
        Bin* const bin = find(bytes);
        if (bin == nullptr || bin->first == nullptr) return nullptr;
        bytes_ -= bytes;
        return std::exchange(bin->first, bin->first->next);
    }
    bool keep(void* p, std::size_t bytes) noexcept {
        if (bytes < sizeof(Piece) || bytes > kMaxPiece || bytes_ + bytes > kMaxBytes) return false;
        Bin* bin = find(bytes);
        if (bin == nullptr) {
            bin = &bins_[oldest_++ % kBins];
            clear(*bin);
            bin->bytes = bytes;
        }
        bytes_ += bytes;
        bin->first = ::new (p) Piece{bin->first};
        return true;
    }

private:
    static constexpr std::size_t kBins = 8;  // sizes
    static constexpr std::size_t kMaxPiece = std::size_t{64} << 10;
    static constexpr std::size_t kMaxBytes = std::size_t{8} << 20;
    struct Piece {
        Piece* next;
    };
    struct Bin {
        std::size_t bytes = 0;
        Piece* first = nullptr;
    };

    Bin* find(std::size_t bytes) noexcept {
        for (Bin& bin : bins_) {
            if (bin.bytes == bytes) return &bin;
        }
        return nullptr;
    }
    void clear(Bin& bin) noexcept {
        while (bin.first != nullptr) {
            bytes_ -= bin.bytes;
            Piece* const p = std::exchange(bin.first, bin.first->next);
            ::operator delete(p, alignment(bin.bytes));
        }
    }

    std::array<Bin, kBins> bins_;
    std::size_t oldest_ = 0;
    std::size_t bytes_ = 0;
};

thread_local Kept kept;

}  // namespace

void* acquire_lines(std::size_t bytes) {
    if (void* const p = closed ? nullptr : kept.take(bytes)) return p;
    void* const p = ::operator new(bytes, alignment(bytes));
#if defined(MADV_HUGEPAGE)
    // A wish: where it is refused, small pages do.
    if (alignment(bytes) == std::align_val_t{kHugePage}) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void release_lines(void* p, std::size_t bytes) noexcept {
    if (closed || !kept.keep(p, bytes)) ::operator delete(p, alignment(bytes));
}

}  // namespace residua
