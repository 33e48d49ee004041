// SPDX-License-Identifier: Apache-2.0
// Tokens as float32, float16, or int8 with one scale per token, contiguous per document.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/error.hpp"
#include "core/half.hpp"
#include "core/parallel.hpp"
#include "multivector/maxsim.hpp"
#include "multivector/token_data.hpp"
#include "store/row_encoding.hpp"
#include "store/shared_array.hpp"

namespace residua::multivector {
namespace {

constexpr const char* kForms[] = {"float32", "float16", "int8"};
constexpr store::RowType kRowTypes[] = {store::RowType::f32, store::RowType::f16, store::RowType::i8};
constexpr std::size_t kEncodeTokens = 256;

class FloatTokens final : public TokenData {
public:
    FloatTokens(TokenType type, std::size_t dim) : type_(type), dim_(dim) {
        if (dim == 0 || dim > 65'536) throw Error(ErrorKind::value, "tokens must have from 1 to 65536 dims");
    }

    static std::unique_ptr<TokenData> read(const store::Reader& in, TokenType type, std::size_t tokens) {
        auto out = std::make_unique<FloatTokens>(type, static_cast<std::size_t>(in.get_int("dim", 1, 65'536)));
        const auto rows = in.array<std::uint8_t>("tokens", tokens * out->token_bytes());
        out->rows_ = store::SharedArray<std::uint8_t>(rows, in.keep_alive("tokens"));
        if (type == TokenType::i8) {
            const auto scales = in.array<float>("scales", tokens);
            in.verify("scales");
            const auto fits = [](float s) { return std::isfinite(s) && s >= 0; };
            if (!std::all_of(scales.begin(), scales.end(), fits)) in.fail("scales", "holds impossible scales");
            out->scales_ = store::SharedArray<float>(scales, in.keep_alive("scales"));
        }
        return out;
    }

    std::size_t dim() const override { return dim_; }
    const char* form() const override { return kForms[static_cast<int>(type_)]; }
    TokenMemory memory() const override { return {rows_.data(), type_ == TokenType::i8 ? scales_.data() : nullptr, nullptr}; }

    std::unique_ptr<TokenData> encoded(const TokenSets& documents, int num_threads) const override {
        auto out = std::make_unique<FloatTokens>(type_, dim_);
        const std::size_t n = documents.total();
        std::uint8_t* rows = resized(out->rows_, n * token_bytes());
        float* scales = type_ == TokenType::i8 ? resized(out->scales_, n) : nullptr;
        std::atomic<std::size_t> bad{n};
        parallel_for(n, kEncodeTokens, num_threads, [&](std::size_t begin, std::size_t end, int) {
            AlignedVector<float> buffer;
            const float* x = as_floats(documents, begin, end - begin, buffer);
            for (std::size_t t = begin; t < end; ++t, x += dim_) {
                float scale;
                store::encode_row(kRowTypes[static_cast<int>(type_)], x, dim_, rows + t * token_bytes(), scale);
                if (scales != nullptr) scales[t] = scale;
                if (type_ == TokenType::f16 && overflows(rows + t * token_bytes())) {
                    std::size_t first = bad.load();
                    while (t < first && !bad.compare_exchange_weak(first, t)) {
                    }
                }
            }
        });
        if (bad < n) refuse_overflow(documents, bad);
        return out;
    }

    std::unique_ptr<TokenData> compacted(const DocumentPlaces& places, std::size_t documents) const override {
        auto out = std::make_unique<FloatTokens>(type_, dim_);
        std::size_t n = 0;
        for (std::size_t i = 0; i < documents; ++i) n += places.count(i);
        std::uint8_t* rows = resized(out->rows_, n * token_bytes());
        float* scales = type_ == TokenType::i8 ? resized(out->scales_, n) : nullptr;
        for (std::size_t i = 0; i < documents; ++i) {
            const std::size_t begin = places.begin(i), count = places.count(i);
            rows = std::copy_n(rows_.data() + begin * token_bytes(), count * token_bytes(), rows);
            if (scales != nullptr) scales = std::copy_n(scales_.data() + begin, count, scales);
        }
        return out;
    }

    void append(const TokenData& more) override {
        const auto& other = static_cast<const FloatTokens&>(more);
        AlignedVector<std::uint8_t>& rows = rows_.edit(rows_.size() + other.rows_.size());
        AlignedVector<float>& scales = scales_.edit(scales_.size() + other.scales_.size());
        rows.insert(rows.end(), other.rows_.span().begin(), other.rows_.span().end());
        scales.insert(scales.end(), other.scales_.span().begin(), other.scales_.span().end());
    }

    void decode(const DocumentPlaces& places, std::size_t document, float* out) const override {
        for (std::size_t t = places.begin(document); t < places.begin(document) + places.count(document); ++t) {
            store::decode_row(kRowTypes[static_cast<int>(type_)], rows_.data() + t * token_bytes(),
                              type_ == TokenType::i8 ? scales_[t] : 1.0f, dim_, out);
            out += dim_;
        }
    }

    std::unique_ptr<TokenScorer> prepare(const TokenSets& queries, const DocumentPlaces& places,
                                         int) const override {
        const TokenSets documents{rows_.data(), type_,    dim_,
                                  places.offsets, places.n, type_ == TokenType::i8 ? scales_.data() : nullptr};
        return float_scorer(queries, documents, places.removed);
    }

    void add_memory(std::map<std::string, std::size_t>& parts) const override {
        parts["tokens"] = rows_.memory_bytes();
        if (type_ == TokenType::i8) parts["scales"] = scales_.memory_bytes();
    }

    void write(store::Writer& out) const override {
        out.put_string("form", form());
        out.put_int("dim", static_cast<std::int64_t>(dim_));
        out.put("tokens", rows_.span());
        if (type_ == TokenType::i8) out.put("scales", scales_.span());
    }

private:
    template <class T>
    static T* resized(store::SharedArray<T>& array, std::size_t n) {
        AlignedVector<T>& own = array.edit();
        own.resize(n);
        return own.data();
    }

    std::size_t token_bytes() const { return dim_ * type_bytes(type_); }

    bool overflows(const std::uint8_t* row) const {
        const auto* half = reinterpret_cast<const std::uint16_t*>(row);
        std::uint32_t largest = 0;
        for (std::size_t i = 0; i < dim_; ++i) largest = std::max<std::uint32_t>(largest, half[i] & 0x7fffu);
        return largest >= 0x7c00u;
    }

    [[noreturn]] void refuse_overflow(const TokenSets& documents, std::size_t token) const {
        AlignedVector<float> buffer;
        const float* x = as_floats(documents, token, 1, buffer);
        const float* largest =
            std::max_element(x, x + dim_, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
        const std::int64_t* owner =
            std::upper_bound(documents.offsets, documents.offsets + documents.n, static_cast<std::int64_t>(token)) - 1;
        throw Error(ErrorKind::value, "tokens: document " + std::to_string(owner - documents.offsets) + ", token " +
                                          std::to_string(token - static_cast<std::size_t>(*owner)) + " holds " +
                                          std::to_string(*largest) + ", float16 at most " +
                                          std::to_string(static_cast<int>(kHalfMax)) +
                                          "; use 'float32' or 'int8', or scale the tokens down");
    }

    TokenType type_;
    std::size_t dim_;
    store::SharedArray<std::uint8_t> rows_;
    store::SharedArray<float> scales_;  // int8: one per token
};

TokenType type_of(std::string_view form) {
    for (int i = 0; i < 3; ++i) {
        if (form == kForms[i]) return static_cast<TokenType>(i);
    }
    throw Error(ErrorKind::value, "tokens are kept as 'float32', 'float16' or 'int8', or as codes; got '" +
                                      std::string(form) + "'");
}

}  // namespace

std::unique_ptr<TokenData> make_float_tokens(std::string_view form, std::size_t dim) {
    return std::make_unique<FloatTokens>(type_of(form), dim);
}

std::unique_ptr<TokenData> read_token_data(const store::Reader& in, std::span<const std::int64_t> offsets) {
    if (!in.has_key("form")) return read_code_tokens(in, offsets);
    TokenType type;
    try {
        type = type_of(in.get_string("form"));
    } catch (const Error& e) {
        in.fail("meta", e.what());
    }
    return FloatTokens::read(in, type, static_cast<std::size_t>(offsets.back()));
}

}  // namespace residua::multivector
