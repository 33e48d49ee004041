// SPDX-License-Identifier: Apache-2.0
#include "store/file_bytes.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "store/atomic_file.hpp"

namespace residua::store {
namespace {

constexpr std::size_t kReadChunk = std::size_t{1} << 26;

[[noreturn]] void fail(const std::string& path, int error, const std::string& why = {}) {
    throw Error(ErrorKind::io, "cannot load '" + path + "': " + os_message(error) + (why.empty() ? "" : " (" + why + ")"),
                error);
}

// A file descriptor that closes itself.
class Descriptor {
public:
    explicit Descriptor(const std::string& path) {
        check_path(path);
        // Not to wait for the other end where the path is a pipe.
        fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd_ < 0) fail(path, errno);
        struct stat info = {};
        const int error = ::fstat(fd_, &info) != 0 ? errno : S_ISDIR(info.st_mode) ? EISDIR : S_ISREG(info.st_mode) ? 0 : EINVAL;
        if (error != 0) {
            ::close(fd_);
            fail(path, error, error == EINVAL ? "it is not a regular file" : "");
        }
        size_ = static_cast<std::uint64_t>(info.st_size);
    }
    ~Descriptor() { ::close(fd_); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;

    int fd() const { return fd_; }
    std::uint64_t size() const { return size_; }

private:
    int fd_ = -1;
    std::uint64_t size_ = 0;
};

class ReadFile final : public FileBytes {
public:
    explicit ReadFile(const std::string& path) : path_(path), file_(path) {}
    std::uint64_t size() const override { return file_.size(); }
    void read(std::uint64_t offset, void* out, std::size_t bytes) const override {
        auto* p = static_cast<char*>(out);
        while (bytes > 0) {
            const ssize_t n = ::pread(file_.fd(), p, std::min(bytes, kReadChunk), static_cast<off_t>(offset));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail(path_, errno);
            if (n == 0) throw Error(ErrorKind::corrupt_file, path_ + ": it became shorter while it was read");
            p += n;
            offset += static_cast<std::uint64_t>(n);
            bytes -= static_cast<std::size_t>(n);
        }
    }

private:
    std::string path_;
    Descriptor file_;
};

class ShownBytes : public FileBytes {
public:
    explicit ShownBytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
    std::uint64_t size() const override { return bytes_.size(); }
    void read(std::uint64_t offset, void* out, std::size_t bytes) const override {
        if (bytes > 0) std::memcpy(out, bytes_.data() + offset, bytes);
    }

protected:
    std::span<const std::uint8_t> bytes_;
};

class Mapping {
public:
    explicit Mapping(const std::string& path) {
        const Descriptor file(path);
        bytes_ = static_cast<std::size_t>(file.size());
        if (bytes_ == 0) return;  // cannot be mapped; the header check says what is wrong
        void* p = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file.fd(), 0);
        if (p == MAP_FAILED) fail(path, errno);
        data_ = static_cast<const std::uint8_t*>(p);
    }
    ~Mapping() {
        if (data_ != nullptr) ::munmap(const_cast<std::uint8_t*>(data_), bytes_);
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    std::span<const std::uint8_t> bytes() const { return {data_, bytes_}; }

private:
    const std::uint8_t* data_ = nullptr;
    std::size_t bytes_ = 0;
};

class MappedFile final : public ShownBytes {
public:
    explicit MappedFile(std::shared_ptr<const Mapping> mapping)
        : ShownBytes(mapping->bytes()), mapping_(std::move(mapping)) {}
    bool is_mapped() const override { return true; }
    Owned section(std::uint64_t offset, std::size_t bytes) const override {
        return {std::as_bytes(bytes_.subspan(static_cast<std::size_t>(offset), bytes)), mapping_};
    }

private:
    std::shared_ptr<const Mapping> mapping_;
};

}  // namespace

FileBytes::Owned FileBytes::section(std::uint64_t offset, std::size_t bytes) const {
    auto copy = std::make_shared<AlignedVector<std::byte>>(bytes);
    read(offset, copy->data(), bytes);
    const std::span<const std::byte> span(*copy);
    return {span, std::move(copy)};
}

std::unique_ptr<FileBytes> FileBytes::open(const std::string& path) { return std::make_unique<ReadFile>(path); }

std::unique_ptr<FileBytes> FileBytes::map(const std::string& path) {
    return std::make_unique<MappedFile>(std::make_shared<const Mapping>(path));
}

std::unique_ptr<FileBytes> FileBytes::show(std::span<const std::uint8_t> bytes) {
    return std::make_unique<ShownBytes>(bytes);
}

}  // namespace residua::store
