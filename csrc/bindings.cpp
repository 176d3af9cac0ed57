// The Python side of the engine: check shapes, release the GIL, call, return.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "dtwin.h"
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

void check_shape(const char* name, const py::array& array, std::initializer_list<int64_t> wanted) {
    bool equal = array.ndim() == static_cast<py::ssize_t>(wanted.size());
    std::string text;
    py::ssize_t axis = 0;
    for (int64_t size : wanted) {
        equal = equal && array.shape(axis++) == size;
        text += (text.empty() ? "(" : ", ") + std::to_string(size);
    }
    if (!equal) refuse(name, "wanted shape " + text + ")");
}

// Axes from `first` on must lie densely, row-major.
void check_dense_from(const char* name, const py::array& array, py::ssize_t first) {
    if (array.size() == 0) return;
    py::ssize_t dense = array.itemsize();
    for (py::ssize_t axis = array.ndim(); axis-- > first;) {
        if (array.shape(axis) != 1 && array.strides(axis) != dense) {
            refuse(name, "the last axes are not C-contiguous");
        }
        dense *= array.shape(axis);
    }
}

// Elements from one index of `axis` to the next.
int64_t element_stride(const char* name, const py::array& array, py::ssize_t axis) {
    if (array.shape(axis) <= 1) return 0;  // NumPy leaves such a stride undefined
    if (array.strides(axis) % array.itemsize()) refuse(name, "a stride splits an element");
    return array.strides(axis) / array.itemsize();
}

template <class F>
const F* weight(const char* name, const Array<F>& array, std::initializer_list<int64_t> wanted,
                int64_t* stride) {
    check_shape(name, array, wanted);
    check_dense_from(name, array, 1);
    *stride = element_stride(name, array, 0);
    return array.data();
}

template <class F>
const F* dense(const char* name, const Array<F>& array, std::initializer_list<int64_t> wanted) {
    check_shape(name, array, wanted);
    check_dense_from(name, array, 0);
    return array.data();
}

template <class F>
F* result(const char* name, Array<F>& array, std::initializer_list<int64_t> wanted) {
    dense(name, array, wanted);
    if (!array.writeable()) refuse(name, "read-only");
    return array.mutable_data();
}

// The arrays that a rollout and its gradients read.
template <class F>
struct Problem {
    dtwin_rollout_params p{};
    int64_t S, B, T, I, H, GH, O;
    int64_t rows;  // of the outputs: T, or K under a projection

    Problem(const std::string& cell, const Array<F>& w_ih, const Array<F>& w_hh,
            const Array<F>& b_ih, const Array<F>& b_hh, const Array<F>& w_out,
            const Array<F>& b_out, const Array<F>& inputs, const std::optional<Array<F>>& h0,
            const std::optional<Array<F>>& c0, const std::optional<Array<F>>& projection,
            bool bfloat16_weights, int n_threads) {
        if (w_hh.ndim() != 3) refuse("w_hh", "wanted 3 axes");
        if (w_ih.ndim() != 3) refuse("w_ih", "wanted 3 axes");
        if (w_out.ndim() != 3) refuse("w_out", "wanted 3 axes");
        const bool shared = inputs.ndim() == 3;
        if (!shared && inputs.ndim() != 4) refuse("inputs", "wanted 3 or 4 axes");

        p.struct_size = sizeof p;
        p.dtype = sizeof(F) == sizeof(double) ? DTWIN_FLOAT64 : DTWIN_FLOAT32;
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

        S = p.n_subjects = w_hh.shape(0);
        H = p.n_hidden = w_hh.shape(2);
        I = p.n_inputs = w_ih.shape(2);
        O = p.n_outputs = w_out.shape(1);
        B = p.n_sequences = inputs.shape(shared ? 0 : 1);
        T = p.n_steps = inputs.shape(shared ? 1 : 2);
        GH = w_hh.shape(1);
        if (GH != n_gates * H) refuse("w_hh", "wanted shape (S, G*H, H)");

        p.w_ih = weight("w_ih", w_ih, {S, GH, I}, &p.w_ih_stride);
        p.w_hh = weight("w_hh", w_hh, {S, GH, H}, &p.w_hh_stride);
        p.b_ih = weight("b_ih", b_ih, {S, GH}, &p.b_ih_stride);
        p.b_hh = weight("b_hh", b_hh, {S, GH}, &p.b_hh_stride);
        p.w_out = weight("w_out", w_out, {S, O, H}, &p.w_out_stride);
        p.b_out = weight("b_out", b_out, {S, O}, &p.b_out_stride);

        const py::ssize_t sequence_axis = shared ? 0 : 1;
        if (shared) {
            check_shape("inputs", inputs, {B, T, I});
        } else {
            check_shape("inputs", inputs, {S, B, T, I});
            p.inputs_subject_stride = element_stride("inputs", inputs, 0);
        }
        check_dense_from("inputs", inputs, sequence_axis + 1);
        p.inputs_sequence_stride = element_stride("inputs", inputs, sequence_axis);
        p.inputs = inputs.data();

        if (h0) p.h0 = dense("h0", *h0, {S, B, H});
        if (c0) p.c0 = dense("c0", *c0, {S, B, H});
        rows = T;
        if (projection) {
            const bool one = projection->ndim() == 2;
            if (!one && projection->ndim() != 3) refuse("projection", "wanted 2 or 3 axes");
            rows = p.n_projected = projection->shape(one ? 0 : 1);
            if (one) {
                check_shape("projection", *projection, {rows, T});
            } else {
                check_shape("projection", *projection, {B, rows, T});
                p.projection_sequence_stride = element_stride("projection", *projection, 0);
            }
            check_dense_from("projection", *projection, one ? 0 : 1);
            p.projection = projection->data();
        }
    }
};

