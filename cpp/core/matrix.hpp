// SPDX-License-Identifier: Apache-2.0
// Non-owning row-major matrix views; `stride` is counted in elements.
#pragma once

#include <cstddef>
#include <type_traits>

namespace residua {

template <class T>
struct MatrixView {
    T* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::size_t stride = 0;

    MatrixView() = default;
    MatrixView(T* d, std::size_t r, std::size_t c) : data(d), rows(r), cols(c), stride(c) {}
    MatrixView(T* d, std::size_t r, std::size_t c, std::size_t s) : data(d), rows(r), cols(c), stride(s) {}

    T* row(std::size_t i) const { return data + i * stride; }
    MatrixView slice(std::size_t begin, std::size_t end) const { return {row(begin), end - begin, cols, stride}; }
    operator MatrixView<const T>() const
        requires(!std::is_const_v<T>)
    {
        return {data, rows, cols, stride};
    }
};

using ConstMatrix = MatrixView<const float>;
using MutMatrix = MatrixView<float>;

}  // namespace residua
