// SPDX-License-Identifier: Apache-2.0
#include "store/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "core/error.hpp"

namespace residua::store {
namespace {

// Large enough to keep the disk busy, small enough for systems that cap one write at 2 GiB.
constexpr std::size_t kWriteChunk = std::size_t{1} << 26;

int write_some(int fd, const void* data, std::size_t bytes) noexcept {
    const auto* p = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t n = ::write(fd, p, std::min(bytes, kWriteChunk));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        p += n;
        bytes -= static_cast<std::size_t>(n);
    }
    return 0;
}

std::string folder_of(const std::string& path) {
    const auto folder = std::filesystem::path(path).parent_path().string();
    return folder.empty() ? "." : folder;
}

// Only this process and thread can have made the same name; O_EXCL settles what is left over.
std::string temporary_name(const std::string& folder) {
    static std::atomic<unsigned> counter{0};
    return folder + "/.residua-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1)) + ".tmp";
}

}  // namespace

std::string os_message(int error) { return std::generic_category().message(error); }

void check_path(const std::string& path) {
    if (path.empty()) throw Error(ErrorKind::io, "the path is empty", ENOENT);
    if (path.find('\0') != std::string::npos) throw Error(ErrorKind::value, "the path contains a null byte");
}

int write_at(int fd, const void* data, std::size_t bytes, std::size_t at) noexcept {
    const auto* p = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t n = ::pwrite(fd, p, std::min(bytes, kWriteChunk), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        p += n;
        at += static_cast<std::size_t>(n);
        bytes -= static_cast<std::size_t>(n);
    }
    return 0;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(path) {
    check_path(path);
    if (path.back() == '/') fail(EISDIR);
    std::error_code ignored;
    if (std::filesystem::is_symlink(path, ignored)) {
        // Replace what the link points to, as writing through it would.
        const auto resolved = std::filesystem::weakly_canonical(path, ignored);
        if (!ignored) target_ = resolved.string();
    }
    struct stat old = {};
    const bool exists = ::stat(target_.c_str(), &old) == 0;
    if (!exists && errno != ENOENT) fail(errno);
    if (exists && S_ISDIR(old.st_mode)) fail(EISDIR);
    if (exists && !S_ISREG(old.st_mode)) fail(EINVAL, "it exists and is not a regular file");
    if (exists && ::access(target_.c_str(), W_OK) != 0) fail(errno);
    const std::string folder = folder_of(target_);
    struct stat info = {};
    if (::stat(folder.c_str(), &info) != 0) fail(errno, "the folder '" + folder + "' does not exist; save() creates none");
    do {
        temporary_ = temporary_name(folder);
        fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EEXIST);
    if (fd_ < 0) {
        const int error = errno;
        temporary_.clear();
        fail(error);
    }
    // A refusal leaves the default permissions, which is no reason not to save.
    if (exists && ::fchmod(fd_, old.st_mode & 07777) != 0) errno = 0;
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
    if (const int error = write_some(fd_, data, bytes)) fail(error);
}

void AtomicFile::commit() {
    if (::fsync(fd_) != 0) fail(errno);
    // Some file systems report a failed write only here.
    const int closed = ::close(fd_);
    fd_ = -1;
    if (closed != 0 && errno != EINTR) fail(errno);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
    temporary_.clear();
    // The new file is in place. Making the rename itself durable is best effort: some file systems
    // and permissions do not allow a folder to be synchronised.
    const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        (void)::fsync(folder);
        ::close(folder);
    }
}

void AtomicFile::fail(int error, const std::string& why) const {
    throw Error(ErrorKind::io, "cannot save '" + path_ + "': " + os_message(error) + (why.empty() ? "" : " (" + why + ")"),
                error);
}

}  // namespace residua::store
