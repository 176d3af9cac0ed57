// What happens when in one run of a task, in steps of the RNN (dtwin_fast/tasks/schedule.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/json.h"

namespace dtwin::model {

constexpr int64_t kInputs = 9;  // eight sensory codes and the task flag
constexpr int64_t kCodes = kInputs - 1;
constexpr int64_t kActions = 3;

// Codes that are shown at some times: N stimuli, or the cues.
struct Shown {
    std::vector<double> onset_s, duration_s;
    std::vector<float> codes;  // [N, kCodes]
};

struct Window {
    int64_t start, stop;  // steps
};

struct Schedule {
    double run_s = 0, dt_s = 0, tr_s = 0;
    float flag = 0;  // of the task, on the last input
    Shown stimuli, cues;
    std::vector<Window> windows;  // of each trial's response

    const std::vector<double>& onset_s() const { return stimuli.onset_s; }
    int64_t n_trials() const { return static_cast<int64_t>(windows.size()); }
    int64_t n_steps() const;
    int64_t n_volumes() const;
    int64_t volume_step(int64_t volume) const;

    void encode(float* inputs) const;  // adds to [T, kInputs] of zeros
};

// The schedule that config.json holds of a task, `values`. Throws Refusal.
Schedule read_schedule(Json::Item values, const std::string& task, double dt_s, double tr_s,
                       const std::string& file);

bool is_task(std::string_view name);

}  // namespace dtwin::model
