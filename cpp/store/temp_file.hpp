// SPDX-License-Identifier: Apache-2.0
// A growing file without a name: it vanishes with the process, and is read through a mapping.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace residua::store {

class TempFile {
public:
    TempFile();  // in TMPDIR, or /tmp; throws ErrorKind::io
    ~TempFile();
    TempFile(const TempFile&) = delete;
    TempFile& operator=(const TempFile&) = delete;

    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(map_); }
    std::size_t size() const { return size_; }

    // Overwrites or extends; throws ErrorKind::io (disk full), and size() stays as it was.
    void write(const void* data, std::size_t bytes, std::size_t at);
    // Makes the bytes written so far visible in data(); pointers into the old mapping end here.
    void map();
    void truncate(std::size_t bytes) noexcept;

    // After a fork parent and child share the file, and must not write into each other's rows.
    bool belongs_to_this_process() const;

private:
    int fd_ = -1;
    void* map_ = nullptr;
    std::size_t mapped_ = 0;
    std::size_t size_ = 0;
    pid_t owner_;
};

}  // namespace residua::store
