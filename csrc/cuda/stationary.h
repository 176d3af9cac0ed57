// A block's weights, which stay with its threads for all steps, and their product with a vector.
//
// The threads form groups of kLanes neighbouring lanes. A group takes kUnits hidden units, each
// with kGates rows of weights; of these rows a lane takes every kLanes-th four of columns. After
// the product the lanes add up their parts, and each of a group's first kUnits lanes is left with
// the rows of one unit.
#pragma once

#include <device.h>

#include "params.h"

namespace dtwin::gpu {

// Four weights as they are kept.
struct Float32 {
    static constexpr bool kBFloat16 = false;
    struct alignas(16) Words {
        uint32_t at[4];
    };

    DTWIN_DEVICE static Words keep(const Four& w) {
        Words words;
        DTWIN_UNROLL
        for (int i = 0; i < 4; ++i) words.at[i] = bits_of(w.at[i]);
        return words;
    }

    DTWIN_DEVICE static Four widen(const Words& words) {
        Four w;
        DTWIN_UNROLL
        for (int i = 0; i < 4; ++i) w.at[i] = float_of(words.at[i]);
        return w;
    }

    // w as it is after keep() and widen().
    DTWIN_DEVICE static float rounded(float w) { return w; }
};

struct BFloat16 {
    static constexpr bool kBFloat16 = true;
    struct alignas(8) Words {
        uint32_t at[2];
    };

    DTWIN_DEVICE static Words keep(const Four& w) {
        Words words;
        DTWIN_UNROLL
        for (int i = 0; i < 2; ++i) words.at[i] = narrow(w.at[2 * i], w.at[2 * i + 1]);
        return words;
    }

    DTWIN_DEVICE static Four widen(const Words& words) {
        Four w;
        DTWIN_UNROLL
        for (int i = 0; i < 2; ++i) {
            w.at[2 * i] = widen_low(words.at[i]);
            w.at[2 * i + 1] = widen_high(words.at[i]);
        }
        return w;
    }

    DTWIN_DEVICE static float rounded(float w) { return widen_low(narrow(w, w)); }
};

// A thread's first kFours fours of columns are in registers, those that follow in shared memory.
template <class Format, int kUnits, int kGates, int kLanes, int kFours>
class Stationary {
    static constexpr int kRows = kUnits * kGates;
    using Words = typename Format::Words;

  public:
    // weight(u, gate, column, H) of the group's unit u, zero beyond the matrix. `shared` has room
    // for kRows * (loop.fours - kFours) words of each thread, and for kFours where they pass
    // through it.
    template <class Weight>
    DTWIN_DEVICE void take(char* shared, const Loop& loop, Weight weight) {
        shared_ = reinterpret_cast<Words*>(shared);
        shared_fours_ = loop.fours - kFours;
        DTWIN_UNROLL
        for (int r = 0; r < kRows; ++r) {
            // Or the compiler keeps the addresses of all columns for the rows to come.
            const int H = afresh(loop.H);
            if constexpr (kPassThroughShared<Format::kBFloat16, kFours>) {
                DTWIN_UNROLL_2
                for (int c = 0; c < kFours; ++c) {
                    shared_[c * thread_count() + thread_index()] = four(r, c, H, weight);
                }
                DTWIN_UNROLL
                for (int c = 0; c < kFours; ++c) {
                    kept_[r * kFours + c] = shared_[c * thread_count() + thread_index()];
                }
            } else {
                DTWIN_UNROLL
                for (int c = 0; c < kFours; ++c) kept_[r * kFours + c] = four(r, c, H, weight);
            }
        }
        DTWIN_ROLLED
        for (int c = 0; c < shared_fours_; ++c) {
            DTWIN_UNROLL
            for (int r = 0; r < kRows; ++r) {
                shared_[at(r, c)] = four(r, kFours + c, loop.H, weight);
            }
        }
    }

    // The sums over all columns of the rows of the unit that is left to this lane, by gate; lanes
    // beyond the first kUnits get what those have. All threads of the block take part.
    DTWIN_DEVICE void multiply(const Four* vector, float* sums) const {
        float part[kRows] = {};
        DTWIN_UNROLL
        for (int c = 0; c < kFours; ++c) {
            const Four v = vector[lane() + kLanes * c];
            DTWIN_UNROLL
            for (int r = 0; r < kRows; ++r) add_product(kept_[r * kFours + c], v, part[r]);
        }
        DTWIN_ROLLED
        for (int c = 0; c < shared_fours_; ++c) {
            const Four v = vector[lane() + kLanes * (kFours + c)];
            DTWIN_UNROLL
            for (int r = 0; r < kRows; ++r) {
                const Words words = shared_[at(r, c)];  // in one read
                add_product(words, v, part[r]);
            }
        }
        add_up(part);
        DTWIN_UNROLL
        for (int g = 0; g < kGates; ++g) sums[g] = part[g];
    }

  private:
    static DTWIN_DEVICE int lane() { return thread_index() % kLanes; }

    template <class Weight>
    static DTWIN_DEVICE Words four(int r, int c, int H, Weight weight) {
        Four w;
        DTWIN_UNROLL
        for (int i = 0; i < 4; ++i) {
            w.at[i] = weight(r / kGates, r % kGates, 4 * (lane() + kLanes * c) + i, H);
        }
        return Format::keep(w);
    }

    static DTWIN_DEVICE void add_product(const Words& words, const Four& v, float& sum) {
        const Four w = Format::widen(words);
        DTWIN_UNROLL
        for (int i = 0; i < 4; ++i) sum = fma(w.at[i], v.at[i], sum);
    }

