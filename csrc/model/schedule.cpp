#include "model/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/refusal.h"

namespace dtwin::model {
namespace {

constexpr double kOnGrid = 1e-6;  // a time this many steps above a step is on it
constexpr double kMostSeconds = 86400;
constexpr uint32_t kMostTrials = 100000;

// The tasks of this version and the value of their flag (dtwin_fast/tasks/).
struct Task {
    std::string_view name;
    float flag;
};
constexpr Task kTasks[] = {{"faces", 0.0f}, {"stroop", 1.0f}};

const Task* find_task(std::string_view name) {
    for (const Task& task : kTasks) {
        if (task.name == name) return &task;
    }
    return nullptr;
}

int64_t first_step(double time_s, double dt_s) {
    return static_cast<int64_t>(std::ceil(time_s / dt_s - kOnGrid));
}

// Reads the fields of one schedule.
class Fields {
  public:
    Fields(Json::Item values, const std::string& task, const std::string& file)
        : values_(values), task_(task), file_(file) {}

    [[noreturn]] void refuse(const std::string& field, const std::string& wanted,
                             const char* code = "schedule") const {
        refuse_model(code, file_, "the schedule of " + task_ + " cannot be used",
                     field + ": " + wanted);
    }

    Json::Item list(const char* name, uint32_t count = kMostTrials + 1) const {
        const Json::Item field = values_.member(name);
        const bool any = count > kMostTrials;
        if (!field.is(Kind::kArray) ||
            (any ? field.count() > kMostTrials : field.count() != count)) {
            refuse(name, any ? "a list of at most " + std::to_string(kMostTrials) + " entries"
                             : std::to_string(count) + " entries");
        }
        return field;
    }

    std::vector<double> numbers(const char* name, Json::Item list) const {
        std::vector<double> numbers;
        numbers.reserve(list.count());
        Json::Item item = list.first();
        for (uint32_t i = 0; i < list.count(); ++i, item = item.next()) {
            if (!item.is_number()) refuse(name, "numbers");
            numbers.push_back(item.number());
        }
        return numbers;
    }

    std::vector<float> codes(const char* name, Json::Item rows) const {
        std::vector<float> codes;
        codes.reserve(rows.count() * kCodes);
        Json::Item row = rows.first();
        for (uint32_t i = 0; i < rows.count(); ++i, row = row.next()) {
            if (!row.is(Kind::kArray) || row.count() != kCodes) refuse(name, "rows of 8 numbers");
            for (double code : numbers(name, row)) {
                if (std::abs(code) > std::numeric_limits<float>::max()) refuse(name, "float32");
                codes.push_back(static_cast<float>(code));
            }
        }
        return codes;
    }

    // Integers in [0, end) that serve nobody here but must be right for the file to be.
    void check_integers(const char* name, uint32_t count, int64_t end) const {
        const Json::Item field = list(name, count);
        Json::Item item = field.first();
        for (uint32_t i = 0; i < count; ++i, item = item.next()) {
            if (!item.is(Kind::kInteger) || item.integer() < 0) refuse(name, "integers from 0");
            if (item.integer() >= end) {
                refuse(name, "integers below " + std::to_string(end), "model_content");
            }
        }
    }

    void check_texts(const char* name, uint32_t count) const {
        const Json::Item field = list(name, count);
        Json::Item item = field.first();
        for (uint32_t i = 0; i < count; ++i, item = item.next()) {
            if (!item.is(Kind::kText)) refuse(name, "names");
        }
    }

