// The engine behind dtwin.h: what the argument checks and the time loop say to each other.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "dtwin.h"

namespace dtwin {

constexpr int64_t kAffineColumns = 64;  // of a layer's product that are made together
constexpr int64_t kFewSequences = 6;    // fewer leave a tile of the recurrence's product empty

// n / m of what is positive, rounded up.
constexpr int64_t divide_up(int64_t n, int64_t m) { return (n + m - 1) / m; }

// Lets the blocks of each subject go on one after the other, on whatever threads they are. A thread
// must start on a block before any starts on a later one of that subject.
class Turns {
  public:
    // `next`: a zero for each subject.
    explicit Turns(int64_t* next) : next_(next) {}

    void wait(int64_t subject, int64_t block) {
        std::unique_lock<std::mutex> lock(mutex_);
        passed_on_.wait(lock, [&] { return next_[subject] == block; });
    }

    void pass_on(int64_t subject, int64_t block) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            next_[subject] = block + 1;
        }
        passed_on_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable passed_on_;
    int64_t* const next_;
};

// One build of the time loop for one instruction set.
struct Isa {
    const char* name;

    // Bytes of workspace one thread needs; false when that overflows. `params` is checked.
    bool (*rollout_bytes)(const dtwin_rollout_params& params, size_t* bytes);

    // Roll out the sequences [first, last) of a subject, writing all their results but
    // `diverged`; false where one left the finite numbers. `workspace` is 64-byte aligned.
    bool (*rollout)(const dtwin_rollout_params& params, int64_t subject, int64_t first,
                    int64_t last, void* workspace);

    // The same for the gradients: a subject's sequences fall into `blocks`, some of which are run.
    bool (*vjp_bytes)(const dtwin_rollout_vjp_params& params, size_t* bytes, int64_t* blocks);
    void (*vjp)(const dtwin_rollout_vjp_params& params, int64_t subject, int64_t first_block,
                int64_t last_block, Turns& turns, void* workspace);

    // Of a layer, or of its way back: rows [first, last) of kAffineColumns columns, or as many as
    // there are.
    size_t (*affine_bytes)(const dtwin_affine_params& params);
    void (*affine)(const dtwin_affine_params& params, int64_t first, int64_t last, int64_t column,
                   void* workspace);
    void (*affine_back)(const dtwin_affine_params& params, int64_t first, int64_t last,
                        int64_t column, void* workspace);
};

// DTWIN_OK, or why these arguments cannot be run.
int check_rollout(const dtwin_rollout_params* params);
int check_rollout_vjp(const dtwin_rollout_vjp_params* params);

// dtwin_rollout() and dtwin_rollout_vjp() without the argument checks.
int run_rollout(const dtwin_rollout_params& params);
int run_rollout_vjp(const dtwin_rollout_vjp_params& params);

}  // namespace dtwin
