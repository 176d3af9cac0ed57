// A model in memory: what config.json and model.safetensors say (dtwin_fast/twin.py).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dtwin.h"
#include "model/files.h"
#include "model/safetensors.h"
#include "model/schedule.h"

namespace dtwin::model {

constexpr int64_t kMostConfigBytes = int64_t{32} << 20;

struct Layer {
    int64_t n_in = 0, n_out = 0;
    Tensor weight, bias;  // [n_out, n_in], [n_out]
};

struct Task {
    std::string name;
    Schedule schedule;
    std::vector<std::string> contrasts;
    Tensor projection;  // [K, T]

    int64_t n_contrasts() const { return static_cast<int64_t>(contrasts.size()); }
};

}  // namespace dtwin::model

struct dtwin_model {
    std::string name;
    std::string sha256;  // of the weights file
    int32_t cell = DTWIN_RNN;
    bool hazard = true;  // else the peaks of sigmoids
    bool standardize = true;
    int64_t n_regions = 0;
    int64_t n_hidden = 0;
    std::vector<int64_t> hyper_hidden;
    double dt_s = 0, tr_s = 0;
    std::vector<std::string> regions, bold_regions;
    std::vector<dtwin::model::Task> tasks;

    std::vector<dtwin::model::Layer> layers;  // of the hypernetwork: edges to flat weights
    dtwin::model::Tensor edge_mean, edge_sd, bold_sd;

    int64_t n_edges() const { return n_regions * (n_regions - 1) / 2; }
    int64_t n_bold() const { return static_cast<int64_t>(bold_regions.size()); }
    int64_t n_outputs() const { return dtwin::model::kActions + n_bold(); }
    int64_t n_weights() const { return layers.back().n_out; }
};

namespace dtwin::model {

// The model of a config's text and its weights. Throws Refusal.
void read_model(std::string_view config, const std::string& config_name, Source& weights,
                dtwin_model* model);

// The weights of one subject in their flat order.
struct Part {
    const void* dtwin_rollout_params::* values;
    int64_t dtwin_rollout_params::* stride;
    void* dtwin_rollout_vjp_params::* gradient;
    int64_t size;
};
std::vector<Part> weight_parts(const dtwin_model& model);

}  // namespace dtwin::model
