#include "launch.h"

#include <algorithm>
#include <string>

#include "plan.h"
#include "queue.h"
#include "rollout.h"

namespace dtwin::gpu {
namespace {

constexpr size_t kBlasBytes = 32 << 20;             // what cuBLAS asks for on a Hopper GPU
constexpr size_t kSubjectsBytes = size_t{1} << 30;  // of subjects that are run at once, about
constexpr int64_t kMostSubjects = 1 << 15;          // that are run at once: blocks of a grid
constexpr int kThreads = 256;                       // of the kernels of readout.cu

const float* at(const void* array, int64_t offset) {
    return array ? static_cast<const float*>(array) + offset : nullptr;
}
float* at(void* array, int64_t offset) {
    return array ? static_cast<float*>(array) + offset : nullptr;
}

// Arrays given out of the workspace; counts without one.
class Arena {
  public:
    explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

    void* take_bytes(size_t bytes) {
        void* taken = memory_ ? memory_ + used_ : nullptr;
        used_ += (bytes + 255) / 256 * 256;
        return taken;
    }
    float* take(int64_t count) { return static_cast<float*>(take_bytes(count * sizeof(float))); }
    size_t used() const { return used_; }

  private:
    char* const memory_;
    size_t used_ = 0;
};

// Weights of some subjects, each `stride` elements from the last.
struct Weights {
    const float* data;
    int64_t stride;
};

void check_dtype(const dtwin_rollout_params& p) {
    if (p.dtype != DTWIN_FLOAT32) {
        throw Unsupported(
            "there is no float64 on the GPU: its kernels are for float32, with full or bfloat16 "
            "weights. Use precision=\"float32\", or backend=\"cpu\"");
    }
}

// What both directions share.
class Call {
  protected:
    Call(Device& device, const dtwin_rollout_params& params, CUstream stream)
        : device_(device),
          queue_(device, stream),
          p(params),
          S(p.n_subjects),
          B(p.n_sequences),
          T(p.n_steps),
          I(p.n_inputs),
          H(p.n_hidden),
          O(p.n_outputs),
          K(p.n_projected),
          rows(K ? K : T),
          bfloat16_(p.weights == DTWIN_WEIGHTS_BFLOAT16) {
        check_dtype(p);
    }

    Sizes sizes(Direction direction, int64_t projected) const {
        return {direction, p.cell, bfloat16_, S, B, T, I, H, projected};
    }

    // For as many subjects as kSubjectsBytes hold, of which one takes about `bytes`.
    void set_chunk(int64_t bytes) {
        chunk_ = std::clamp<int64_t>(kSubjectsBytes / std::max<int64_t>(bytes, 1), 1,
                                     std::min(S, kMostSubjects));
    }

    // Fills in what the loop reads for the subjects from `first` on.
    void point(ForwardParams* f, int64_t first) const {
        const int64_t state = first * B * H;
        f->loop.w_hh = at(p.w_hh, first * p.w_hh_stride);
        f->loop.w_hh_stride = p.w_hh_stride;
        f->w_ih = at(p.w_ih, first * p.w_ih_stride);
        f->b_ih = at(p.b_ih, first * p.b_ih_stride);
        f->b_hh = at(p.b_hh, first * p.b_hh_stride);
        f->w_ih_stride = p.w_ih_stride;
        f->b_ih_stride = p.b_ih_stride;
        f->b_hh_stride = p.b_hh_stride;
        f->inputs = at(p.inputs, first * p.inputs_subject_stride);
        f->inputs_subject_stride = p.inputs_subject_stride;
        f->inputs_sequence_stride = p.inputs_sequence_stride;
        f->h0 = at(p.h0, state);
        f->c0 = at(p.c0, state);
        f->projection = at(p.projection, 0);
        f->projection_stride = p.projection_sequence_stride;
    }

    template <class Params>
    void run_loop(const Plan& plan, const Params& params, int64_t count) {
        const int cluster = params.loop.cluster;
        queue_.launch(plan.kernel,
                      {count * cluster, plan.sequence_blocks, plan.threads, plan.shared, cluster},
                      params);
    }

    // The weights as the precision keeps them: in place, or rounded into `to` [S, size].
    Weights kept(const void* weights, int64_t stride, int64_t first, int64_t count, int64_t size,
                 float* to) {
        const float* from = at(weights, first * stride);
        if (!bfloat16_) return {from, stride};
        RoundParams r{};
        r.weights = from;
        r.stride = stride;
        r.rounded = to;
        r.size = size;
        r.blocks_y =
            static_cast<int32_t>(std::clamp<int64_t>(divide_up(size, 4 * kThreads), 1, 64));
        queue_.launch("dtwin_round", {count, r.blocks_y, kThreads, 0, 1}, r);
        return {to, size};
    }

