#include "plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>

#include "rollout.h"

namespace dtwin::gpu {
namespace {

struct Kernel {
    Direction direction;
    int cell;
    bool bfloat16;
    int units, lanes, fours, threads, blocks;
    bool pass_through_shared;
    const char* name;
};

constexpr Direction forward = Direction::kForward, backward = Direction::kBackward;
constexpr int rnn = DTWIN_RNN, gru = DTWIN_GRU, lstm = DTWIN_LSTM;
constexpr bool float32 = false, bfloat16 = true;

#define DTWIN_RNN_KERNELS
#define DTWIN_GRU_KERNELS
#define DTWIN_LSTM_KERNELS
#define KERNEL(direction, cell, weights, columns, units, lanes, fours, threads, blocks) \
    {direction,                                                                         \
     cell,                                                                              \
     weights,                                                                           \
     units,                                                                             \
     lanes,                                                                             \
     fours,                                                                             \
     threads,                                                                           \
     blocks,                                                                            \
     kPassThroughShared<weights, fours>,                                                \
     "dtwin_" #direction "_" #cell "_" #weights "_" #columns},
constexpr Kernel kKernels[] = {
#include "kernels.def"
};
#undef KERNEL

constexpr int kInputBytes = 8 << 10;       // of the inputs that a block holds
constexpr int kProjectedBytes = 16 << 10;  // of one sequence's projected states in a block
constexpr int kMostInputSteps = 32;
constexpr int64_t kMostSequences = 65535;  // blocks along a grid's second axis
constexpr int64_t kMostSize = 1 << 30;
constexpr int kReserved = 1 << 10;  // of shared memory, for the system, in each block

int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }

// Shared memory, given out from the start.
class Shared {
  public:
    int32_t take(int64_t bytes) {
        const int64_t at = size_;
        size_ = round_up(size_ + bytes, 16);
        return static_cast<int32_t>(std::min<int64_t>(at, std::numeric_limits<int32_t>::max()));
    }
    int64_t size() const { return size_; }