  private:
    const Json::Item values_;
    const std::string& task_;
    const std::string& file_;
};

void check_times(const Fields& fields, const char* name, const std::vector<double>& onset_s,
                 const std::vector<double>& length_s, double run_s) {
    for (size_t i = 0; i < onset_s.size(); ++i) {
        // A window may end with the run, and 389.75 + 8.25 may come out a bit above 398.
        if (onset_s[i] < 0 || !(length_s[i] > 0) || onset_s[i] + length_s[i] > run_s + 1e-9) {
            fields.refuse(name, "positive seconds that end within the run");
        }
    }
}

void show(const Shown& shown, double dt_s, int64_t n_steps, float* inputs) {
    for (size_t i = 0; i < shown.onset_s.size(); ++i) {
        const int64_t first = first_step(shown.onset_s[i], dt_s) + 1;
        const auto width =
            static_cast<int64_t>(std::max(std::rint(shown.duration_s[i] / dt_s), 1.0));
        const int64_t stop = std::min(first + width, n_steps);
        const float* codes = shown.codes.data() + i * kCodes;
        for (int64_t step = first; step < stop; ++step) {
            for (int64_t c = 0; c < kCodes; ++c) inputs[step * kInputs + c] += codes[c];
        }
    }
}

}  // namespace

bool is_task(std::string_view name) { return find_task(name) != nullptr; }

int64_t Schedule::n_steps() const { return static_cast<int64_t>(std::rint(run_s / dt_s)); }

int64_t Schedule::n_volumes() const { return static_cast<int64_t>(std::rint(run_s / tr_s)); }

int64_t Schedule::volume_step(int64_t volume) const {
    const double start_s = tr_s * static_cast<double>(volume);
    return std::min(static_cast<int64_t>(std::rint(start_s / dt_s)), n_steps() - 1);
}

void Schedule::encode(float* inputs) const {
    const int64_t T = n_steps();
    show(cues, dt_s, T, inputs);
    show(stimuli, dt_s, T, inputs);
    for (int64_t step = 0; step < T; ++step) inputs[step * kInputs + kCodes] = flag;
}

Schedule read_schedule(Json::Item values, const std::string& task, double dt_s, double tr_s,
                       const std::string& file) {
    const Fields fields(values, task, file);
    constexpr uint32_t kFields = 13;
    if (!values.is(Kind::kObject) || values.count() != kFields) {
        fields.refuse("schedule", std::to_string(kFields) + " fields");
    }
    const Json::Item name = values.member("task"), run_s = values.member("run_s"),
                     n_codes = values.member("n_codes");
    if (!name.is(Kind::kText)) fields.refuse("task", "a name");
    if (name.text() != task) fields.refuse("task", task, "model_content");
    if (!run_s.is_number() || !(run_s.number() > 0 && run_s.number() <= kMostSeconds)) {
        fields.refuse("run_s", "seconds in (0, 86400]");
    }
    if (!n_codes.is(Kind::kInteger) || n_codes.integer() != kCodes) {
        fields.refuse("n_codes", std::to_string(kCodes), "model_content");
    }
    Schedule made;
    made.run_s = run_s.number();
    made.dt_s = dt_s;
    made.tr_s = tr_s;
    made.flag = find_task(task)->flag;
    const Json::Item onsets = fields.list("onset_s"), cue_onsets = fields.list("cue_onset_s");
    const uint32_t n_trials = onsets.count(), n_cues = cue_onsets.count();
    if (n_trials < 1) fields.refuse("onset_s", "at least one trial");
    made.stimuli.onset_s = fields.numbers("onset_s", onsets);
    made.stimuli.duration_s = fields.numbers("duration_s", fields.list("duration_s", n_trials));
    const std::vector<double> window_s =
        fields.numbers("window_s", fields.list("window_s", n_trials));
    made.stimuli.codes = fields.codes("stimulus", fields.list("stimulus", n_trials));
    made.cues.onset_s = fields.numbers("cue_onset_s", cue_onsets);
    made.cues.duration_s = fields.numbers("cue_duration_s", fields.list("cue_duration_s", n_cues));
    made.cues.codes = fields.codes("cue", fields.list("cue", n_cues));
    fields.check_texts("condition", n_trials);
    fields.check_integers("correct", n_trials, kActions);
    fields.check_integers("item", n_trials, std::numeric_limits<int64_t>::max());

    for (uint32_t i = 1; i < n_trials; ++i) {
        if (!(made.onset_s()[i] > made.onset_s()[i - 1])) {
            fields.refuse("onset_s", "ascending onsets");
        }
    }
    check_times(fields, "duration_s", made.onset_s(), made.stimuli.duration_s, made.run_s);
    check_times(fields, "window_s", made.onset_s(), window_s, made.run_s);
    check_times(fields, "cue_duration_s", made.cues.onset_s, made.cues.duration_s, made.run_s);
    for (uint32_t i = 0; i < n_trials; ++i) {
        const double onset = made.onset_s()[i];
        const int64_t start = first_step(onset, dt_s);
        const int64_t stop = std::min(first_step(onset + window_s[i], dt_s), made.n_steps());
        made.windows.push_back({start, std::max(stop, start + 1)});
        if (made.windows.back().stop > made.n_steps()) {
            fields.refuse("window_s", "windows within the run", "model_content");
        }
    }
    return made;
}

}  // namespace dtwin::model