    // The projections' rows added up, [B, K].
    void sum_rows(float* sums) {
        RowSumsParams r{};
        r.projection = at(p.projection, 0);
        r.projection_stride = p.projection_sequence_stride;
        r.K = static_cast<int32_t>(K);
        r.T = static_cast<int32_t>(T);
        r.sums = sums;
        queue_.launch("dtwin_row_sums", {K, B, 32, 0, 1}, r);
    }

    // read [S, B, K, H] = projection @ states [S, B, T, H].
    void project(const float* states, float* read, int64_t count) {
        for (int64_t b = 0; b < B; ++b) {
            queue_.multiply(K, H, T, {at(p.projection, b * p.projection_sequence_stride), T, 0},
                            {states + b * T * H, H, B * T * H}, 0, read + b * K * H, H, B * K * H,
                            count);
        }
    }

    Device& device_;
    Queue queue_;
    const dtwin_rollout_params& p;
    const int64_t S, B, T, I, H, O, K;
    const int64_t rows;  // of the outputs
    const bool bfloat16_;
    int64_t chunk_ = 1;  // subjects that are run at once
};

class Forward : private Call {
  public:
    Forward(Device& device, const dtwin_rollout_params& params, CUstream stream)
        : Call(device, params, stream),
          plan_(make_plan(device, sizes(Direction::kForward, params.n_projected))) {
        keeps_states_ = !p.states && plan_.forward.K == 0;
        set_chunk(4 * (keeps_states_ * B * T * H + B * K * H + bfloat16_ * O * (H + 1)));
    }

    size_t take(void* memory) {
        Arena arena(memory);
        blas_ = arena.take_bytes(kBlasBytes);
        states_ = keeps_states_ ? arena.take(chunk_ * B * T * H) : nullptr;
        read_ = K ? arena.take(chunk_ * B * K * H) : nullptr;
        row_sums_ = K ? arena.take(B * K) : nullptr;
        w_out_ = bfloat16_ ? arena.take(chunk_ * O * H) : nullptr;
        b_out_ = bfloat16_ ? arena.take(chunk_ * O) : nullptr;
        peaks_ = arena.take(chunk_ * n_peaks());
        return arena.used();
    }

    void run() {
        queue_.use_blas(blas_, kBlasBytes);
        if (K) sum_rows(row_sums_);
        for (int64_t s = 0; s < S; s += chunk_) run_some(s, std::min(chunk_, S - s));
    }

  private:
    int64_t n_peaks() const { return int64_t{plan_.sequence_blocks} * plan_.forward.loop.cluster; }

    void run_some(int64_t first, int64_t count) {
        ForwardParams f = plan_.forward;
        point(&f, first);
        f.states = p.states ? at(p.states, first * B * T * H) : states_;
        f.projected = f.K ? read_ : nullptr;
        f.h_final = at(p.h_final, first * B * H);
        f.c_final = at(p.c_final, first * B * H);
        f.peaks = peaks_;
        run_loop(plan_, f, count);
        if (K && !f.K) project(f.states, read_, count);

        const Weights w = kept(p.w_out, p.w_out_stride, first, count, O * H, w_out_);
        const Weights b = kept(p.b_out, p.b_out_stride, first, count, O, b_out_);
        float* outputs = at(p.outputs, first * B * rows * O);
        BiasParams bias{};
        bias.b_out = b.data;
        bias.b_out_stride = b.stride;
        bias.row_weights = row_sums_;
        bias.outputs = outputs;
        bias.rows = B * rows;
        bias.O = static_cast<int32_t>(O);
        bias.blocks_y =
            static_cast<int32_t>(std::clamp<int64_t>(divide_up(B * rows * O, 8 * kThreads), 1, 64));
        queue_.launch("dtwin_bias", {count, bias.blocks_y, kThreads, 0, 1}, bias);
        queue_.multiply(B * rows, O, H, {K ? read_ : f.states, H, B * rows * H},
                        transposed({w.data, H, w.stride}), 1, outputs, O, B * rows * O, count);

        DivergedParams d{};
        d.peaks = peaks_;
        d.peaks_per_subject = static_cast<int32_t>(n_peaks());
        d.w_out = w.data;
        d.b_out = b.data;
        d.w_out_stride = w.stride;
        d.b_out_stride = b.stride;
        d.outputs = outputs;
        d.rows = B * rows;
        d.H = static_cast<int32_t>(H);
        d.O = static_cast<int32_t>(O);
        d.projected = K > 0;
        d.diverged = p.diverged + first;
        queue_.launch("dtwin_diverged", {count, 1, kThreads, sizeof(int), 1}, d);
    }

