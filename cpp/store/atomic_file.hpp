// SPDX-License-Identifier: Apache-2.0
// Replaces a file as one step: everything goes to a temporary file beside it, which takes its name
// once it is safely on disk. Until then the old file is untouched, whatever happens.
#pragma once

#include <cstddef>
#include <string>

namespace residua::store {

class AtomicFile {
public:
    // Throws ErrorKind::io when `path` cannot be replaced: no such folder, a directory, read-only.
    explicit AtomicFile(const std::string& path);
    ~AtomicFile();  // without commit() removes the temporary file
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(const void* data, std::size_t bytes);
    void commit();

private:
    [[noreturn]] void fail(int error, const std::string& why = {}) const;

    std::string path_;       // as given, for messages
    std::string target_;     // symbolic links resolved
    std::string temporary_;
    int fd_ = -1;
};

// Refuses what the operating system would misread: an empty path, a null byte.
void check_path(const std::string& path);

// Message of the operating system for an errno.
std::string os_message(int error);

// Writes all bytes at the file offset `at`; returns 0 or an errno.
int write_at(int fd, const void* data, std::size_t bytes, std::size_t at) noexcept;

}  // namespace residua::store
