// From the RNN's outputs to choices and reaction times, and back (dtwin_fast/readouts.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/schedule.h"

namespace dtwin::model {

// What a subject's outputs [T, O] say in a trial.
struct Response {
    double choice_prob[kActions];
    double rt_s;
};
Response read_hazard(const Schedule& schedule, int64_t trial, const float* outputs,
                     int64_t n_outputs);
Response read_sigmoid(const Schedule& schedule, int64_t trial, const float* outputs,
                      int64_t n_outputs);

// Adds to d_outputs [T, O] the gradient of what read_hazard() says, given that of a loss. The
// workspace has hazard_back_bytes().
size_t hazard_back_bytes(const Schedule& schedule);
void hazard_back(const Schedule& schedule, int64_t trial, const float* outputs, int64_t n_outputs,
                 const Response& d_response, void* workspace, float* d_outputs);

}  // namespace dtwin::model
