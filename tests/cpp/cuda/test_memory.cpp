// SPDX-License-Identifier: Apache-2.0
// Memory of the device: kept blocks, the cap, and the way back from running out.
#include <doctest/doctest.h>

#include <string>

#include "core/error.hpp"
#include "cuda/runtime.hpp"

using namespace residua;
using namespace residua::cuda;

TEST_CASE("released memory serves the next request of about its size") {
    Context context(0);
    const std::size_t before = device_info(0).free_bytes;  // a device hands out more than is asked for
    void* first = context.allocate(100'000, "a test");
    CHECK(context.used() == 100'000);
    context.release(first);
    CHECK(context.used() == 0);
    if (is_emulated()) CHECK(device_info(0).free_bytes == before - 100'000);
    CHECK(context.allocate(90'000, "a test") == first);
    void* other = context.allocate(90'000, "a test");
    CHECK(other != first);
    context.release(first);
    context.release(other);
    CHECK(context.peak() == 190'000);
    void* much = context.allocate(900'000, "a test");
    CHECK(much != first);
    context.release(much);
}

TEST_CASE("kept blocks make room when the cap or the device needs it") {
    const std::size_t before = device_info(0).free_bytes;
    {
        Context context(0, 1'000'000);
        void* a = context.allocate(600'000, "a test");
        CHECK_THROWS_WITH_AS(context.allocate(500'000, "the test"), "the test needs 489 KiB of device memory; of the limit of 977 KiB, 586 KiB are in use", Error);
        context.release(a);
        void* b = context.allocate(900'000, "a test");  // only without the kept block
        context.release(b);
        CHECK(context.peak() == 900'000);
    }
    if (is_emulated()) CHECK(device_info(0).free_bytes == before);
}

TEST_CASE("a device that has no room is used on") {
    const DeviceInfo info = device_info(0);
    const std::size_t before = info.free_bytes, spare = is_emulated() ? 1000 : before / 8;
    Context all(0);
    void* half = all.allocate(before / 4, "a test");
    all.release(half);
    void* most = all.allocate(before - spare, "a test");
    const std::size_t much = is_emulated() ? 5'000'000 : before;
    try {
        all.allocate(much, "too much");
        FAIL("there is no such room");
    } catch (const Error& e) {
        CHECK(e.kind() == ErrorKind::out_of_memory);
        const std::string text = e.what();
        CHECK(text.find("of device memory; " + info.name + " has ") != std::string::npos);
        if (is_emulated()) CHECK(text.find("too much needs 4883 KiB of device memory; emulation has 1 KiB free of 1024 MiB") != std::string::npos);
    }
    all.release(most);
    all.release(all.allocate(5'000'000, "a test"));
}
