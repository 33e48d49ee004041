// SPDX-License-Identifier: Apache-2.0
// Every codec gets the scan of its family, or a message.
#include <doctest/doctest.h>

#include <string>

#include "codec/float_codec.hpp"
#include "codec/pq_codec.hpp"
#include "core/error.hpp"
#include "cuda/float_scan.hpp"
#include "cuda/lookup_scan.hpp"

namespace {

using namespace residua;

// A codec that no device knows.
class Stranger final : public codec::Codec {
public:
    std::string kind() const override { return "stranger_codec"; }
    std::size_t dim() const override { return 12; }
    std::size_t code_bytes() const override { return 1; }
    Metric metric() const override { return Metric::ip; }
    std::size_t memory_bytes() const override { return 0; }
    std::size_t candidates(std::size_t k, std::size_t) const override { return k; }
    void encode(ConstMatrix, std::uint8_t*, int, codec::Effort) const override {}
    void decode(const std::uint8_t*, std::size_t, float*, int) const override {}
    void pack_block(const std::uint8_t*, std::size_t, std::uint8_t*) const override {}
    void unpack_row(const std::uint8_t*, std::size_t, std::uint8_t*) const override {}
    std::unique_ptr<codec::Scorer> prepare(ConstMatrix, int) const override { return nullptr; }
    std::unique_ptr<codec::Scorer> prepare_codes(const std::uint8_t*, std::size_t, int) const override { return nullptr; }
    void write(store::Writer&) const override {}
};

}  // namespace

TEST_CASE("code scan: by the family of the codec") {
    cuda::Context context(0);
    const codec::FloatCodec floats(8, codec::FloatCodec::Type::bf16, Metric::l2);
    CHECK(dynamic_cast<cuda::FloatScan*>(cuda::make_code_scan(context, floats).get()) != nullptr);
    codec::PqParams params;
    params.dim = 8;
    params.n_subspaces = 4;
    params.bits = 4;
    params.codebooks.assign(4 * 16 * 2, 0.5f);
    const codec::PqCodec product(params);
    CHECK(dynamic_cast<cuda::LookupScan*>(cuda::make_code_scan(context, product).get()) != nullptr);
    try {
        cuda::make_code_scan(context, Stranger());
        FAIL("it was scanned");
    } catch (const Error& e) {
        CHECK(e.kind() == ErrorKind::unsupported);
        const std::string text = e.what();
        CHECK(text.find("stranger_codec of 12 dims") != std::string::npos);
        CHECK(text.find("product") != std::string::npos);
    }
}
