// The Python side of the engine: check shapes, release the GIL, call, return.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <map>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dlpack.h"
#include "dtwin.h"
#include "dtwin_cuda.h"
#include "simd/isa.h"

namespace py = pybind11;

namespace {

// Any strides, never converted; the same name is used in _core.pyi.
template <class F>
using Array = py::array_t<F, 0>;

constexpr struct {
    const char* name;
    int32_t cell;
    int64_t n_gates;
} kCells[] = {{"rnn", DTWIN_RNN, 1}, {"gru", DTWIN_GRU, 3}, {"lstm", DTWIN_LSTM, 4}};

[[noreturn]] void refuse(const char* name, const std::string& what) {
    throw py::value_error(std::string(name) + ": " + what);
}

// An array in host or device memory.
struct View {
    const char* name;
    void* data;
    std::vector<int64_t> shape, strides;  // in elements
    bool writable;

    int64_t rank() const { return static_cast<int64_t>(shape.size()); }
    int64_t size() const {
        int64_t n = 1;
        for (int64_t length : shape) n *= length;
        return n;
    }
};
using OptionalView = std::optional<View>;

template <class F>
View view(const char* name, const Array<F>& array) {
    View v{name, const_cast<F*>(array.data()), {}, {}, array.writeable()};
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
        v.shape.push_back(array.shape(axis));
        // NumPy leaves the stride of an axis of one element undefined.
        const bool walked = array.shape(axis) > 1;
        if (walked && array.strides(axis) % array.itemsize())
            refuse(name, "a stride splits an element");
        v.strides.push_back(walked ? array.strides(axis) / array.itemsize() : 0);
    }
    return v;
}

template <class F>
OptionalView view(const char* name, const std::optional<Array<F>>& array) {
    if (!array) return std::nullopt;
    return view(name, *array);
}

void check_shape(const View& v, std::initializer_list<int64_t> wanted) {
    if (std::equal(v.shape.begin(), v.shape.end(), wanted.begin(), wanted.end())) return;
    std::string text;
    for (int64_t size : wanted) text += (text.empty() ? "(" : ", ") + std::to_string(size);
    refuse(v.name, "wanted shape " + text + ")");
}

// Axes from `first` on must lie densely, row-major.
void check_dense_from(const View& v, int64_t first) {
    if (v.size() == 0) return;
    int64_t dense = 1;
    for (int64_t axis = v.rank(); axis-- > first;) {
        if (v.shape[axis] != 1 && v.strides[axis] != dense) {
            refuse(v.name, "the last axes are not C-contiguous");
        }
        dense *= v.shape[axis];
    }
}

// Elements from one index of `axis` to the next.
int64_t stride(const View& v, int64_t axis) { return v.shape[axis] > 1 ? v.strides[axis] : 0; }

const void* weight(const View& v, std::initializer_list<int64_t> wanted, int64_t* subject_stride) {
    check_shape(v, wanted);
    check_dense_from(v, 1);
    *subject_stride = stride(v, 0);
    return v.data;
}

const void* dense(const View& v, std::initializer_list<int64_t> wanted) {
    check_shape(v, wanted);
    check_dense_from(v, 0);
    return v.data;
}

const void* dense(const OptionalView& v, std::initializer_list<int64_t> wanted) {
    return v ? dense(*v, wanted) : nullptr;
}

void* result(const View& v, std::initializer_list<int64_t> wanted) {
    dense(v, wanted);
    if (!v.writable) refuse(v.name, "read-only");
    return v.data;
}

void* result(const OptionalView& v, std::initializer_list<int64_t> wanted) {
    return v ? result(*v, wanted) : nullptr;
}

// A call's arrays by their names in Python; those that are None are left out.
class Views {
  public:
    void add(View v) { views_.emplace(v.name, std::move(v)); }
    void add(OptionalView v) {
        if (v) add(std::move(*v));
    }

    const View& at(const char* name) const {
        const auto found = views_.find(name);
        if (found == views_.end()) refuse(name, "missing");
        return found->second;
    }
    OptionalView optional(const char* name) const {
        const auto found = views_.find(name);
        if (found == views_.end()) return std::nullopt;
        return found->second;
    }

  private:
    std::map<std::string, View> views_;
};

