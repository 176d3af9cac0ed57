#include "model/readouts.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace dtwin::model {
namespace {

double step_rt_s(const Schedule& schedule, int64_t trial, int64_t step) {
    return (static_cast<double>(step) + 0.5) * schedule.dt_s -
           schedule.onset_s()[static_cast<size_t>(trial)];
}

// Competing risks of the actions, step by step.
class Hazards {
  public:
    // The next step's outputs.
    void take(const float* actions) {
        reached_ *= stay_;
        double top = 0;
        for (int64_t c = 0; c < kActions; ++c) top = std::max<double>(top, actions[c]);
        const double none = std::exp(-top);
        double total = 0, any = 0;
        for (int64_t c = 0; c < kActions; ++c) {
            hazard[c] = std::exp(actions[c] - top);
            total += hazard[c];
        }
        total += none;
        for (int64_t c = 0; c < kActions; ++c) {
            hazard[c] /= total;
            press[c] = hazard[c] * reached_;
            any += press[c];
        }
        any_press = any;
        stay_ = none / total;
    }

    double hazard[kActions];
    double press[kActions];  // the probability that an action is pressed at this step
    double any_press = 0;

  private:
    double reached_ = 1, stay_ = 1;
};

const Window& window_of(const Schedule& schedule, int64_t trial) {
    return schedule.windows[static_cast<size_t>(trial)];
}

}  // namespace

Response read_hazard(const Schedule& schedule, int64_t trial, const float* outputs,
                     int64_t n_outputs) {
    const Window& window = window_of(schedule, trial);
    Response response{};
    Hazards at;
    double responded = 0, sum_s = 0;
    for (int64_t step = window.start; step < window.stop; ++step) {
        at.take(outputs + step * n_outputs);
        for (int64_t c = 0; c < kActions; ++c) response.choice_prob[c] += at.press[c];
        responded += at.any_press;
        sum_s += at.any_press * step_rt_s(schedule, trial, step);
    }
    response.rt_s = sum_s / responded;  // NaN where no response can happen
    return response;
}

Response read_sigmoid(const Schedule& schedule, int64_t trial, const float* outputs,
                      int64_t n_outputs) {
    const Window& window = window_of(schedule, trial);
    double peak[kActions], log_peak[kActions];
    int64_t peak_step[kActions];
    for (int64_t c = 0; c < kActions; ++c) {
        peak[c] = outputs[window.start * n_outputs + c];
        peak_step[c] = window.start;
        for (int64_t step = window.start + 1; step < window.stop; ++step) {
            const double output = outputs[step * n_outputs + c];
            if (output > peak[c] || std::isnan(output)) {
                peak[c] = output;
                peak_step[c] = step;
            }
            if (std::isnan(peak[c])) break;
        }
        // The sigmoid's logarithm, which does not underflow.
        log_peak[c] = std::min(peak[c], 0.0) - std::log1p(std::exp(-std::abs(peak[c])));
    }
    const double top = *std::max_element(log_peak, log_peak + kActions);
    Response response{};
    double total = 0;
    for (int64_t c = 0; c < kActions; ++c) {
        response.choice_prob[c] = std::exp(log_peak[c] - top);
        total += response.choice_prob[c];
    }
    for (double& share : response.choice_prob) share /= total;
    const int64_t choice = std::max_element(peak, peak + kActions) - peak;
    response.rt_s = std::isnan(total) ? total : step_rt_s(schedule, trial, peak_step[choice]);
    return response;
}

size_t hazard_back_bytes(const Schedule& schedule) {
    int64_t longest = 0;
    for (const Window& window : schedule.windows) {
        longest = std::max(longest, window.stop - window.start);
    }
    return static_cast<size_t>(longest) * sizeof(Hazards);
}

void hazard_back(const Schedule& schedule, int64_t trial, const float* outputs, int64_t n_outputs,
                 const Response& d_response, void* workspace, float* d_outputs) {
    const Window& window = window_of(schedule, trial);
    const auto steps = static_cast<Hazards*>(workspace);
    Hazards at;
    double responded = 0, sum_s = 0;
    for (int64_t step = window.start; step < window.stop; ++step) {
        at.take(outputs + step * n_outputs);
        new (steps + (step - window.start)) Hazards(at);
        responded += at.any_press;
        sum_s += at.any_press * step_rt_s(schedule, trial, step);
    }
    const double rt_s = sum_s / responded, slope = d_response.rt_s / responded;
    // An output raises its own hazard and lowers the chance to get any further.
    double still_to_come = 0;
    for (int64_t step = window.stop; step-- > window.start;) {
        const Hazards& here = steps[step - window.start];
        const double late = slope * (step_rt_s(schedule, trial, step) - rt_s);
        double moved[kActions];
        for (int64_t c = 0; c < kActions; ++c) {
            moved[c] = (d_response.choice_prob[c] + late) * here.press[c];
            still_to_come += moved[c];
        }
        for (int64_t c = 0; c < kActions; ++c) {
            d_outputs[step * n_outputs + c] +=
                static_cast<float>(moved[c] - here.hazard[c] * still_to_come);
        }
    }
}

}  // namespace dtwin::model
