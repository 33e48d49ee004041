// SPDX-License-Identifier: Apache-2.0
#include "store/temp_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "core/error.hpp"
#include "store/atomic_file.hpp"

namespace residua::store {
namespace {

[[noreturn]] void fail(int error, const std::string& what) {
    throw Error(ErrorKind::io, what + ": " + os_message(error), error);
}

}  // namespace

TempFile::TempFile() : owner_(::getpid()) {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") + "/residua-XXXXXX";
    fd_ = ::mkstemp(path.data());
    if (fd_ < 0) fail(errno, "cannot create a temporary file for vectors='disk' at '" + path + "' (set TMPDIR)");
    ::unlink(path.c_str());
    (void)::fcntl(fd_, F_SETFD, FD_CLOEXEC);
}

TempFile::~TempFile() {
    if (map_ != nullptr) ::munmap(map_, mapped_);
    if (fd_ >= 0) ::close(fd_);
}

void TempFile::write(const void* data, std::size_t bytes, std::size_t at) {
    if (const int error = write_at(fd_, data, bytes, at)) {
        truncate(size_);
        fail(error, "cannot write the temporary file of vectors='disk'");
    }
    size_ = std::max(size_, at + bytes);
}

void TempFile::map() {
    if (size_ <= mapped_) return;
    // A mapping may reach past the end of the file as long as nothing is read there, so room to grow
    // costs addresses only.
    const std::size_t length = std::max(size_, 2 * mapped_);
    void* p = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd_, 0);
    if (p == MAP_FAILED) fail(errno, "cannot map the temporary file of vectors='disk'");
    if (map_ != nullptr) ::munmap(map_, mapped_);
    map_ = p;
    mapped_ = length;
}

void TempFile::truncate(std::size_t bytes) noexcept {
    // Where the system refuses, the surplus lies unused behind size_.
    if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) errno = 0;
    size_ = std::min(size_, bytes);
}

bool TempFile::belongs_to_this_process() const { return owner_ == ::getpid(); }

}  // namespace residua::store
