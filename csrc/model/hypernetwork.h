// From edges to the RNN's weights and back (dtwin_fast/hypernetwork.py, connectome.py).
#pragma once

#include <cstdint>
#include <vector>

#include "dtwin.h"
#include "model/model.h"

namespace dtwin::model {

// Checks the people of a call before anything is computed. Throws Refusal.
void check_people(const dtwin_model& model, const dtwin_people& people);

// Some of the people of a call on their way through the hypernetwork.
class Personalized {
  public:
    // `slopes`: keep what the way back needs.
    Personalized(const dtwin_model& model, const dtwin_people& people, int64_t first, int64_t last,
                 bool slopes);

    void weights(float* flat) const;                             // [n, P]
    void back(std::vector<float> d_flat, float* d_edges) const;  // [n, P] -> [n, E]

  private:
    const dtwin_model& model_;
    const dtwin_people& people_;
    const int64_t first_, n_;
    std::vector<float> units_;                // [n, D] of the last hidden layer
    std::vector<std::vector<float>> slopes_;  // of each hidden layer
};

}  // namespace dtwin::model
