// SPDX-License-Identifier: Apache-2.0
// The layout of DLPack's structs (https://dmlc.github.io/dlpack, version 0), which capsules named "dltensor" point to.
#pragma once

#include <cstdint>

namespace residua::bindings::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaManaged = 13 };
enum TypeCode : std::uint8_t { kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    std::int32_t type;
    std::int32_t number;
};
struct Type {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};
struct Tensor {
    void* data;
    Device device;
    std::int32_t n_axes;
    Type type;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};
struct Managed {
    Tensor tensor;
    void* context;
    void (*deleter)(Managed* self);
};

static_assert(sizeof(void*) != 8 || (sizeof(Tensor) == 48 && sizeof(Managed) == 64));

}  // namespace residua::bindings::dlpack
