// What dtwin_model_predict() and dtwin_model_vjp() share: the tasks of a call and its chunks.
#pragma once

#include <cstdint>
#include <vector>

#include "dtwin.h"
#include "model/model.h"

namespace dtwin::model {

// The tasks of a call, which run side by side as sequences.
struct Run {
    std::vector<const Task*> tasks;
    int64_t n_steps = 0;  // T of the longest; the others are padded at their end
    int64_t n_trials = 0, n_volumes = 0, n_contrasts = 0;  // of all
    int64_t most_contrasts = 0;                            // of one

    int64_t n_sequences() const { return static_cast<int64_t>(tasks.size()); }
};
Run choose_tasks(const dtwin_model& model, int64_t n_tasks, const char* const* names);

void encode(const Run& run, float* inputs);  // [B, T, I] of zeros

// How the people of a call are rolled out: a chunk of them at a time.
class Rollouts {
  public:
    // With `projected`, outputs are [n, B, K, O] of the most contrasts, else [n, B, T, O].
    // `more`: values that a subject needs besides.
    Rollouts(const dtwin_model& model, const dtwin_people& people, const Run& run, bool projected,
             bool keep_states, int64_t more);

    int64_t chunk() const { return chunk_; }
    int64_t rows() const { return rows_; }

    // The rollout of n subjects with these weights, results to be written to the buffers below.
    dtwin_rollout_params params(const float* flat, int64_t n);

    std::vector<float> outputs, states, h_final, c_final;
    std::vector<uint8_t> diverged;

  private:
    const dtwin_model& model_;
    const dtwin_people& people_;
    const Run& run_;
    int64_t rows_, chunk_;
    std::vector<float> inputs_, projection_;
};

// Throws Refusal unless this is DTWIN_OK.
void check(int status);

void predict(const dtwin_model& model, const dtwin_people& people, const dtwin_predictions& wanted);
void find_gradients(const dtwin_model& model, const dtwin_people& people,
                    const dtwin_edge_gradients& gradients);
void set_weights(const dtwin_model& model, const float* weights, int64_t n_subjects,
                 dtwin_rollout_params* params);

// Values of a subject that a call keeps at once -> how many subjects it takes together.
int64_t chunk_size(const dtwin_people& people, int64_t values);

}  // namespace dtwin::model
