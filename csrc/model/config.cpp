// From config.json and the weights to a model; every size is checked before it is used.
#include <algorithm>
#include <cmath>
#include <optional>

#include "model/json.h"
#include "model/model.h"
#include "model/refusal.h"

namespace dtwin::model {

void refuse_model(const char* code, const std::string& field, const std::string& what,
                  const std::string& wanted, const std::string& got) {
    throw Refusal{DTWIN_ERROR_MODEL,
                  sentence(code, field, what, wanted, got,
                           "Copy the model folder again from its source, or train it again")};
}

namespace {

constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMostSize = 1 << 24;
constexpr uint32_t kMostLayers = 64;
constexpr size_t kMostNameCharacters = 200;

std::string quoted(std::string_view text) { return "\"" + std::string(text.substr(0, 60)) + "\""; }

// Text without control characters or spaces at its ends.
bool is_name(std::string_view text, size_t most) {
    size_t n = 0;
    const char* at = text.data();
    for (const char* end = at + text.size(); at != end; ++n) {
        uint32_t c = 0;
        if (!next_character(at, end, &c) || c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;
    }
    return n > 0 && n <= most && text.front() != ' ' && text.back() != ' ';
}

class Config {
  public:
    Config(const Json& document, const std::string& file, dtwin_model* model)
        : root_(document.root()), file_(file), model_(*model) {}

    void read() {
        check_format();
        read_spec(typed(root_, "spec", Kind::kObject));
        const Json::Item regions = typed(root_, "regions", Kind::kArray);
        if (regions.count() != model_.n_regions) {
            refuse("regions", std::to_string(model_.n_regions) + " names");
        }
        model_.regions = names(regions, "regions", "region_name", "region_duplicate");
        read_tasks(typed(root_, "tasks", Kind::kObject), typed(root_, "contrasts", Kind::kObject));
        typed(root_, "training", Kind::kObject);
        model_.sha256 = typed(root_, "weights_sha256", Kind::kText).text();
    }

  private:
    [[noreturn]] void refuse(const std::string& field, const std::string& wanted,
                             const char* code = "model_content") const {
        refuse_model(code, file_, "this part of the model cannot be used", field + ": " + wanted);
    }

    [[noreturn]] void refuse_spec(const std::string& field, const std::string& wanted) const {
        refuse(field, wanted, "spec");
    }

    Json::Item typed(Json::Item object, const char* name, Kind kind) const {
        const char* const kinds[] = {"null", "",     "",       "an integer",
                                     "",     "text", "a list", "an object"};
        const Json::Item value = object.member(name);
        if (!value.is(kind)) refuse(name, kinds[static_cast<int>(kind)]);
        return value;
    }

    void check_format() const {
        const Json::Item format = root_.member("format");
        if (!format.is(Kind::kText) || format.text() != "dtwin_fast model") {
            refuse_model("model_config", file_, "this is not the config of a dtwin_fast model");
        }
        const Json::Item version = root_.member("format_version");
        if (!version.is(Kind::kInteger) || version.integer() != kFormatVersion) {
            refuse_model("model_config", file_,
                         "this model was written by another version of dtwin_fast",
                         "format_version " + std::to_string(kFormatVersion));
        }
    }

    // Fields of the spec.
    int64_t size(Json::Item value, const char* field, int64_t least = 1) const {
        if (!value.is(Kind::kInteger) || value.integer() < least || value.integer() > kMostSize) {
            refuse_spec(field, "an integer from " + std::to_string(least) + " to " +
                                   std::to_string(kMostSize));
        }
        return value.integer();
    }

    double seconds(Json::Item spec, const char* field) const {
        const Json::Item value = spec.member(field);
        if (!value.is_number() || !(value.number() >= 1e-3 && value.number() <= 1e3)) {
            refuse_spec(field, "0.001 to 1000 seconds");
        }
        return value.number();
    }

    std::string_view text(Json::Item spec, const char* field) const {
        const Json::Item value = spec.member(field);
        if (!value.is(Kind::kText) || !is_name(value.text(), kMostConfigBytes)) {
            refuse_spec(field, "printable text");
        }
        return value.text();
    }

    Json::Item list(Json::Item spec, const char* field) const {
        const Json::Item value = spec.member(field);
        if (!value.is(Kind::kArray)) refuse_spec(field, "a list");
        return value;
    }

    // Distinct names.
    std::vector<std::string> names(Json::Item list, const char* field, const char* code,
                                   const char* code_of_two) const {
        std::vector<std::string> names;
        Json::Item item = list.first();
        for (uint32_t i = 0; i < list.count(); ++i, item = item.next()) {
            if (!item.is(Kind::kText) || !is_name(item.text(), kMostNameCharacters)) {
                refuse(field, "names of 1 to 200 printable characters", code);
            }
            names.emplace_back(item.text());
        }
        std::vector<std::string_view> sorted(names.begin(), names.end());
        std::sort(sorted.begin(), sorted.end());
        const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
        if (twice != sorted.end()) {
            refuse(field, "no name twice, as " + quoted(*twice) + " is", code_of_two);
        }
        return names;
    }

    void read_spec(Json::Item spec) {
        constexpr uint32_t kFields = 14;
        if (spec.count() != kFields) refuse_spec("spec", std::to_string(kFields) + " fields");
        model_.name = text(spec, "name");
        constexpr std::string_view kCells[] = {"rnn", "gru", "lstm"};  // as in dtwin_cell
        const auto cell = std::find(std::begin(kCells), std::end(kCells), text(spec, "cell"));
        if (cell == std::end(kCells)) refuse("cell", "rnn | gru | lstm", "cell");
        model_.cell = static_cast<int32_t>(cell - std::begin(kCells));
        model_.n_regions = size(spec.member("n_regions"), "n_regions", 2);
        model_.n_hidden = size(spec.member("n_hidden"), "n_hidden");
        size(spec.member("segment_steps"), "segment_steps");
        const int64_t n_inputs = size(spec.member("n_inputs"), "n_inputs"),
                      n_actions = size(spec.member("n_actions"), "n_actions");
        if (n_inputs != kInputs || n_actions != kActions) {
            refuse("n_inputs, n_actions", "those of the tasks, " + std::to_string(kInputs) +
                                              " and " + std::to_string(kActions));
        }
        const Json::Item hidden = list(spec, "hyper_hidden");
        if (hidden.count() < 1 || hidden.count() > kMostLayers) {
            refuse_spec("hyper_hidden", "1 to 64 layers");
        }
        Json::Item width = hidden.first();
        for (uint32_t i = 0; i < hidden.count(); ++i, width = width.next()) {
            model_.hyper_hidden.push_back(size(width, "hyper_hidden"));
        }
        model_.bold_regions = names(list(spec, "bold_regions"), "bold_regions", "spec", "spec");
        const std::string_view head = text(spec, "head");
        if (head != "hazard" && head != "sigmoid") refuse_spec("head", "hazard | sigmoid");
        model_.hazard = head == "hazard";
        const Json::Item standardize = spec.member("standardize"), dropout = spec.member("dropout");
        model_.standardize = standardize.is(Kind::kTrue);
        if (!model_.standardize && !standardize.is(Kind::kFalse)) {
            refuse_spec("standardize", "true or false");
        }
        if (!dropout.is_number() || !(dropout.number() >= 0 && dropout.number() < 1)) {
            refuse_spec("dropout", "a rate in [0, 1)");
        }
        model_.dt_s = seconds(spec, "dt_s");
        model_.tr_s = seconds(spec, "tr_s");
        if (model_.dt_s > model_.tr_s) refuse_spec("dt_s", "at most tr_s");
    }

    void read_tasks(Json::Item tasks, Json::Item contrasts) {
        if (tasks.count() < 1 || tasks.count() != contrasts.count()) {
            refuse("tasks", "tasks with their contrasts");
        }
        Json::Item key = tasks.first();
        for (uint32_t i = 0; i < tasks.count(); ++i) {
            const Json::Item values = key.next();
            Task task;
            task.name = key.text();
            if (!is_task(task.name)) refuse("tasks", "faces | stroop");
            if (!values.is(Kind::kObject)) refuse("tasks", "an object for each task");
            const Json::Item rows = contrasts.member(task.name);
            if (!rows.is(Kind::kArray)) refuse("contrasts", "a list for each task");
            Json::Item row = rows.first();
            for (uint32_t k = 0; k < rows.count(); ++k, row = row.next()) {
                if (!row.is(Kind::kText) || !is_name(row.text(), kMostConfigBytes)) {
                    refuse("contrasts", "names");
                }
                task.contrasts.emplace_back(row.text());
            }
            task.schedule = read_schedule(values, task.name, model_.dt_s, model_.tr_s, file_);
            model_.tasks.push_back(std::move(task));
            key = values.next();
        }
    }

    const Json::Item root_;
    const std::string& file_;
    dtwin_model& model_;
};

// Products of sizes that files name.
class Sizes {
  public:
    int64_t times(int64_t a, int64_t b) {
        overflow_ |= __builtin_mul_overflow(a, b, &a);
        return a;
    }
    int64_t plus(int64_t a, int64_t b) {
        overflow_ |= __builtin_add_overflow(a, b, &a);
        return a;
    }
    bool overflow() const { return overflow_; }

  private:
    bool overflow_ = false;
};

std::vector<Wanted> wanted_tensors(dtwin_model* model, const std::string& config_name) {
    Sizes sizes;
    std::vector<Wanted> wanted;
    const auto add = [&](std::string name, std::vector<int64_t> shape, Tensor* tensor) {
        int64_t bytes = sizeof(float);
        for (int64_t size : shape) bytes = sizes.times(bytes, size);
        wanted.push_back({std::move(name), std::move(shape), bytes, tensor});
    };
    add("edge_mean", {model->n_edges()}, &model->edge_mean);
    add("edge_sd", {model->n_edges()}, &model->edge_sd);
    add("bold_sd", {model->n_bold()}, &model->bold_sd);
    int64_t n_weights = 0;
    for (const Part& part : weight_parts(*model)) n_weights = sizes.plus(n_weights, part.size);
    std::vector<int64_t> widths = model->hyper_hidden;
    widths.insert(widths.begin(), model->n_edges());
    widths.push_back(n_weights);
    model->layers.resize(widths.size() - 1);
    for (size_t i = 0; i < model->layers.size(); ++i) {
        Layer& layer = model->layers[i];
        layer.n_in = widths[i];
        layer.n_out = widths[i + 1];
        const std::string name = "hyper." + std::to_string(i);
        add(name + ".weight", {layer.n_out, layer.n_in}, &layer.weight);
        add(name + ".bias", {layer.n_out}, &layer.bias);
    }
    for (Task& task : model->tasks) {
        add("projection." + task.name, {task.n_contrasts(), task.schedule.n_steps()},
            &task.projection);
    }
    if (sizes.overflow()) {
        refuse_model("model_tensors", config_name, "the sizes are larger than any file",
                     "a spec whose tensors can be counted");
    }
    return wanted;
}

void check_values(const dtwin_model& model, const std::vector<Wanted>& tensors,
                  const std::string& file) {
    for (const Wanted& one : tensors) {
        const float* data = one.tensor->data.get();
        if (!std::all_of(data, data + one.tensor->size, [](float x) { return std::isfinite(x); })) {
            refuse_model("model_content", file, one.name + " holds NaN or infinite values",
                         "finite weights");
        }
    }
    const float* sd = model.edge_sd.data.get();
    if (!std::all_of(sd, sd + model.edge_sd.size, [](float x) { return x > 0; })) {
        refuse_model("model_content", file, "edge_sd holds values that are not positive");
    }
}

}  // namespace

std::vector<Part> weight_parts(const dtwin_model& model) {
    using Forward = dtwin_rollout_params;
    using Backward = dtwin_rollout_vjp_params;
    constexpr int64_t kGates[] = {1, 3, 4};
    const int64_t H = model.n_hidden, gates = kGates[model.cell] * H, O = model.n_outputs();
    return {{&Forward::w_ih, &Forward::w_ih_stride, &Backward::d_w_ih, gates * kInputs},
            {&Forward::w_hh, &Forward::w_hh_stride, &Backward::d_w_hh, gates * H},
            {&Forward::b_ih, &Forward::b_ih_stride, &Backward::d_b_ih, gates},
            {&Forward::b_hh, &Forward::b_hh_stride, &Backward::d_b_hh, gates},
            {&Forward::w_out, &Forward::w_out_stride, &Backward::d_w_out, O * H},
            {&Forward::b_out, &Forward::b_out_stride, &Backward::d_b_out, O}};
}

void read_model(std::string_view config, const std::string& config_name, Source& weights,
                dtwin_model* model) {
    std::optional<Json> document;
    try {
        document.emplace(config);
    } catch (const std::string& error) {
        refuse_model("model_config", config_name, "config.json is not valid JSON", "", error);
    }
    Config(*document, config_name, model).read();
    document.reset();  // before the weights take memory
    const std::vector<Wanted> tensors = wanted_tensors(model, config_name);
    const std::string digest = read_safetensors(weights, tensors);
    if (digest != model->sha256) {
        refuse_model("model_sha256", weights.name(),
                     "the weights are not those that config.json was written for",
                     quoted(model->sha256), digest);
    }
    check_values(*model, tensors, weights.name());
}

}  // namespace dtwin::model