// Call the engine without the GIL.
template <class Params>
void run(int (*function)(const Params*), const Params& params) {
    int status = 0;
    {
        py::gil_scoped_release release;
        status = function(&params);
    }
    if (status == DTWIN_ERROR_MEMORY) throw std::bad_alloc();
    if (status == DTWIN_ERROR_ISA) throw std::runtime_error(dtwin_strerror(status));
    if (status) throw py::value_error(dtwin_strerror(status));
}

template <class F>
void rollout(const std::string& cell, const Array<F>& w_ih, const Array<F>& w_hh,
             const Array<F>& b_ih, const Array<F>& b_hh, const Array<F>& w_out,
             const Array<F>& b_out, const Array<F>& inputs, const std::optional<Array<F>>& h0,
             const std::optional<Array<F>>& c0, const std::optional<Array<F>>& projection,
             Array<F>& outputs, std::optional<Array<F>>& states, Array<F>& h_final,
             std::optional<Array<F>>& c_final, Array<bool>& diverged, bool bfloat16_weights,
             int n_threads) {
    Problem<F> problem(cell, w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection,
                       bfloat16_weights, n_threads);
    auto& [p, S, B, T, I, H, GH, O, rows] = problem;
    p.outputs = result("outputs", outputs, {S, B, rows, O});
    if (states) p.states = result("states", *states, {S, B, T, H});
    p.h_final = result("h_final", h_final, {S, B, H});
    if (c_final) p.c_final = result("c_final", *c_final, {S, B, H});
    p.diverged = reinterpret_cast<uint8_t*>(result("diverged", diverged, {S}));
    run(dtwin_rollout, p);
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
                 bool bfloat16_weights, int n_threads) {
    Problem<F> problem(cell, w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection,
                       bfloat16_weights, n_threads);
    auto& [p, S, B, T, I, H, GH, O, rows] = problem;
    dtwin_rollout_vjp_params g{};
    g.struct_size = sizeof g;
    g.rollout = p;
    if (states) g.states = dense("states", *states, {S, B, T, H});
    g.d_outputs = dense("d_outputs", d_outputs, {S, B, rows, O});
    if (d_states) g.d_states = dense("d_states", *d_states, {S, B, T, H});
    if (d_h_final) g.d_h_final = dense("d_h_final", *d_h_final, {S, B, H});
    if (d_c_final) g.d_c_final = dense("d_c_final", *d_c_final, {S, B, H});
    g.d_w_ih = result("d_w_ih", d_w_ih, {S, GH, I});
    g.d_w_hh = result("d_w_hh", d_w_hh, {S, GH, H});
    g.d_b_ih = result("d_b_ih", d_b_ih, {S, GH});
    g.d_b_hh = result("d_b_hh", d_b_hh, {S, GH});
    g.d_w_out = result("d_w_out", d_w_out, {S, O, H});
    g.d_b_out = result("d_b_out", d_b_out, {S, O});
    g.d_inputs = result("d_inputs", d_inputs, {S, B, T, I});
    g.d_h0 = result("d_h0", d_h0, {S, B, H});
    if (d_c0) g.d_c0 = result("d_c0", *d_c0, {S, B, H});
    run(dtwin_rollout_vjp, g);
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
    info["hardware_threads"] = std::thread::hardware_concurrency();
    return info;
}

template <class F>
void define_rollouts(py::module_& module) {
    module.def(
        "rollout", &rollout<F>, py::kw_only(), py::arg("cell"), py::arg("w_ih").noconvert(),
        py::arg("w_hh").noconvert(), py::arg("b_ih").noconvert(), py::arg("b_hh").noconvert(),
        py::arg("w_out").noconvert(), py::arg("b_out").noconvert(), py::arg("inputs").noconvert(),
        py::arg("h0").noconvert(), py::arg("c0").noconvert(), py::arg("projection").noconvert(),
        py::arg("outputs").noconvert(), py::arg("states").noconvert(),
        py::arg("h_final").noconvert(), py::arg("c_final").noconvert(),
        py::arg("diverged").noconvert(), py::arg("bfloat16_weights"), py::arg("n_threads"));
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
        py::arg("bfloat16_weights"), py::arg("n_threads"));
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    module.doc() = "The compiled engine; dtwin_fast.dispatch is its public face.";
    define_rollouts<float>(module);
    define_rollouts<double>(module);
    module.def("build_info", &build_info);
    py::list cells;
    for (const auto& known : kCells) cells.append(known.name);
    module.attr("CELLS") = py::tuple(cells);
}
