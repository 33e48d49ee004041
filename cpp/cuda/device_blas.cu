// SPDX-License-Identifier: Apache-2.0
// cuBLAS without its headers: the few functions that are used are found at run time, as the library may come with the
// toolkit, from the nvidia-cublas package, or not at all.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <vector>

#include "core/error.hpp"
#include "cuda/products.hpp"

namespace residua::cuda::blas {
namespace {

using Handle = void*;
// cublas_api.h, library_types.h
constexpr int kSuccess = 0, kTransposed = 1, kAsItIs = 0, kPedanticMath = 2, kSumsInFloat = 16;
constexpr int kFloat32 = 0, kFloat16 = 2, kBfloat16 = 14, kComputeFloat = 68, kAnyAlgorithm = -1;

struct Library {
    int (*create)(Handle*) = nullptr;
    int (*set_stream)(Handle, cudaStream_t) = nullptr;
    int (*set_math_mode)(Handle, int) = nullptr;
    int (*sgemm)(Handle, int, int, int, int, int, const float*, const float*, int, const float*, int, const float*, float*, int) = nullptr;
    int (*gemm)(Handle, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*, void*, int, int,
                int, int) = nullptr;
    std::string reason;  // why it is not there
    std::map<int, Handle> handles;  // by device; they live as long as the process
};

std::mutex guard;  // of all below: a handle serves one thread at a time
std::string folders_first;
Library library;
bool looked = false;

std::vector<std::string> split(const std::string& text, char mark) {
    std::vector<std::string> out;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find(mark, begin), text.size());
        if (end > begin) out.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return out;
}

// The folders of the package beside the one that this library is installed in.
std::vector<std::string> package_folders() {
    Dl_info info;
    if (dladdr(reinterpret_cast<const void*>(&package_folders), &info) == 0 || info.dli_fname == nullptr) return {};
    std::string site = info.dli_fname;
    for (int up = 0; up < 2; ++up) {
        const std::size_t slash = site.rfind('/');
        if (slash == std::string::npos) return {};
        site.resize(slash);
    }
    return {site + "/nvidia/cu13/lib", site + "/nvidia/cublas/lib"};
}

void* open_library(std::string& reason) {
    std::vector<std::string> places;
    for (const std::string& folder : split(folders_first, ':')) places.push_back(folder + "/");
    for (const std::string& folder : package_folders()) places.push_back(folder + "/");
    places.push_back("");  // where the system looks
    for (const std::string& place : places) {
        for (const char* version : {"13", "12"}) {
            // What cuBLAS needs of its own lies beside it, which the loader is not always told.
            if (!place.empty()) dlopen((place + "libcublasLt.so." + version).c_str(), RTLD_NOW | RTLD_GLOBAL);
            void* found = dlopen((place + "libcublas.so." + version).c_str(), RTLD_NOW | RTLD_LOCAL);
            if (found != nullptr) return found;
            const char* error = dlerror();
            if (error != nullptr) reason = error;
        }
    }
    return nullptr;
}

template <class Function>
void find(void* from, const char* name, Function& function, std::string& reason) {
    function = reinterpret_cast<Function>(dlsym(from, name));
    if (function == nullptr) reason = std::string("cuBLAS lacks ") + name;
}

const Library& load() {
    if (looked) return library;
    looked = true;
    std::string reason;
    void* found = open_library(reason);
    if (found == nullptr) {
        library.reason = "cuBLAS was not found (pip install nvidia-cublas): " + reason;
        return library;
    }
    find(found, "cublasCreate_v2", library.create, library.reason);
    find(found, "cublasSetStream_v2", library.set_stream, library.reason);
    find(found, "cublasSetMathMode", library.set_math_mode, library.reason);
    find(found, "cublasSgemm_v2", library.sgemm, library.reason);
    find(found, "cublasGemmEx", library.gemm, library.reason);
    return library;
}

void check(int status, const char* what) {
    if (status == kSuccess) return;
    constexpr int kAllocFailed = 3;
    throw Error(status == kAllocFailed ? ErrorKind::out_of_memory : ErrorKind::unsupported,
                std::string("cuBLAS could not ") + what + ": status " + std::to_string(status));
}

}  // namespace

bool is_there(std::string* reason) {
    const std::lock_guard lock(guard);
    const Library& lib = load();
    if (!lib.reason.empty() && reason != nullptr) *reason = lib.reason;
    return lib.reason.empty();
}

void look_in(const std::string& folders) {
    const std::lock_guard lock(guard);
    folders_first = folders;
}

namespace {

// Of the context's device, for work on its stream; the guard is held.
Handle ready(Context& context, int math_mode) {
    const Library& lib = load();
    if (!lib.reason.empty()) throw Error(ErrorKind::unsupported, lib.reason);
    context.enter();
    Handle& handle = library.handles[context.device()];
    if (handle == nullptr) check(lib.create(&handle), "start");
    check(lib.set_math_mode(handle, math_mode), "choose its precision");
    check(lib.set_stream(handle, reinterpret_cast<cudaStream_t>(context.stream())), "choose a stream");
    return handle;
}

}  // namespace

// cuBLAS counts by columns: what are rows here are columns there, and the result is (b a^T)^T.
void multiply(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride) {
    const std::lock_guard lock(guard);
    const Handle handle = ready(context, kPedanticMath);
    const float one = 1.0f, zero = 0.0f;
    check(library.sgemm(handle, kTransposed, kAsItIs, static_cast<int>(b.rows), static_cast<int>(a.rows), static_cast<int>(depth), &one,
                        b.data, static_cast<int>(b.stride), a.data, static_cast<int>(a.stride), &zero, out, static_cast<int>(out_stride)),
          "multiply");
}

void multiply_halves(Context& context, HalfRows a, HalfRows b, bool bfloat, std::size_t depth, float* out, std::size_t out_stride,
                     bool adds) {
    const std::lock_guard lock(guard);
    const Handle handle = ready(context, kSumsInFloat);
    const float one = 1.0f, before = adds ? 1.0f : 0.0f;
    const int type = bfloat ? kBfloat16 : kFloat16;
    check(library.gemm(handle, kTransposed, kAsItIs, static_cast<int>(b.rows), static_cast<int>(a.rows), static_cast<int>(depth), &one,
                       b.data, type, static_cast<int>(b.stride), a.data, type, static_cast<int>(a.stride), &before, out, kFloat32,
                       static_cast<int>(out_stride), kComputeFloat, kAnyAlgorithm),
          "multiply");
}

}  // namespace residua::cuda::blas
