// Kernels that use every primitive, and some that break a rule (tests/test_cuda_emulator.py).
#include <device.h>

using namespace dtwin::gpu;

namespace {

constexpr int kLanes = 32;

struct Product {
    const float *matrix, *vector;  // (groups, rows, columns), (groups, columns)
    float* result;                 // (groups, rows)
    int rows, columns;
};

struct Arrays {
    const float* in;
    float* out;
    int n, choice;
};

DTWIN_DEVICE float sum_of_lanes(float v) {
    DTWIN_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
    return v;
}

}  // namespace

// A product of each group (block_y): the vector in shared memory, a warp for each row.
DTWIN_KERNEL(selftest_product, Product, 256, 1) {
    float* vector = reinterpret_cast<float*>(shared_memory());
    const int n_warps = thread_count() / kLanes;
    for (int i = thread_index(); i < p.columns; i += thread_count())
        vector[i] = p.vector[block_y() * p.columns + i];
    block_barrier();
    for (int row = block_x() * n_warps + thread_index() / kLanes; row < p.rows; row += n_warps) {
        const float* weights = p.matrix + (block_y() * p.rows + row) * p.columns;
        float sum = 0;
        for (int i = thread_index() % kLanes; i < p.columns; i += kLanes)
            sum = dtwin::gpu::fma(weights[i], vector[i], sum);
        sum = sum_of_lanes(sum);
        if (thread_index() % kLanes == 0) p.result[block_y() * p.rows + row] = sum;
    }
}

// Every thread of a cluster of `choice` blocks tells all blocks its number, and goes on with that
// of the thread behind it: n times, in two halves of the shared memory by turns.
DTWIN_KERNEL(selftest_exchange, Arrays, 1024, 1) {
    const int all = p.choice * thread_count();
    const int mine = cluster_rank() * thread_count() + thread_index();
    float* numbers = reinterpret_cast<float*>(shared_memory());
    Mailbox* mailboxes = reinterpret_cast<Mailbox*>(numbers + 2 * all);
    if (thread_index() == 0) {
        for (int side = 0; side < 2; ++side) {
            open_mailbox(mailboxes + side);
            expect(mailboxes + side, 4 * all);
        }
    }
    cluster_barrier();
    float v = p.in[block_x() * thread_count() + thread_index()];
    DTWIN_ROLLED
    for (int round = 0; round < p.n; ++round) {
        const int side = round & 1;
        for (int rank = 0; rank < p.choice; ++rank)
            send(numbers + side * all + mine, v, mailboxes + side, rank);
        receive(mailboxes + side, round / 2);
        if (thread_index() == 0) expect(mailboxes + side, 4 * all);
        v = numbers[side * all + (mine + 1) % all];
    }
    p.out[block_x() * thread_count() + thread_index()] = v;
}

// Two blocks tell each other their first thread's number, and wait for it where `choice` is 1.
DTWIN_KERNEL(selftest_hasty, Arrays, 32, 1) {
    float* number = reinterpret_cast<float*>(shared_memory());
    Mailbox* mailbox = reinterpret_cast<Mailbox*>(shared_memory() + 8);
    if (thread_index() == 0) {
        open_mailbox(mailbox);
        expect(mailbox, 4);
    }
    cluster_barrier();
    if (thread_index() == 0) send(number, p.in[block_x()], mailbox, 1 - cluster_rank());
    if (p.choice == 1) receive(mailbox, 0);
    p.out[block_x() * thread_count() + thread_index()] = *number;
    receive(mailbox, 0);
}

// Functions of one number, and the bits of shared memory that nobody wrote.
DTWIN_KERNEL(selftest_functions, Arrays, 32, 1) {
    const int i = thread_index();
    const float v = p.in[i];
    const uint32_t pair = bits_of(v);
    const Four first = {{quick_exp2(v), quick_divide(1, v), float_of(bits_of(v) ^ 0x80000000u),
                         reinterpret_cast<const float*>(shared_memory())[i]}};
    for (int k = 0; k < 4; ++k) p.out[6 * i + k] = first.at[k];
    p.out[6 * i + 4] = widen_low(pair);
    p.out[6 * i + 5] = widen_high(pair);
}

// Each thread takes its neighbour's number, with a barrier before it where `choice` is 1.
DTWIN_KERNEL(selftest_neighbour, Arrays, 256, 1) {
    float* shared = reinterpret_cast<float*>(shared_memory());
    const int i = thread_index(), n = thread_count();
    shared[i] = 0;
    block_barrier();
    shared[i] = p.in[i];
    if (p.choice == 1) block_barrier();
    p.out[i] = shared[(i + n / 2) % n];
}

// Breaks the rule that `choice` names.
DTWIN_KERNEL(selftest_broken, Arrays, 256, 1) {
    float* shared = reinterpret_cast<float*>(shared_memory());
    Mailbox* mailbox = reinterpret_cast<Mailbox*>(shared_memory() + 128);
    const int i = thread_index();
    switch (p.choice) {
        case 0:  // writes behind the shared memory, n floats
            if (i == 0) shared[p.n] = 1;
            break;
        case 1:  // writes before it
            if (i == 0) shared[-1] = 1;
            break;
        case 2:  // one thread ends, the others wait
            if (i == 0) return;
            block_barrier();
            break;
        case 3:  // two kinds of barrier
            if (i < kLanes) {
                cluster_barrier();
            } else {
                block_barrier();
            }
            break;
        case 4:  // half a warp in a shuffle
            if (i % kLanes < kLanes / 2) p.out[i] = shuffle_xor(1, 1);
            break;
        case 5:  // one warp's lanes ask for different partners
            p.out[i] = shuffle_xor(1, 1 + i % 2);
            break;
        case 6:  // expects one delivery twice
            if (i == 0) {
                open_mailbox(mailbox);
                expect(mailbox, 4);
                expect(mailbox, 4);
            }
            break;
        case 7:  // a mailbox that is not open
            receive(mailbox, 0);
            break;
        case 8:  // comes two deliveries late
            if (i == 0) {
                open_mailbox(mailbox);
                expect(mailbox, 0);
                expect(mailbox, 0);
                receive(mailbox, 0);
            }
            break;
        case 9:  // writes behind global memory
            if (i == 0) p.out[p.n] = 1;
            break;
        case 10:  // before it
            if (i == 0) p.out[-1] = 1;
            break;
        case 11:  // a block that the cluster does not have
            send(shared, 1, mailbox, p.n);
            break;
        case 12:  // a place that is not shared
            send(p.out, 1, mailbox, 0);
            break;
        case 13:  // tells a block that has not begun
            if (i == 0) send(shared, 1, mailbox, 1 - cluster_rank());
            break;
        case 14:  // tells a block that does not wait
            if (i == 0) open_mailbox(mailbox);
            cluster_barrier();
            if (i == 0) send(shared, 1, mailbox, 1 - cluster_rank());
            break;
        case 15:  // waits for a delivery that nobody sends
            if (i == 0) open_mailbox(mailbox);
            cluster_barrier();
            receive(mailbox, 0);
            break;
        case 16:  // more than a mailbox counts
            if (i == 0) {
                open_mailbox(mailbox);
                expect(mailbox, 1 << 20);
            }
            break;
        default:
            break;
    }
}
