// SPDX-License-Identifier: Apache-2.0
// The vocabulary of device code: what a thread of a kernel may do. nvcc compiles it to the instructions of the GPU;
// any other compiler gets an emulation (cuda/emulation.hpp) that runs every thread of a block in turn, so that
// kernels are executed and tested on machines without a GPU.
//
// A kernel is a struct of parameters, passed by value:
//     struct Example {
//         static constexpr int kThreads = 256;      // threads of a block, a multiple of 32
//         float* out;
//         RZ_DEVICE void operator()() const { ... }
//     };
//     launch(Example{out}, blocks, shared_bytes, stream);    // cuda/launch.hpp
// All threads of a block reach every sync_block(), and all lanes of a warp every warp operation: no early return
// before one of them. The emulation fails where they do not. Floating point is contracted only by fmaf().
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define RZ_HD __host__ __device__
#define RZ_DEVICE __device__ __forceinline__
// Before a loop: arrays that it indexes stay in registers.
#define RZ_UNROLL _Pragma("unroll")
#define RZ_UNROLL_BY(n) _Pragma(RZ_TEXT(unroll n))
#define RZ_TEXT(x) #x
#else
#define RZ_HD
#define RZ_DEVICE inline
#define RZ_UNROLL
#define RZ_UNROLL_BY(n)
#endif

namespace residua::cuda {

inline constexpr int kWarp = 32;

struct Int3 {
    unsigned x, y, z;
};

// 8, 16 bytes that are moved at once.
struct alignas(8) Pack8 {
    std::uint32_t word[2];
};
struct alignas(16) Pack16 {
    std::uint32_t word[4];
};

#if defined(__CUDACC__)

RZ_DEVICE Int3 block_index() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
RZ_DEVICE Int3 grid_blocks() { return {gridDim.x, gridDim.y, gridDim.z}; }
RZ_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
RZ_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
RZ_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
RZ_DEVICE int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

// The block's shared memory, `shared_bytes` of the launch, 128-byte aligned.
RZ_DEVICE std::uint8_t* shared_memory() {
    extern __shared__ __align__(128) std::uint8_t residua_shared[];
    return residua_shared;
}

RZ_DEVICE void sync_block() { __syncthreads(); }
RZ_DEVICE void sync_warp() { __syncwarp(); }

template <class T>
RZ_DEVICE T shuffle(T value, int lane) { return __shfl_sync(0xFFFFFFFFu, value, lane); }
template <class T>
RZ_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, mask); }
RZ_DEVICE std::uint32_t ballot(bool value) { return __ballot_sync(0xFFFFFFFFu, value); }

RZ_DEVICE std::uint32_t atomic_add(std::uint32_t* at, std::uint32_t value) { return atomicAdd(at, value); }
RZ_DEVICE float atomic_add(float* at, float value) { return atomicAdd(at, value); }
RZ_DEVICE std::uint32_t atomic_max(std::uint32_t* at, std::uint32_t value) { return atomicMax(at, value); }

RZ_DEVICE int popcount(std::uint32_t v) { return __popc(v); }
RZ_DEVICE int leading_zeros(std::uint32_t v) { return __clz(static_cast<int>(v)); }
RZ_DEVICE int first_bit(std::uint32_t v) { return __ffs(static_cast<int>(v)) - 1; }  // v is not 0
// Sum of four products of bytes, added to `sum`: of signed with signed ones.
RZ_DEVICE std::int32_t dot4(std::uint32_t a, std::uint32_t b, std::int32_t sum) {
    return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}

RZ_DEVICE float bits_to_float(std::uint32_t v) { return __uint_as_float(v); }
RZ_DEVICE std::uint32_t float_to_bits(float v) { return __float_as_uint(v); }
RZ_DEVICE float half_to_float(std::uint16_t v) { return __half2float(__ushort_as_half(v)); }
RZ_DEVICE std::uint16_t float_to_half(float v) { return __half_as_ushort(__float2half_rn(v)); }

// Data that is read once: kept out of the caches' way.
template <class T>
RZ_DEVICE T load_once(const T* at);
template <>
RZ_DEVICE std::uint32_t load_once(const std::uint32_t* at) { return __ldcs(at); }
template <>
RZ_DEVICE Pack8 load_once(const Pack8* at) {
    const uint2 v = __ldcs(reinterpret_cast<const uint2*>(at));
    return {{v.x, v.y}};
}
template <>
RZ_DEVICE Pack16 load_once(const Pack16* at) {
    const uint4 v = __ldcs(reinterpret_cast<const uint4*>(at));
    return {{v.x, v.y, v.z, v.w}};
}

// Copies 16 bytes (both 16-byte aligned) from device to shared memory while the thread goes on; `valid` bytes are
// read (0 or 16), the rest becomes zero. wait_copies<N>() returns when all but this thread's newest N groups are there.
RZ_DEVICE void copy_16(void* shared, const void* global, int valid = 16) {
    const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
}
RZ_DEVICE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
RZ_DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Products of tiles by a warp, D += A B, in the fragments of the PTX manual. With g = lane / 4 and t = lane % 4:
// A is 16 rows: words a[0], a[2] of row g and a[1], a[3] of row g + 8; B is 8 columns: b[0], b[1] of column g;
// words 0 of a row are elements of word t of the first half of the depth, the others of word t of the second half.
// d[0], d[1] are row g, columns 2t and 2t + 1; d[2], d[3] row g + 8.
//   multiply_bits   256 bits deep, d counts bits set in both
//   multiply_bytes  32 bytes deep, A signed, B unsigned
//   multiply_halves 16 float16 deep, d in float32
RZ_DEVICE void multiply_bits(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RZ_DEVICE void multiply_bytes(std::int32_t d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RZ_DEVICE void multiply_halves(float d[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
}  // namespace residua::cuda

#if !defined(__CUDACC__)
#include "cuda/emulation.hpp"
#endif

namespace residua::cuda {

// Float operations one by one, as the CPU does them.
#if defined(__CUDA_ARCH__)
RZ_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
RZ_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
#else
RZ_HD inline float multiply(float a, float b) { return a * b; }
RZ_HD inline float add(float a, float b) { return a + b; }
#endif

}  // namespace residua::cuda