    // Neighbouring threads' words lie side by side.
    DTWIN_DEVICE int at(int r, int c) const {
        return (r * shared_fours_ + c) * thread_count() + thread_index();
    }

    // At each stage half of the lanes keep the even units and half the odd ones; where one unit is
    // left, all keep it.
    DTWIN_DEVICE static void add_up(float* part) {
        DTWIN_UNROLL
        for (int mask = 1; mask < kLanes; mask *= 2) {
            if (mask < kUnits) {
                const bool odd = lane() & mask;
                DTWIN_UNROLL
                for (int u = 0; u < kUnits / (2 * mask); ++u) {
                    DTWIN_UNROLL
                    for (int g = 0; g < kGates; ++g) {
                        const float even = part[2 * u * kGates + g];
                        const float uneven = part[(2 * u + 1) * kGates + g];
                        part[u * kGates + g] =
                            (odd ? uneven : even) + shuffle_xor(odd ? even : uneven, mask);
                    }
                }
            } else {
                DTWIN_UNROLL
                for (int g = 0; g < kGates; ++g) part[g] += shuffle_xor(part[g], mask);
            }
        }
    }

    Words kept_[kFours > 0 ? kRows * kFours : 1];
    Words* shared_;
    int shared_fours_;
};

// Where this thread is among a subject's blocks.
template <int kUnits, int kLanes>
struct Place {
    int subject, first, count;  // of the launch; the block's sequences
    int rank;                   // of the block in its cluster
    int group_unit;             // the first hidden unit of its group, within the block
    int local, unit;            // its own unit, within the block and of all H
    bool owns;                  // whether it, and no other thread, has that unit
    bool idle_warps;            // whether the block has warps none of whose threads owns a unit

    DTWIN_DEVICE explicit Place(const Loop& loop)
        : subject(block_x() / loop.cluster),
          first(block_y() * loop.sequences),
          count(loop.B - first < loop.sequences ? loop.B - first : loop.sequences),
          rank(loop.cluster > 1 ? cluster_rank() : 0) {
        const int lane = thread_index() % kLanes;
        group_unit = thread_index() / kLanes * kUnits;
        local = group_unit + lane % kUnits;
        unit = rank * loop.units + local;
        owns = lane < kUnits && local < loop.units && unit < loop.H;
        const int left = loop.H - rank * loop.units, units = left < loop.units ? left : loop.units;
        idle_warps = (units + kUnits - 1) / kUnits * kLanes + 31 < thread_count();
    }

    // Index of the block's sequence b among all S * B.
    DTWIN_DEVICE int64_t sequence(int b, int B) const {
        return static_cast<int64_t>(subject) * B + first + b;
    }
};

// The vectors of a block's sequences, before and after a step: what every thread of a subject's
// blocks multiplies, and what they tell each other.
class Vectors {
  public:
    // Cleared. `filled`: the floats of each vector that one exchange brings.
    template <class Place>
    DTWIN_DEVICE Vectors(const Loop& loop, const Place& place, int filled)
        : loop_(loop),
          idle_warps_(place.idle_warps),
          bytes_(place.count * filled * 4),
          data_(reinterpret_cast<float*>(shared_memory() + loop.at_vectors)),
          mailboxes_(reinterpret_cast<Mailbox*>(shared_memory() + loop.at_mailboxes)) {
        for (int i = thread_index(); i < 2 * loop.sequences * loop.vector; i += thread_count()) {
            data_[i] = 0.0f;
        }
        if (loop.cluster > 1 && thread_index() == 0) {
            for (int side = 0; side < 2; ++side) {
                open_mailbox(mailboxes_ + side);
                expect(mailboxes_ + side, bytes_);
            }
        }
    }

    // All blocks may tell from here on: their memory is as they want it.
    DTWIN_DEVICE void begin() const {
        if (loop_.cluster > 1) {
            cluster_barrier();
        } else {
            block_barrier();
        }
    }

    // The vector of sequence b after exchange n, which counts from 1; 0: before the first.
    DTWIN_DEVICE float* at(int n, int b) const {
        return data_ + ((n & 1) * loop_.sequences + b) * loop_.vector;
    }
    DTWIN_DEVICE const Four* fours(int n, int b) const {
        return reinterpret_cast<const Four*>(at(n, b));
    }

    // An element of the vector after exchange n, to all blocks. Each is told once by one thread,
    // after the product of its warp with the vector before: then nobody overwrites what another
    // still reads.
    DTWIN_DEVICE void tell(int n, int b, int element, float v) const {
        float* to = at(n, b) + element;
        if (loop_.cluster > 1) {
            DTWIN_ROLLED
            for (int rank = 0; rank < loop_.cluster; ++rank) {
                send(to, v, mailboxes_ + (n & 1), rank);
            }
        } else {
            *to = v;
        }
    }

    // By all threads: exchange n is complete.
    DTWIN_DEVICE void finish(int n) const {
        if (loop_.cluster > 1) {
            receive(mailboxes_ + (n & 1), (n - 1) / 2);
            // Before this thread tells its part of the next exchange, so before the one that this
            // mailbox is for.
            if (thread_index() == 0) expect(mailboxes_ + (n & 1), bytes_);
            // Nobody waits for a warp that tells nothing, and a mailbox does not tell delivery n
            // from n + 2.
            if (idle_warps_) block_barrier();
        } else {
            block_barrier();
        }
    }

  private:
    const Loop& loop_;
    const bool idle_warps_;
    const int bytes_;
    float* const data_;
    Mailbox* const mailboxes_;
};

}  // namespace dtwin::gpu
