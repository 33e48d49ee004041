// SPDX-License-Identifier: Apache-2.0
// Arrays on the device as Python libraries exchange them: DLPack and __cuda_array_interface__, both ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "cuda/shared_context.hpp"

namespace residua::bindings {

// Deletes what takes the lock of a context: whoever holds that may ask for the interpreter (bindings/arrays.hpp).
template <class T>
void delete_without_gil(T* object) {
    if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {
        const py::gil_scoped_release release;
        delete object;
    } else {
        delete object;
    }
}

// Somebody's array, shown; what the context does from now on comes after what made it.
struct DeviceView {
    const void* data = nullptr;
    std::vector<std::size_t> shape;
    std::vector<std::ptrdiff_t> strides;  // bytes
    std::string dtype;                    // NumPy's name, or "bfloat16"
    std::size_t item_bytes = 0;
    std::shared_ptr<const void> owner;    // keeps the memory; let go with the GIL held

    std::size_t size() const;
    bool is_contiguous() const;  // C order
};

// Whether the object says that it is an array on a CUDA device.
bool is_on_device(const py::object& array);
// Nothing where it is not. Throws value for an array of another device, dtype for one whose elements have no name here.
// `name` is that of the argument. The GIL is held.
std::optional<DeviceView> view_on_device(const py::object& array, cuda::SharedContext& context, const char* name);
// Its elements as a NumPy array of the same shape, float32 for bfloat16; one copy.
py::array copy_to_host(const DeviceView& view, cuda::SharedContext& context);

// An array of ours.
class OwnedArray {
public:
    OwnedArray(std::shared_ptr<cuda::SharedContext> context, std::vector<std::size_t> shape, std::string dtype, std::size_t item_bytes);
    ~OwnedArray();
    OwnedArray(const OwnedArray&) = delete;
    OwnedArray& operator=(const OwnedArray&) = delete;

    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }
    const std::vector<std::size_t>& shape() const { return shape_; }
    const std::string& dtype() const { return dtype_; }
    std::size_t item_bytes() const { return item_bytes_; }
    cuda::SharedContext& context() const { return *context_; }
    // Other streams may read it until it is gone.
    void lend() { lent_ = true; }

private:
    std::shared_ptr<cuda::SharedContext> context_;
    std::vector<std::size_t> shape_;
    std::string dtype_;
    std::size_t item_bytes_, bytes_;
    void* data_ = nullptr;
    bool lent_ = false;
};

}  // namespace residua::bindings
