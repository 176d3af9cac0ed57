#include "model/hypernetwork.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/refusal.h"

namespace dtwin::model {
namespace {

constexpr float kFisherClip = 1 - 1e-6;  // largest |r| given to arctanh
constexpr double kMostR = 1 + 1e-5;      // more is no rounding
constexpr double kMostZ = 10;
constexpr double kLooksLikeZ = 5;  // values above 1 but below this are Fisher z rather than damage

[[noreturn]] void refuse_subject(const char* code, int64_t subject, const std::string& what,
                                 const std::string& wanted, const std::string& fix) {
    throw Refusal{
        DTWIN_ERROR_EDGES,
        sentence(code, "edges, subject number " + std::to_string(subject), what, wanted, "", fix)};
}

// Marks the regions without data in `missing`: those that have no edge, or, as two of them may
// still have a number between them, those that have lost more than half. False where neither
// explains every NaN. `edges` has one.
bool find_missing(const float* edges, int64_t n_regions, std::vector<uint8_t>* missing) {
    std::vector<int64_t> degree(static_cast<size_t>(n_regions), 0);
    const float* edge = edges;
    for (int64_t i = 0; i < n_regions; ++i) {
        for (int64_t j = i + 1; j < n_regions; ++j, ++edge) {
            if (std::isnan(*edge)) continue;
            ++degree[i];
            ++degree[j];
        }
    }
    for (const bool half : {false, true}) {
        int64_t n_missing = 0;
        for (int64_t i = 0; i < n_regions; ++i) {
            (*missing)[i] = half ? 2 * degree[i] < n_regions - 1 : degree[i] == 0;
            n_missing += (*missing)[i];
        }
        bool explains = n_regions - n_missing >= 2;
        edge = edges;
        for (int64_t i = 0; explains && i < n_regions; ++i) {
            for (int64_t j = i + 1; j < n_regions; ++j, ++edge) {
                const bool lost = std::isnan(*edge);
                const int ends = (*missing)[i] + (*missing)[j];
                if (ends != 2 && lost != (ends == 1)) explains = false;
            }
        }
        if (explains) return true;
    }
    return false;
}

void check_subject(const dtwin_model& model, const dtwin_people& people, int64_t subject,
                   std::vector<uint8_t>* missing) {
    const int64_t E = model.n_edges();
    const float* const edges = people.edges + subject * E;
    float largest = 0;
    bool lost = false, all_zero = true;
    for (int64_t e = 0; e < E; ++e) {
        lost |= std::isnan(edges[e]);
        all_zero &= edges[e] == 0 || std::isnan(edges[e]);
        largest = std::max(largest, std::abs(edges[e]));  // NaN leaves it
    }
    if (std::isinf(largest)) {
        refuse_subject("infinite", subject, "an edge is infinite", "",
                       "Give correlations, or Fisher z with r clipped below 1");
    }
    if (people.unit == DTWIN_FISHER_Z && largest > kMostZ) {
        refuse_subject("z_out_of_range", subject, "Fisher z is too large", "|z| at most 10",
                       "Give arctanh of the correlations");
    }
    if (people.unit == DTWIN_PEARSON_R && largest > kMostR) {
        if (largest < kLooksLikeZ) {
            refuse_subject("fisher_z_as_r", subject,
                           "these look like Fisher z but were announced as Pearson r",
                           "|r| at most 1", "Say DTWIN_FISHER_Z, or give correlations");
        }
        refuse_subject("r_out_of_range", subject, "correlations lie between -1 and 1",
                       "|r| at most 1", "Give Pearson correlations");
    }
    if (lost && !find_missing(edges, model.n_regions, missing)) {
        refuse_subject("nan", subject, "single edges are NaN, which no missing region explains",
                       "NaN only on all edges of a region, and two regions with data",
                       "Compute the correlations again without gaps");
    }
    if (lost && people.missing == DTWIN_MISSING_REJECT) {
        refuse_subject("missing_regions", subject, "regions are missing", "",
                       "Choose DTWIN_MISSING_MASK or DTWIN_MISSING_IMPUTE, or leave them out");
    }
    if (all_zero) {
        refuse_subject("all_zero", subject, "every edge is 0", "", "Export the connectome again");
    }
}

// What the hypernetwork reads of one edge: arctanh of r, standardised where the model wants that.
float edge_input(const dtwin_model& model, int32_t unit, float edge, int64_t e) {
    const float z =
        unit == DTWIN_FISHER_Z ? edge : std::atanh(std::clamp(edge, -kFisherClip, kFisherClip));
    return model.standardize ? (z - model.edge_mean.data[e]) / model.edge_sd.data[e] : z;
}

// Where regions are missing, so are all numbers at them: two may have one between them.
class Lost {
  public:
    Lost(const dtwin_model& model, const float* edges) {
        const int64_t E = model.n_edges();
        any_ = std::any_of(edges, edges + E, [](float x) { return std::isnan(x); });
        if (!any_) return;
        std::vector<uint8_t> missing(static_cast<size_t>(model.n_regions));
        find_missing(edges, model.n_regions, &missing);
        lost_.reserve(static_cast<size_t>(E));
        int64_t present = 0;
        for (int64_t i = 0; i < model.n_regions; ++i) {
            for (int64_t j = i + 1; j < model.n_regions; ++j) {
                lost_.push_back(missing[i] | missing[j]);
                present += !lost_.back();
            }
        }
        mask_scale_ = static_cast<float>(static_cast<double>(E) / static_cast<double>(present));
    }