    const Plan plan_;
    bool keeps_states_;
    void* blas_;
    float *states_, *read_, *row_sums_, *w_out_, *b_out_, *peaks_;
};

class Backward : private Call {
  public:
    Backward(Device& device, const dtwin_rollout_vjp_params& params, CUstream stream)
        : Call(device, params.rollout, stream),
          g(params),
          forward_(make_plan(device, sizes(Direction::kForward, 0))),
          backward_(make_plan(device, sizes(Direction::kBackward, 0))),
          slots_(n_kept(p.cell) * H),
          rolls_out_(!g.states || n_kept(p.cell) > 1) {
        set_chunk(4 * (B * T * (slots_ + (g.states ? 1 : 2) * H) + 2 * B * K * H +
                       bfloat16_ * (O + n_gates(p.cell) * I) * H));
    }

    size_t take(void* memory) {
        Arena arena(memory);
        blas_ = arena.take_bytes(kBlasBytes);
        states_ = g.states ? nullptr : arena.take(chunk_ * B * T * H);
        kept_ = arena.take(chunk_ * B * T * slots_);
        d_states_ = arena.take(chunk_ * B * T * H);
        read_ = K ? arena.take(chunk_ * B * K * H) : nullptr;
        d_read_ = K ? arena.take(chunk_ * B * K * H) : nullptr;
        row_sums_ = K ? arena.take(B * K) : nullptr;
        w_out_ = bfloat16_ ? arena.take(chunk_ * O * H) : nullptr;
        w_ih_ = bfloat16_ ? arena.take(chunk_ * n_gates(p.cell) * H * I) : nullptr;
        return arena.used();
    }

    void run() {
        queue_.use_blas(blas_, kBlasBytes);
        if (K) sum_rows(row_sums_);
        for (int64_t s = 0; s < S; s += chunk_) run_some(s, std::min(chunk_, S - s));
    }

  private:
    void run_some(int64_t first, int64_t count) {
        const float* states = g.states ? at(g.states, first * B * T * H) : states_;
        if (rolls_out_) {
            ForwardParams f = forward_.forward;
            point(&f, first);
            f.states = states_;
            f.kept = n_kept(p.cell) > 1 ? kept_ : nullptr;
            run_loop(forward_, f, count);
        }
        take_readout_gradients(states, first, count);

        BackwardParams b = backward_.backward;
        const int64_t state = first * B * H;
        b.loop.w_hh = at(p.w_hh, first * p.w_hh_stride);
        b.loop.w_hh_stride = p.w_hh_stride;
        b.states = states;
        b.d_states = d_states_;
        b.h0 = at(p.h0, state);
        b.c0 = at(p.c0, state);
        b.d_h_final = at(g.d_h_final, state);
        b.d_c_final = at(g.d_c_final, state);
        b.kept = kept_;
        b.d_h0 = at(g.d_h0, state);
        b.d_c0 = at(g.d_c0, state);
        run_loop(backward_, b, count);
        take_input_gradients(first, count);
        take_recurrent_gradients(states, first, count);
    }

    // d_states [S, B, T, H], and the gradients of w_out and b_out.
    void take_readout_gradients(const float* states, int64_t first, int64_t count) {
        const float* d_outputs = at(g.d_outputs, first * B * rows * O);
        const Weights w = kept(p.w_out, p.w_out_stride, first, count, O * H, w_out_);
        const float* given = at(g.d_states, first * B * T * H);
        if (given) queue_.copy(d_states_, given, count * B * T * H);
        const float keep = given ? 1 : 0;
        if (K) {
            project(states, read_, count);
            queue_.multiply(B * K, H, O, {d_outputs, O, B * K * O}, {w.data, H, w.stride}, 0,
                            d_read_, H, B * K * H, count);
            for (int64_t b = 0; b < B; ++b) {
                const Matrix projection{at(p.projection, b * p.projection_sequence_stride), T, 0};
                queue_.multiply(T, H, K, transposed(projection),
                                {d_read_ + b * K * H, H, B * K * H}, keep, d_states_ + b * T * H, H,
                                B * T * H, count);
            }
        } else {
            queue_.multiply(B * T, H, O, {d_outputs, O, B * T * O}, {w.data, H, w.stride}, keep,
                            d_states_, H, B * T * H, count);
        }
        queue_.multiply(O, H, B * rows, transposed({d_outputs, O, B * rows * O}),
                        {K ? read_ : states, H, B * rows * H}, 0, at(g.d_w_out, first * O * H), H,
                        O * H, count);
        sum_columns(d_outputs, B * rows * O, O, row_sums_, B * rows, O, at(g.d_b_out, first * O), O,
                    count);
    }