// The arrays that a rollout and its gradients read.
struct Problem {
    dtwin_rollout_params p{};
    int64_t S, B, T, I, H, GH, O;
    int64_t rows;  // of the outputs: T, or K under a projection

    Problem(const std::string& cell, const Views& views, int32_t dtype, bool bfloat16_weights,
            int n_threads) {
        const View &w_hh = views.at("w_hh"), &w_ih = views.at("w_ih"), &w_out = views.at("w_out");
        for (const View* matrix : {&w_hh, &w_ih, &w_out}) {
            if (matrix->rank() != 3) refuse(matrix->name, "wanted 3 axes");
        }
        const View& inputs = views.at("inputs");
        const bool shared = inputs.rank() == 3;
        if (!shared && inputs.rank() != 4) refuse("inputs", "wanted 3 or 4 axes");

        p.struct_size = sizeof p;
        p.dtype = dtype;
        p.weights = bfloat16_weights ? DTWIN_WEIGHTS_BFLOAT16 : DTWIN_WEIGHTS_FULL;
        p.n_threads = n_threads;
        int64_t n_gates = 0;
        for (const auto& known : kCells) {
            if (cell == known.name) {
                p.cell = known.cell;
                n_gates = known.n_gates;
            }
        }
        if (!n_gates) refuse("cell", "there is no cell '" + cell + "'");

        S = p.n_subjects = w_hh.shape[0];
        H = p.n_hidden = w_hh.shape[2];
        I = p.n_inputs = w_ih.shape[2];
        O = p.n_outputs = w_out.shape[1];
        B = p.n_sequences = inputs.shape[shared ? 0 : 1];
        T = p.n_steps = inputs.shape[shared ? 1 : 2];
        GH = w_hh.shape[1];
        if (GH != n_gates * H) refuse("w_hh", "wanted shape (S, G*H, H)");

        p.w_ih = weight(w_ih, {S, GH, I}, &p.w_ih_stride);
        p.w_hh = weight(w_hh, {S, GH, H}, &p.w_hh_stride);
        p.b_ih = weight(views.at("b_ih"), {S, GH}, &p.b_ih_stride);
        p.b_hh = weight(views.at("b_hh"), {S, GH}, &p.b_hh_stride);
        p.w_out = weight(w_out, {S, O, H}, &p.w_out_stride);
        p.b_out = weight(views.at("b_out"), {S, O}, &p.b_out_stride);

        const int64_t sequence_axis = shared ? 0 : 1;
        if (shared) {
            check_shape(inputs, {B, T, I});
        } else {
            check_shape(inputs, {S, B, T, I});
            p.inputs_subject_stride = stride(inputs, 0);
        }
        check_dense_from(inputs, sequence_axis + 1);
        p.inputs_sequence_stride = stride(inputs, sequence_axis);
        p.inputs = inputs.data;

        p.h0 = dense(views.optional("h0"), {S, B, H});
        p.c0 = dense(views.optional("c0"), {S, B, H});
        rows = T;
        if (const OptionalView projection = views.optional("projection")) {
            const bool one = projection->rank() == 2;
            if (!one && projection->rank() != 3) refuse("projection", "wanted 2 or 3 axes");
            rows = p.n_projected = projection->shape[one ? 0 : 1];
            if (one) {
                check_shape(*projection, {rows, T});
            } else {
                check_shape(*projection, {B, rows, T});
                p.projection_sequence_stride = stride(*projection, 0);
            }
            check_dense_from(*projection, one ? 0 : 1);
            p.projection = projection->data;
        }
    }
};

dtwin_rollout_params rollout_params(const std::string& cell, const Views& views, int32_t dtype,
                                    bool bfloat16_weights, int n_threads) {
    Problem problem(cell, views, dtype, bfloat16_weights, n_threads);
    auto& [p, S, B, T, I, H, GH, O, rows] = problem;
    p.outputs = result(views.at("outputs"), {S, B, rows, O});
    p.states = result(views.optional("states"), {S, B, T, H});
    p.h_final = result(views.at("h_final"), {S, B, H});
    p.c_final = result(views.optional("c_final"), {S, B, H});
    p.diverged = static_cast<uint8_t*>(result(views.at("diverged"), {S}));
    return p;
}

