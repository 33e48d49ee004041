// SPDX-License-Identifier: Apache-2.0
// Documents of token vectors on the device, and their MaxSim with queries. No product of two tokens is ever written:
// of every query token only the largest product with a document is kept.
//
//   rows   float16, multiplied by tensor cores with queries split into two float16 parts, sums in float32: as exact as
//          float32. Tokens of float32 are kept as two such parts and a power of 2 per token, int8 as float16 and a scale.
//   codes  recurrent codes of whole blocks of 32 tokens, multiplied as integers: the bits of the CPU's scores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cuda/runtime.hpp"
#include "multivector/token_store.hpp"
#include "multivector/tokens.hpp"

namespace residua::cuda {

// Sets of tokens: offsets are on the host, tokens and scales on the host or on the device.
struct PlacedSets {
    multivector::TokenSets sets;
    bool on_device = false;
};

struct MaxsimUnits;

// Queries made ready: how many of their tokens one pass over the documents answers, and that pass.
struct MaxsimPass {
    std::uint32_t group_tokens;  // a multiple of 16
    std::uint32_t tile;          // document tokens that a warp takes at a time
    std::function<void(const MaxsimUnits& units, std::size_t groups)> launch;
};

class DeviceDocuments {
public:
    virtual ~DeviceDocuments() = default;

    virtual std::size_t dim() const = 0;
    virtual const char* form() const = 0;  // "float32", "float16", "int8" or "codes"
    virtual std::size_t device_bytes() const = 0;
    std::size_t size() const { return offsets_.size() - 1; }
    std::size_t tokens() const { return static_cast<std::size_t>(offsets_.back()); }

    // What multivector::maxsim gives: scores[q * n + i] on the device, of n documents by number, or of all. Queries are
    // float32 or float16; none is empty. Throws shape; out_of_range for a number that is not there; non_finite, naming
    // the first bad document, after everything has run.
    void maxsim(const PlacedSets& queries, multivector::DocumentNumbers chosen, float* scores);

    Context& context() const { return context_; }

protected:
    // offsets: n + 1, of tokens.
    DeviceDocuments(Context& context, std::vector<std::int64_t> offsets);
    // bad[0] gets ~number, the largest, of a document that is not finite, bad[1] that of a query token. What is needed
    // until the end goes into `keep`.
    virtual MaxsimPass prepare(const PlacedSets& queries, std::uint32_t* bad, std::vector<DeviceArray<std::uint8_t>>& keep) = 0;
    // Throws non_finite.
    [[noreturn]] virtual void name_bad(std::size_t document) const = 0;

    const std::vector<std::int64_t>& offsets() const { return offsets_; }

private:
    Context& context_;
    std::vector<std::int64_t> offsets_;
    DeviceArray<std::int64_t> device_offsets_;
};

// Tokens are float32, float16 or int8, and kept as they are, or float32 ones as float16 (`halve`), which holds up to 65,504.
// Of those on the device that are float16, 16-byte aligned and of dims in multiples of 8, no copy is made where `borrow`
// is set: their memory must then live as long.
std::unique_ptr<DeviceDocuments> float_documents(Context& context, const PlacedSets& documents, bool borrow, bool halve = false);

// What a token store holds now, in its form; removed documents are empty.
std::unique_ptr<DeviceDocuments> store_documents(Context& context, const multivector::TokenStore& store);

}  // namespace residua::cuda