    void take_input_gradients(int64_t first, int64_t count) {
        const int64_t gated = n_gates(p.cell) * H;
        const Weights w = kept(p.w_ih, p.w_ih_stride, first, count, gated * I, w_ih_);
        queue_.multiply(B * T, I, gated, {kept_, slots_, B * T * slots_}, {w.data, I, w.stride}, 0,
                        at(g.d_inputs, first * B * T * I), I, B * T * I, count);
        for (int64_t b = 0; b < B; ++b) {
            const float* inputs =
                at(p.inputs, first * p.inputs_subject_stride + b * p.inputs_sequence_stride);
            queue_.multiply(gated, I, T,
                            transposed({kept_ + b * T * slots_, slots_, B * T * slots_}),
                            {inputs, I, p.inputs_subject_stride}, b ? 1 : 0,
                            at(g.d_w_ih, first * gated * I), I, gated * I, count);
        }
        sum_columns(kept_, B * T * slots_, slots_, nullptr, B * T, gated,
                    at(g.d_b_ih, first * gated), gated, count);
    }

    // Each step's gradients of the gates with the state before it: h0, then the states but the
    // last.
    void take_recurrent_gradients(const float* states, int64_t first, int64_t count) {
        const int64_t gated = n_gates(p.cell) * H;
        const GateRuns runs = gate_runs(p.cell);
        if (!p.h0 && T == 1) queue_.clear(at(g.d_w_hh, first * gated * H), count * gated * H);
        for (int i = 0; i < runs.count; ++i) {
            const GateRun& run = runs.at[i];
            const int64_t width = run.count * H;
            const float* d_gates = kept_ + run.slot * H;
            float* d_w_hh = at(g.d_w_hh, first * gated * H + run.gate * H * H);
            if (p.h0) {
                queue_.multiply(width, H, B, transposed({d_gates, T * slots_, B * T * slots_}),
                                {at(p.h0, first * B * H), H, B * H}, 0, d_w_hh, H, gated * H,
                                count);
            }
            for (int64_t b = 0; T > 1 && b < B; ++b) {
                const int64_t row = b * T;
                queue_.multiply(width, H, T - 1,
                                transposed({d_gates + (row + 1) * slots_, slots_, B * T * slots_}),
                                {states + row * H, H, B * T * H}, b || p.h0 ? 1 : 0, d_w_hh, H,
                                gated * H, count);
            }
            sum_columns(d_gates, B * T * slots_, slots_, nullptr, B * T, width,
                        at(g.d_b_hh, first * gated + run.gate * H), gated, count);
        }
    }

    void sum_columns(const float* matrix, int64_t subject, int64_t row, const float* row_weights,
                     int64_t n_rows, int64_t columns, float* sums, int64_t stride, int64_t count) {
        ColumnSumsParams c{};
        c.matrix = matrix;
        c.matrix_stride = subject;
        c.row_stride = row;
        c.row_weights = row_weights;
        c.rows = n_rows;
        c.columns = static_cast<int32_t>(columns);
        c.sums = sums;
        c.sums_stride = stride;
        queue_.launch("dtwin_column_sums",
                      {count, divide_up(columns, 32), kThreads, kThreads * sizeof(float), 1}, c);
    }

    const dtwin_rollout_vjp_params& g;
    const Plan forward_, backward_;
    const int64_t slots_;  // floats of a step
    const bool rolls_out_;
    void* blas_;
    float *states_, *kept_, *d_states_, *read_, *d_read_, *row_sums_, *w_out_, *w_ih_;
};

template <class Direction, class Params>
void run(Device& device, const Params& params, CUstream stream, void* workspace, size_t bytes) {
    Direction direction(device, params, stream);
    const size_t needed = direction.take(workspace);
    if (bytes < needed) {
        throw Unsupported("the workspace has " + std::to_string(bytes) + " bytes, and " +
                          std::to_string(needed) + " are needed");
    }
    direction.run();
}

}  // namespace

void look_for_kernels(Device& device, const dtwin_rollout_params& p, bool vjp) {
    check_dtype(p);
    Sizes sizes{Direction::kForward, p.cell,        p.weights == DTWIN_WEIGHTS_BFLOAT16,
                p.n_subjects,        p.n_sequences, p.n_steps,
                p.n_inputs,          p.n_hidden,    0};
    make_plan(device, sizes);
    sizes.direction = Direction::kBackward;
    if (vjp) make_plan(device, sizes);
}

size_t workspace_bytes(Device& device, const dtwin_rollout_params& params) {
    return Forward(device, params, nullptr).take(nullptr);
}

size_t workspace_bytes(Device& device, const dtwin_rollout_vjp_params& params) {
    return Backward(device, params, nullptr).take(nullptr);
}

void roll_out(Device& device, const dtwin_rollout_params& params, CUstream stream, void* workspace,
              size_t bytes) {
    run<Forward>(device, params, stream, workspace, bytes);
}

void roll_out(Device& device, const dtwin_rollout_vjp_params& params, CUstream stream,
              void* workspace, size_t bytes) {
    run<Backward>(device, params, stream, workspace, bytes);
}

}  // namespace dtwin::gpu
