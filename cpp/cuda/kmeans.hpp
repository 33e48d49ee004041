// SPDX-License-Identifier: Apache-2.0
// k-means with the rows on the device: seeds, empty centroids and all decisions are those of train/kmeans.hpp. Products
// of rows with centroids (cuda/products.hpp), of which a kernel keeps each row's best, take nearly all of the time; sums
// by label are float64, in one order: the same bits in every run on a device.
#pragma once

#include <cstdint>

#include "cuda/runtime.hpp"
#include "train/kmeans.hpp"

namespace residua::cuda {

class DeviceKMeans final : public train::KMeansEngine {
public:
    explicit DeviceKMeans(Context& context) : context_(context) {}

    void hold(ConstMatrix x) override;
    void assign(ConstMatrix centroids, train::Nearness nearness, std::uint32_t* labels) override;
    void distances(ConstMatrix centroids, const std::uint32_t* labels, float* out) override;
    train::LabelSums sums(const std::uint32_t* labels, std::size_t k) override;

private:
    Context& context_;
    DeviceArray<float> rows_;  // (n, dim)
    std::size_t n_ = 0, dim_ = 0;
};

// As train::kmeans with an engine of the device, which `options` need not have.
train::KMeans kmeans(Context& context, ConstMatrix x, train::KMeansOptions options);

}  // namespace residua::cuda