dtwin_rollout_vjp_params vjp_params(const std::string& cell, const Views& views, int32_t dtype,
                                    bool bfloat16_weights, int n_threads) {
    Problem problem(cell, views, dtype, bfloat16_weights, n_threads);
    auto& [p, S, B, T, I, H, GH, O, rows] = problem;
    dtwin_rollout_vjp_params g{};
    g.struct_size = sizeof g;
    g.rollout = p;
    g.states = dense(views.optional("states"), {S, B, T, H});
    g.d_outputs = dense(views.at("d_outputs"), {S, B, rows, O});
    g.d_states = dense(views.optional("d_states"), {S, B, T, H});
    g.d_h_final = dense(views.optional("d_h_final"), {S, B, H});
    g.d_c_final = dense(views.optional("d_c_final"), {S, B, H});
    g.d_w_ih = result(views.at("d_w_ih"), {S, GH, I});
    g.d_w_hh = result(views.at("d_w_hh"), {S, GH, H});
    g.d_b_ih = result(views.at("d_b_ih"), {S, GH});
    g.d_b_hh = result(views.at("d_b_hh"), {S, GH});
    g.d_w_out = result(views.at("d_w_out"), {S, O, H});
    g.d_b_out = result(views.at("d_b_out"), {S, O});
    g.d_inputs = result(views.at("d_inputs"), {S, B, T, I});
    g.d_h0 = result(views.at("d_h0"), {S, B, H});
    g.d_c0 = result(views.optional("d_c0"), {S, B, H});
    return g;
}

template <class F>
void add_read(Views& views, const Array<F>& w_ih, const Array<F>& w_hh, const Array<F>& b_ih,
              const Array<F>& b_hh, const Array<F>& w_out, const Array<F>& b_out,
              const Array<F>& inputs, const std::optional<Array<F>>& h0,
              const std::optional<Array<F>>& c0, const std::optional<Array<F>>& projection) {
    views.add(view("w_ih", w_ih));
    views.add(view("w_hh", w_hh));
    views.add(view("b_ih", b_ih));
    views.add(view("b_hh", b_hh));
    views.add(view("w_out", w_out));
    views.add(view("b_out", b_out));
    views.add(view("inputs", inputs));
    views.add(view("h0", h0));
    views.add(view("c0", c0));
    views.add(view("projection", projection));
}

// Call the engine without the GIL.
template <class Function, class... Arguments>
void run(Function function, Arguments... arguments) {
    int status = 0;
    {
        py::gil_scoped_release release;
        status = function(arguments...);
    }
    switch (status) {
        case DTWIN_OK:
            return;
        case DTWIN_ERROR_MEMORY:
            throw std::bad_alloc();
        case DTWIN_ERROR_ISA:
            throw std::runtime_error(dtwin_strerror(status));
        case DTWIN_ERROR_CUDA:
            throw std::runtime_error(dtwin_cuda_message());
        case DTWIN_ERROR_UNSUPPORTED:
            PyErr_SetString(PyExc_NotImplementedError, dtwin_cuda_message());
            throw py::error_already_set();
        default:
            throw py::value_error(dtwin_strerror(status));
    }
}

template <class F>
constexpr int32_t kDtype = sizeof(F) == sizeof(double) ? DTWIN_FLOAT64 : DTWIN_FLOAT32;

// Runs on the CPU, or where device is not negative on that GPU with arrays in host memory.
template <class F>
void rollout(const std::string& cell, const Array<F>& w_ih, const Array<F>& w_hh,
             const Array<F>& b_ih, const Array<F>& b_hh, const Array<F>& w_out,
             const Array<F>& b_out, const Array<F>& inputs, const std::optional<Array<F>>& h0,
             const std::optional<Array<F>>& c0, const std::optional<Array<F>>& projection,
             Array<F>& outputs, std::optional<Array<F>>& states, Array<F>& h_final,
             std::optional<Array<F>>& c_final, Array<bool>& diverged, bool bfloat16_weights,
             int n_threads, int device) {
    Views views;
    add_read(views, w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection);
    views.add(view("outputs", outputs));
    views.add(view("states", states));
    views.add(view("h_final", h_final));
    views.add(view("c_final", c_final));
    views.add(view("diverged", diverged));
    const auto p = rollout_params(cell, views, kDtype<F>, bfloat16_weights, n_threads);
    if (device < 0) {
        run(dtwin_rollout, &p);
    } else {
        run(dtwin_cuda_rollout_host, &p, device);
    }
}

