// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <map>
#include <mutex>

#include "core/error.hpp"
#include "cuda/runtime.hpp"

namespace residua::cuda {
namespace {

cudaStream_t as_stream(StreamHandle stream) { return reinterpret_cast<cudaStream_t>(stream); }

std::string text(cudaError_t error) {
    return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
}

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // errors that the device survives are cleared
    throw Error(ErrorKind::unsupported, std::string("CUDA could not ") + what + ": " + text(error));
}

// Asking takes milliseconds, and nothing of it changes.
const cudaDeviceProp& properties(int device) {
    static std::mutex guard;
    static std::map<int, cudaDeviceProp> known;
    const std::lock_guard lock(guard);
    const auto found = known.find(device);
    if (found != known.end()) return found->second;
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, device), "ask for the properties of the device");
    return known.emplace(device, p).first->second;
}

}  // namespace

bool is_emulated() noexcept { return false; }

int device_count(std::string* reason) noexcept {
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) return n;
    cudaGetLastError();
    if (reason != nullptr) *reason = error == cudaSuccess ? "there is no CUDA device" : text(error);
    return 0;
}

DeviceInfo device_info(int device) {
    std::string reason;
    const int n = device_count(&reason);
    if (n == 0) throw Error(ErrorKind::unsupported, "no CUDA device can be used: " + reason);
    if (device < 0 || device >= n) {
        throw Error(ErrorKind::value, "there is no CUDA device " + std::to_string(device) + "; devices are 0 … " + std::to_string(n - 1));
    }
    const cudaDeviceProp& p = properties(device);
    DeviceInfo out;
    out.name = p.name;
    out.major = p.major;
    out.minor = p.minor;
    out.multiprocessors = p.multiProcessorCount;
    out.memory_bytes = p.totalGlobalMem;
    out.l2_bytes = static_cast<std::size_t>(p.l2CacheSize);
    out.shared_bytes = p.sharedMemPerBlockOptin;
    int before = 0;
    check(cudaGetDevice(&before), "ask for the current device");
    check(cudaSetDevice(device), "choose the device");
    std::size_t total = 0;
    check(cudaMemGetInfo(&out.free_bytes, &total), "ask for the free memory");
    check(cudaSetDevice(before), "choose the device");
    return out;
}

int device_of(const void* memory) noexcept {
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, memory) == cudaSuccess && attributes.type == cudaMemoryTypeDevice) return attributes.device;
    cudaGetLastError();
    return -1;
}

int current_device() noexcept {
    int device = 0;
    cudaGetDevice(&device);
    return device;
}

void make_current(int device) noexcept { cudaSetDevice(device); }

Context::Context(int device, std::size_t memory_limit, StreamHandle stream)
    : device_(device), stream_(stream), info_(device_info(device)), memory_(memory_limit) {
    if (info_.major < kMinMajor) {
        throw Error(ErrorKind::unsupported, info_.name + " has compute capability " + std::to_string(info_.major) + "." +
                                                std::to_string(info_.minor) + "; 8.0 or later is needed");
    }
    enter();
    if (stream_ != 0) return;
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "make a stream");
    stream_ = reinterpret_cast<StreamHandle>(made);
    owns_stream_ = true;
}

Context::~Context() {
    memory_.trim();
    if (owns_stream_) cudaStreamDestroy(as_stream(stream_));
}

void Context::enter() const { check(cudaSetDevice(device_), "choose the device"); }

void* raw_allocate(std::size_t bytes) {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return nullptr;
    }
    check(error, "allocate memory");
    return memory;
}

// Waits for the device.
void raw_release(void* memory, std::size_t) noexcept { cudaFree(memory); }

std::pair<std::size_t, std::size_t> raw_memory() {
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return {free, total};
}

void Context::copy_in(void* device, const void* host, std::size_t bytes) {
    if (bytes == 0) return;
    enter();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, as_stream(stream_)), "copy to the device");
    // Pageable memory has been copied aside by now; pinned memory would still be read.
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, host) == cudaSuccess && attributes.type == cudaMemoryTypeUnregistered) return;
    cudaGetLastError();
    check(cudaStreamSynchronize(as_stream(stream_)), "copy to the device");
}

void Context::copy_out(void* host, const void* device, std::size_t bytes) {
    if (bytes == 0) return;
    enter();
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, as_stream(stream_)), "copy from the device");
    synchronize();
}

void Context::copy(void* device_to, const void* device_from, std::size_t bytes) {
    if (bytes == 0) return;
    enter();
    check(cudaMemcpyAsync(device_to, device_from, bytes, cudaMemcpyDeviceToDevice, as_stream(stream_)), "copy on the device");
}

void Context::fill(void* device, int byte, std::size_t bytes) {
    if (bytes == 0) return;
    enter();
    check(cudaMemsetAsync(device, byte, bytes, as_stream(stream_)), "fill memory");
}

void Context::synchronize() { check(cudaStreamSynchronize(as_stream(stream_)), "finish its work"); }

void Context::synchronize_all() {
    enter();
    check(cudaDeviceSynchronize(), "finish all work");
}

namespace {

void order(cudaStream_t first, cudaStream_t then) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
    cudaError_t error = cudaEventRecord(event, first);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(then, event, 0);
    cudaEventDestroy(event);
    check(error, "order two streams");
}

}  // namespace

void Context::wait_for(StreamHandle other) {
    enter();
    if (other != stream_) order(as_stream(other), as_stream(stream_));
}

void Context::let_wait(StreamHandle other) {
    enter();
    if (other != stream_) order(as_stream(stream_), as_stream(other));
}

}  // namespace residua::cuda