    bool at(int64_t e) const { return any_ && lost_[static_cast<size_t>(e)]; }

    // What a mask multiplies the other edges by, as inverted dropout scales what it keeps.
    float scale(int32_t policy) const {
        return any_ && policy == DTWIN_MISSING_MASK ? mask_scale_ : 1.0f;
    }

  private:
    bool any_;
    float mask_scale_ = 1;
    std::vector<uint8_t> lost_;
};

void fill_input(const dtwin_model& model, const dtwin_people& people, int64_t subject, float* x) {
    const int64_t E = model.n_edges();
    const float* const edges = people.edges + subject * E;
    const Lost lost(model, edges);
    const float scale = lost.scale(people.missing);
    for (int64_t e = 0; e < E; ++e) {
        if (!lost.at(e)) {
            x[e] = edge_input(model, people.unit, edges[e], e) * scale;
        } else {
            const bool mean = people.missing == DTWIN_MISSING_IMPUTE && !model.standardize;
            x[e] = mean ? model.edge_mean.data[e] : 0;
        }
    }
}

// d_x becomes the gradient of the edges as they were given.
void input_back(const dtwin_model& model, const dtwin_people& people, int64_t subject, float* d_x) {
    const int64_t E = model.n_edges();
    const float* const edges = people.edges + subject * E;
    const Lost lost(model, edges);
    const float scale = lost.scale(people.missing);
    for (int64_t e = 0; e < E; ++e) {
        if (lost.at(e)) {
            d_x[e] = 0;
            continue;
        }
        float d_z = d_x[e] * scale;
        if (model.standardize) d_z /= model.edge_sd.data[e];
        if (people.unit == DTWIN_PEARSON_R) {
            // The product keeps its digits near |r| = 1, where 1 - r * r would lose them.
            const float r = edges[e];
            d_z = std::abs(r) <= kFisherClip ? d_z / ((1 - r) * (1 + r)) : 0;
        }
        d_x[e] = d_z;
    }
}

// u * tanh(softplus(u)) with one exp; above 20 the factor is 1.
float mish(float u) {
    const float e = std::exp(std::min(u, 20.0f));
    const float n = e * (e + 2);
    return u * (n / (n + 2));
}

float mish_slope(float u) {
    const float capped = std::min(u, 22.0f);
    const float e = std::exp(capped);
    const float n = e * (e + 2);
    // Divided twice: the square of n + 2 would come near float32's largest number.
    return n / (n + 2) + capped * (4 * e * (1 + e) / (n + 2) / (n + 2));
}

using Affine = int (*)(const dtwin_affine_params*);

std::vector<float> run_layer(Affine affine, const Layer& layer, int32_t n_threads, int64_t n_rows,
                             const float* x, int64_t width, float* to = nullptr) {
    std::vector<float> y(to ? 0 : static_cast<size_t>(n_rows * width));
    dtwin_affine_params params{};
    params.struct_size = sizeof params;
    params.n_threads = n_threads;
    params.n_rows = n_rows;
    params.n_in = layer.n_in;
    params.n_out = layer.n_out;
    params.weight = layer.weight.data.get();
    params.bias = layer.bias.data.get();
    params.x = x;
    params.y = to ? to : y.data();
    if (const int status = affine(&params)) throw Refusal{status, dtwin_strerror(status)};
    return y;
}

}  // namespace

void check_people(const dtwin_model& model, const dtwin_people& people) {
    std::vector<uint8_t> missing(static_cast<size_t>(model.n_regions));
    for (int64_t s = 0; s < people.n_subjects; ++s) check_subject(model, people, s, &missing);
}

Personalized::Personalized(const dtwin_model& model, const dtwin_people& people, int64_t first,
                           int64_t last, bool slopes)
    : model_(model), people_(people), first_(first), n_(last - first) {
    const int64_t E = model.n_edges();
    units_.resize(static_cast<size_t>(n_ * E));
    for (int64_t s = 0; s < n_; ++s) fill_input(model, people, first + s, units_.data() + s * E);
    for (size_t i = 0; i + 1 < model.layers.size(); ++i) {
        const Layer& layer = model.layers[i];
        units_ = run_layer(dtwin_affine, layer, people.n_threads, n_, units_.data(), layer.n_out);
        if (slopes) {
            slopes_.emplace_back(units_.size());
            std::transform(units_.begin(), units_.end(), slopes_.back().begin(), mish_slope);
        }
        std::transform(units_.begin(), units_.end(), units_.begin(), mish);
    }
}

void Personalized::weights(float* flat) const {
    run_layer(dtwin_affine, model_.layers.back(), people_.n_threads, n_, units_.data(),
              model_.n_weights(), flat);
}

void Personalized::back(std::vector<float> d_y, float* d_edges) const {
    for (size_t i = model_.layers.size(); i-- > 0;) {
        const Layer& layer = model_.layers[i];
        d_y = run_layer(dtwin_affine_vjp, layer, people_.n_threads, n_, d_y.data(), layer.n_in);
        if (i == 0) break;
        const std::vector<float>& slope = slopes_[i - 1];
        std::transform(d_y.begin(), d_y.end(), slope.begin(), d_y.begin(),
                       [](float d, float s) { return d * s; });
    }
    const int64_t E = model_.n_edges();
    for (int64_t s = 0; s < n_; ++s) {
        input_back(model_, people_, first_ + s, d_y.data() + s * E);
        std::copy_n(d_y.data() + s * E, E, d_edges + (first_ + s) * E);
    }
}

}  // namespace dtwin::model