template <class F>
void rollout_vjp(const std::string& cell, const Array<F>& w_ih, const Array<F>& w_hh,
                 const Array<F>& b_ih, const Array<F>& b_hh, const Array<F>& w_out,
                 const Array<F>& b_out, const Array<F>& inputs, const std::optional<Array<F>>& h0,
                 const std::optional<Array<F>>& c0, const std::optional<Array<F>>& projection,
                 const std::optional<Array<F>>& states, const Array<F>& d_outputs,
                 const std::optional<Array<F>>& d_states, const std::optional<Array<F>>& d_h_final,
                 const std::optional<Array<F>>& d_c_final, Array<F>& d_w_ih, Array<F>& d_w_hh,
                 Array<F>& d_b_ih, Array<F>& d_b_hh, Array<F>& d_w_out, Array<F>& d_b_out,
                 Array<F>& d_inputs, Array<F>& d_h0, std::optional<Array<F>>& d_c0,
                 bool bfloat16_weights, int n_threads, int device) {
    Views views;
    add_read(views, w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection);
    views.add(view("states", states));
    views.add(view("d_outputs", d_outputs));
    views.add(view("d_states", d_states));
    views.add(view("d_h_final", d_h_final));
    views.add(view("d_c_final", d_c_final));
    views.add(view("d_w_ih", d_w_ih));
    views.add(view("d_w_hh", d_w_hh));
    views.add(view("d_b_ih", d_b_ih));
    views.add(view("d_b_hh", d_b_hh));
    views.add(view("d_w_out", d_w_out));
    views.add(view("d_b_out", d_b_out));
    views.add(view("d_inputs", d_inputs));
    views.add(view("d_h0", d_h0));
    views.add(view("d_c0", d_c0));
    const auto g = vjp_params(cell, views, kDtype<F>, bfloat16_weights, n_threads);
    if (device < 0) {
        run(dtwin_rollout_vjp, &g);
    } else {
        run(dtwin_cuda_rollout_vjp_host, &g, device);
    }
}

// Of a layer (S x n_in -> S x n_out), or without a bias of its way back (S x n_out -> S x n_in).
void affine(const Array<float>& x, const Array<float>& weight,
            const std::optional<Array<float>>& bias, Array<float>& y, int n_threads) {
    const View w = view("weight", weight), input = view("x", x);
    if (w.rank() != 2) refuse("weight", "wanted 2 axes");
    if (input.rank() != 2) refuse("x", "wanted 2 axes");
    dtwin_affine_params p{};
    p.struct_size = sizeof p;
    p.n_threads = n_threads;
    p.n_rows = input.shape[0];
    p.n_out = w.shape[0];
    p.n_in = w.shape[1];
    const int64_t from = bias ? p.n_in : p.n_out, to = bias ? p.n_out : p.n_in;
    p.weight = static_cast<const float*>(dense(w, {p.n_out, p.n_in}));
    p.bias = static_cast<const float*>(dense(view("bias", bias), {p.n_out}));
    p.x = static_cast<const float*>(dense(input, {p.n_rows, from}));
    p.y = static_cast<float*>(result(view("y", y), {p.n_rows, to}));
    run(bias ? dtwin_affine : dtwin_affine_vjp, &p);
}

// DLPack's names for the default stream, and for none: nothing waits.
constexpr intptr_t kDefaultStream = 1, kNoStream = -1;

// Arrays that lie on a GPU, by name: objects with __dlpack__, or None. `workspace` is bytes.
class DeviceViews {
  public:
    // `stream`: as DLPack names the one on which the arrays will be used, which their producers
    // make wait for their own work on others.
    DeviceViews(const py::dict& arrays, int device, intptr_t stream) {
        for (const auto& [key, value] : arrays) {
            if (value.is_none()) continue;
            names_.push_back(py::cast<std::string>(key));
            add(names_.back().c_str(), py::reinterpret_borrow<py::object>(value), device, stream);
        }
    }

    Views views;

