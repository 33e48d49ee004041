// SPDX-License-Identifier: Apache-2.0
// The bytes of a file to be opened: read, mapped, or lying in memory already.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace residua::store {

class FileBytes {
public:
    using Owned = std::pair<std::span<const std::byte>, std::shared_ptr<const void>>;

    virtual ~FileBytes() = default;
    virtual std::uint64_t size() const = 0;
    virtual bool is_mapped() const { return false; }
    // The caller has compared offset + bytes with size().
    virtual void read(std::uint64_t offset, void* out, std::size_t bytes) const = 0;
    // One section with its owner; by default a copy of its own, aligned to a cache line.
    virtual Owned section(std::uint64_t offset, std::size_t bytes) const;

    // Throw ErrorKind::io for what cannot be opened, also for what is no regular file.
    static std::unique_ptr<FileBytes> open(const std::string& path);
    static std::unique_ptr<FileBytes> map(const std::string& path);
    static std::unique_ptr<FileBytes> show(std::span<const std::uint8_t> bytes);
};

}  // namespace residua::store