  private:
    int64_t size_ = 0;
};

// One way of running: a kernel over so many blocks.
struct Candidate {
    const Kernel* kernel;
    int cluster, units, threads, fours, sequences;
    int64_t shared;
};

int columns(const Sizes& s) {
    return static_cast<int>(s.direction == forward ? s.H : n_gates(s.cell) * s.H);
}

int rows(const Kernel& kernel) {
    return kernel.units * (kernel.direction == forward ? n_gates(kernel.cell) : 1);
}

// Fills in the loop and its memory; the size of the memory.
int64_t lay_out(const Sizes& s, const Candidate& c, Plan* plan) {
    const Kernel& kernel = *c.kernel;
    ForwardParams f{};
    BackwardParams b{};
    Loop loop{};
    loop.cluster = c.cluster;
    loop.units = c.units;
    loop.fours = c.fours;
    loop.vector = c.fours * 4 * kernel.lanes;
    loop.sequences = c.sequences;
    loop.B = static_cast<int32_t>(s.B);
    loop.T = static_cast<int32_t>(s.T);
    loop.I = static_cast<int32_t>(s.I);
    loop.H = static_cast<int32_t>(s.H);

    Shared shared;
    const int64_t gates = n_gates(s.cell);
    loop.at_mailboxes = shared.take(2 * sizeof(uint64_t));
    loop.at_vectors = shared.take(int64_t{8} * c.sequences * loop.vector);
    if (s.direction == forward) {
        f.K = static_cast<int32_t>(s.K);
        f.input_fours = static_cast<int32_t>(divide_up(s.I, 4));
        const int64_t step = int64_t{16} * c.sequences * f.input_fours;
        f.input_steps = static_cast<int32_t>(
            std::clamp<int64_t>(kInputBytes / step, 1, std::min<int64_t>(s.T, kMostInputSteps)));
        if (s.cell == lstm) f.at_c = shared.take(int64_t{4} * c.sequences * c.units);
        f.at_w_ih = shared.take(16 * gates * f.input_fours * c.units);
        f.at_biases = shared.take(8 * gates * c.units);
        f.at_inputs = shared.take(step * f.input_steps);
        f.at_projected = shared.take(4 * c.sequences * s.K * c.units);
        f.at_peaks = shared.take(4 * c.threads / 32);
    } else {
        b.at_d_states = shared.take(int64_t{4} * c.sequences * (s.cell == lstm ? 2 : 1) * c.units);
    }
    const int64_t beyond = rows(kernel) * (c.fours - kernel.fours);
    const int64_t words = std::max<int64_t>(beyond, kernel.pass_through_shared ? kernel.fours : 0);
    loop.at_weights = shared.take(words * c.threads * (s.bfloat16 ? 8 : 16));
    f.loop = b.loop = loop;
    if (plan) {
        plan->forward = f;
        plan->backward = b;
    }
    return shared.size();
}

// Cycles for a step of one sequence on all of its blocks' multiprocessors. Rough: multiplications,
// reads of shared memory, what the blocks of a cluster send each other, and a latency that other
// blocks of the multiprocessor can hide.
double cost(const Device& device, const Candidate& c) {
    const Kernel& kernel = *c.kernel;
    const double warps = c.threads / 32.0, n_rows = rows(kernel);
    const double widening = kernel.bfloat16 ? 1.75 : 1.0;
    const double multiply = warps / 4 * n_rows * 4 * c.fours * widening;
    const double words = n_rows * (c.fours - kernel.fours) * (kernel.bfloat16 ? 2 : 4);
    const double read = warps * (2 * c.fours + words);
    const double told = kernel.direction == forward ? 1 : n_gates(kernel.cell);
    const double send = c.cluster > 1 ? c.units * c.cluster * told / 2 : 0;
    const double busy = std::max(multiply, read) + 15 * warps + send;
    const double latency = c.cluster > 1 ? 1000 : 300;
    const int64_t fit = device.shared_of_multiprocessor / (c.shared + kReserved);
    const double resident = static_cast<double>(std::clamp<int64_t>(fit, 1, kernel.blocks));
    return c.cluster * std::max(busy, (busy + latency) / resident);
}

// Whether blocks of this size find so many multiprocessors that can form a cluster.
bool forms_clusters(Device& device, const Candidate& c) {
    if (c.cluster == 1) return true;
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = {static_cast<unsigned>(c.cluster), 1, 1};
    CUlaunchConfig config{};
    config.gridDimX = c.cluster;
    config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = c.threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = static_cast<unsigned>(c.shared);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int count = 0;
    const CUresult result =
        driver().cuOccupancyMaxActiveClusters(&count, device.function(c.kernel->name), &config);
    return result == CUDA_SUCCESS && count > 0;
}

}  // namespace

int n_gates(int cell) { return cell == lstm ? 4 : cell == gru ? 3 : 1; }

int n_kept(int cell) { return cell == lstm ? 5 : cell == gru ? 4 : 1; }

GateRuns gate_runs(int cell) {
    if (cell == gru) return {{{0, 0, 2}, {2, 3, 1}}, 2};
    return {{{0, 0, n_gates(cell)}, {}}, 1};
}

Plan make_plan(Device& device, const Sizes& s) {
    for (const auto& [letter, size, most] :
         {std::tuple("B", s.B, kMostSequences), std::tuple("T", s.T, kMostSize),
          std::tuple("I", s.I, kMostSize), std::tuple("B * T", s.B * s.T, kMostSize)}) {
        if (size > most) {
            throw Unsupported("the GPU runs at most " + std::string(letter) + " = " +
                              std::to_string(most) + " in a call, not " + std::to_string(size) +
                              ". Give fewer at a time");
        }
    }
    Candidate best{};
    double best_cost = std::numeric_limits<double>::infinity();
    for (const Kernel& kernel : kKernels) {
        if (kernel.direction != s.direction || kernel.cell != s.cell ||
            kernel.bfloat16 != s.bfloat16) {
            continue;
        }
        for (int cluster : {1, 2, 4, 8, 16}) {
            if (cluster > 1 && device.major < 9) break;
            const int64_t units = divide_up(s.H, cluster);
            if ((cluster - 1) * units >= s.H) continue;  // a block without a unit
            const int64_t threads = round_up(divide_up(units, kernel.units) * kernel.lanes, 32);
            if (threads > kernel.threads) continue;
            const int64_t fours =
                std::max<int64_t>(kernel.fours, divide_up(columns(s), 4 * kernel.lanes));
            Candidate candidate{&kernel,
                                cluster,
                                static_cast<int>(units),
                                static_cast<int>(threads),
                                static_cast<int>(fours),
                                1,
                                0};
            // Neither a projection nor the number of steps may choose the kernel.
            Sizes plain = s;
            plain.K = 0;
            plain.T = kMostInputSteps;
            candidate.shared = lay_out(plain, candidate, nullptr);
            if (candidate.shared > device.shared_of_block) continue;
            const double its_cost = cost(device, candidate);
            if (its_cost < best_cost && forms_clusters(device, candidate)) {
                best = candidate;
                best_cost = its_cost;
            }
        }
    }
    if (!best.kernel) {
        throw Unsupported("the weights of H = " + std::to_string(s.H) +
                          " with I = " + std::to_string(s.I) +
                          " do not fit into the registers and shared memory of " +
                          (device.major < 9 ? "a multiprocessor" : "a cluster of multiprocessors") +
                          " of this GPU (compute capability " + device.capability +
                          "). Use precision=\"bfloat16\", which halves them, or backend=\"cpu\"");
    }

    Sizes laid = s;
    if (4 * s.K * best.units > kProjectedBytes ||
        lay_out(s, best, nullptr) > device.shared_of_block) {
        laid.K = 0;
    }
    // More sequences in a block share its weights; fewer keep more multiprocessors at work.
    const int64_t at_once =
        std::max(1, device.n_multiprocessors * best.kernel->blocks / best.cluster);
    const int64_t wanted = std::clamp<int64_t>(divide_up(s.S * s.B, at_once), 1, s.B);
    const int64_t most =
        std::max<int64_t>(lay_out(laid, best, nullptr), device.shared_of_block / 2);
    while (best.sequences < wanted) {
        Candidate more = best;
        ++more.sequences;
        if (lay_out(laid, more, nullptr) > most) break;
        best = more;
    }
    Plan plan{};
    plan.shared = static_cast<int>(lay_out(laid, best, &plan));
    plan.kernel = best.kernel->name;
    plan.threads = best.threads;
    plan.sequence_blocks = static_cast<int>(divide_up(s.B, best.sequences));
    return plan;
}

}  // namespace dtwin::gpu