  private:
    void add(const char* name, const py::object& array, int device, intptr_t stream) {
        py::capsule capsule = array.attr("__dlpack__")(py::arg("stream") = stream);
        const auto* managed = static_cast<const dtwin::dlpack::ManagedTensor*>(
            PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
        if (!managed) throw py::error_already_set();
        const dtwin::dlpack::Tensor& tensor = managed->tensor;
        if (tensor.device.type != dtwin::dlpack::kCuda || tensor.device.id != device) {
            refuse(name, "not on CUDA device " + std::to_string(device));
        }
        const bool is_bytes = std::strcmp(name, "workspace") == 0;
        const bool is_flags = std::strcmp(name, "diverged") == 0;
        const dtwin::dlpack::Type& type = tensor.type;
        const bool fits = is_bytes   ? type.code == dtwin::dlpack::kUnsigned && type.bits == 8
                          : is_flags ? type.code == dtwin::dlpack::kBool && type.bits == 8
                                     : type.code == dtwin::dlpack::kFloat && type.bits == 32;
        if (!fits || type.lanes != 1)
            refuse(name, is_bytes ? "wanted uint8" : is_flags ? "wanted bool" : "wanted float32");
        View v{name, static_cast<char*>(tensor.data) + tensor.byte_offset, {}, {}, true};
        v.shape.assign(tensor.shape, tensor.shape + tensor.rank);
        int64_t dense = 1;
        v.strides.resize(tensor.rank);
        for (int axis = tensor.rank; axis-- > 0;) {
            v.strides[axis] = tensor.strides ? tensor.strides[axis] : dense;
            dense *= v.shape[axis];
        }
        views.add(std::move(v));
        held_.push_back(std::move(capsule));
    }

    std::deque<std::string> names_;  // views point at them
    std::vector<py::capsule> held_;
};

int32_t cell_number(const std::string& cell) {
    for (const auto& known : kCells) {
        if (cell == known.name) return known.cell;
    }
    refuse("cell", "there is no cell '" + cell + "'");
}

std::optional<std::string> cuda_fits(const std::string& cell, const std::array<int64_t, 5>& sizes,
                                     bool bfloat16_weights, bool vjp, int device) {
    dtwin_rollout_params p{};
    p.struct_size = sizeof p;
    p.cell = cell_number(cell);
    p.dtype = DTWIN_FLOAT32;
    p.weights = bfloat16_weights ? DTWIN_WEIGHTS_BFLOAT16 : DTWIN_WEIGHTS_FULL;
    p.n_subjects = sizes[0];
    p.n_sequences = sizes[1];
    p.n_steps = sizes[2];
    p.n_inputs = sizes[3];
    p.n_hidden = sizes[4];
    int status = 0;
    {
        py::gil_scoped_release release;
        status = dtwin_cuda_fits(&p, device, vjp);
    }
    if (status == DTWIN_ERROR_UNSUPPORTED) return dtwin_cuda_message();
    run([&] { return status; });
    return std::nullopt;
}

size_t cuda_workspace(const std::string& cell, const py::dict& arrays, bool bfloat16_weights,
                      bool vjp, int device) {
    const DeviceViews on_device(arrays, device, kNoStream);
    size_t bytes = 0;
    if (vjp) {
        const auto g = vjp_params(cell, on_device.views, DTWIN_FLOAT32, bfloat16_weights, 0);
        run(dtwin_cuda_workspace_vjp, &g, device, &bytes);
    } else {
        const auto p = rollout_params(cell, on_device.views, DTWIN_FLOAT32, bfloat16_weights, 0);
        run(dtwin_cuda_workspace, &p, device, &bytes);
    }
    return bytes;
}

void cuda_launch(const std::string& cell, const py::dict& arrays, bool bfloat16_weights, bool vjp,
                 int device, intptr_t stream, bool ordered) {
    const intptr_t named = ordered ? kNoStream : stream ? stream : kDefaultStream;
    const DeviceViews on_device(arrays, device, named);
    const View& workspace = on_device.views.at("workspace");
    const size_t bytes = workspace.size();
    void* const on = reinterpret_cast<void*>(stream);
    if (vjp) {
        const auto g = vjp_params(cell, on_device.views, DTWIN_FLOAT32, bfloat16_weights, 0);
        run(dtwin_cuda_rollout_vjp, &g, device, on, workspace.data, bytes);
    } else {
        const auto p = rollout_params(cell, on_device.views, DTWIN_FLOAT32, bfloat16_weights, 0);
        run(dtwin_cuda_rollout, &p, device, on, workspace.data, bytes);
    }
}

py::tuple usable_isas() {
    int count = 0;
    const dtwin::Isa* const* isas = dtwin::usable_isas(&count);
    py::tuple names(count);
    for (int i = 0; i < count; ++i) names[i] = isas[i]->name;
    return names;
}

py::dict build_info() {
    py::dict info;
    info["compiler"] = DTWIN_COMPILER;
    info["flags"] = DTWIN_FLAGS;
    info["isa"] = dtwin_isa();  // None where DTWIN_ISA names one that cannot run
    info["isas"] = usable_isas();
    info["cuda"] = DTWIN_CUDA_VERSION;  // of the toolkit; empty where there are no CUDA kernels
    info["cuda_architectures"] = DTWIN_CUDA_ARCHITECTURES;
    info["hardware_threads"] = std::thread::hardware_concurrency();
    return info;
}

template <class F>
void define_rollouts(py::module_& module) {
    module.def("rollout", &rollout<F>, py::kw_only(), py::arg("cell"), py::arg("w_ih").noconvert(),
               py::arg("w_hh").noconvert(), py::arg("b_ih").noconvert(),
               py::arg("b_hh").noconvert(), py::arg("w_out").noconvert(),
               py::arg("b_out").noconvert(), py::arg("inputs").noconvert(),
               py::arg("h0").noconvert(), py::arg("c0").noconvert(),
               py::arg("projection").noconvert(), py::arg("outputs").noconvert(),
               py::arg("states").noconvert(), py::arg("h_final").noconvert(),
               py::arg("c_final").noconvert(), py::arg("diverged").noconvert(),
               py::arg("bfloat16_weights"), py::arg("n_threads"), py::arg("device") = -1);
    module.def(
        "rollout_vjp", &rollout_vjp<F>, py::kw_only(), py::arg("cell"), py::arg("w_ih").noconvert(),
        py::arg("w_hh").noconvert(), py::arg("b_ih").noconvert(), py::arg("b_hh").noconvert(),
        py::arg("w_out").noconvert(), py::arg("b_out").noconvert(), py::arg("inputs").noconvert(),
        py::arg("h0").noconvert(), py::arg("c0").noconvert(), py::arg("projection").noconvert(),
        py::arg("states").noconvert(), py::arg("d_outputs").noconvert(),
        py::arg("d_states").noconvert(), py::arg("d_h_final").noconvert(),
        py::arg("d_c_final").noconvert(), py::arg("d_w_ih").noconvert(),
        py::arg("d_w_hh").noconvert(), py::arg("d_b_ih").noconvert(), py::arg("d_b_hh").noconvert(),
        py::arg("d_w_out").noconvert(), py::arg("d_b_out").noconvert(),
        py::arg("d_inputs").noconvert(), py::arg("d_h0").noconvert(), py::arg("d_c0").noconvert(),
        py::arg("bfloat16_weights"), py::arg("n_threads"), py::arg("device") = -1);
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    module.doc() = "The compiled engine; dtwin_fast.dispatch is its public face.";
    define_rollouts<float>(module);
    define_rollouts<double>(module);
    module.def("affine", &affine, py::kw_only(), py::arg("x").noconvert(),
               py::arg("weight").noconvert(), py::arg("bias").noconvert(), py::arg("y").noconvert(),
               py::arg("n_threads"));
    module.def("build_info", &build_info);
    module.def("cuda_why_not", &dtwin_cuda_why_not, py::arg("device"),
               py::call_guard<py::gil_scoped_release>());
    module.def("cuda_capability", &dtwin_cuda_capability, py::arg("device"),
               py::call_guard<py::gil_scoped_release>());
    module.def("cuda_fits", &cuda_fits, py::kw_only(), py::arg("cell"), py::arg("sizes"),
               py::arg("bfloat16_weights"), py::arg("vjp"), py::arg("device"));
    module.def("cuda_workspace", &cuda_workspace, py::kw_only(), py::arg("cell"), py::arg("arrays"),
               py::arg("bfloat16_weights"), py::arg("vjp"), py::arg("device"));
    module.def("cuda_launch", &cuda_launch, py::kw_only(), py::arg("cell"), py::arg("arrays"),
               py::arg("bfloat16_weights"), py::arg("vjp"), py::arg("device"), py::arg("stream"),
               py::arg("ordered"));
    py::list cells;
    for (const auto& known : kCells) cells.append(known.name);
    module.attr("CELLS") = py::tuple(cells);
}
