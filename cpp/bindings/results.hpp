// SPDX-License-Identifier: Apache-2.0
// What searches of indexes return, as Python sees it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bindings/arrays.hpp"
#include "index/table_index.hpp"

namespace residua::bindings {

// One Python id per slot; slots without a result get -1 or None.
class IdSlots {
public:
    IdSlots(const index::IdList& ids, std::vector<py::ssize_t> shape) : ids_(ids), text_(ids.kind == store::IdKind::string) {
        if (text_) {
            objects_ = py::array(py::dtype("O"), shape);
            py::array flat = objects_.attr("ravel")();
            slots_ = static_cast<PyObject**>(flat.mutable_data());
            for (py::ssize_t i = 0; i < objects_.size(); ++i) Py_XSETREF(slots_[i], py::none().release().ptr());
        } else {
            ints_ = Array<std::int64_t>(shape);
            std::fill_n(ints_.mutable_data(), ints_.size(), -1);
        }
    }
    void set(std::size_t slot, std::size_t i) {
        if (text_) {
            Py_XSETREF(slots_[slot], py::str(ids_.strings[i]).release().ptr());
        } else {
            ints_.mutable_data()[slot] = ids_.ints[i];
        }
    }
    py::object take() {
        if (text_) return std::move(objects_);
        return std::move(ints_);
    }

private:
    const index::IdList& ids_;
    bool text_;
    py::array objects_;
    PyObject** slots_ = nullptr;
    Array<std::int64_t> ints_;
};

py::object to_array(const index::IdList& ids);
py::dict stats_of(const index::SearchResult& r);
// (ids, scores, counts, stats); as many columns as the longest result.
py::tuple to_python(const index::TableIndex& index, const index::SearchResult& r);

}  // namespace residua::bindings
