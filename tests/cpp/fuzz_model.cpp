// Any config and weights are a model whose runs can be encoded and read, or refused. The bytes
// are 4 of the config's length, little-endian, the config, the weights.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz_bytes.h"
#include "model/model.h"
#include "model/readouts.h"
#include "model/refusal.h"
#include "model/sha256.h"

using namespace dtwin::model;

namespace {

// The config vouches for the weights whatever they are: what lies behind that check is reached.
void sign(std::string* config, std::string_view weights) {
    const std::string key = "\"weights_sha256\": \"";
    const size_t at = config->find(key);
    if (at == std::string::npos) return;
    Sha256 digest;
    digest.update(weights.data(), weights.size());
    config->replace(at + key.size(), 64, digest.hex());
}

void use(const dtwin_model& model) {
    const int64_t O = model.n_outputs();
    for (const Task& task : model.tasks) {
        const Schedule& schedule = task.schedule;
        const int64_t T = schedule.n_steps();
        if (T > 100000) continue;  // long runs are not wrong, but slow
        std::vector<float> inputs(static_cast<size_t>(T * kInputs));
        schedule.encode(inputs.data());
        std::vector<float> outputs(static_cast<size_t>(T * O), 0.5f), gradient(outputs.size());
        std::vector<std::byte> workspace(hazard_back_bytes(schedule));
        for (int64_t n = 0; n < schedule.n_trials(); ++n) {
            const Response said = read_hazard(schedule, n, outputs.data(), O);
            read_sigmoid(schedule, n, outputs.data(), O);
            hazard_back(schedule, n, outputs.data(), O, said, workspace.data(), gradient.data());
        }
        for (int64_t v = 0; v < std::min<int64_t>(schedule.n_volumes(), 100000); ++v) {
            outputs[static_cast<size_t>(schedule.volume_step(v) * O)] = 0;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 4) return 0;
    const std::string_view all(reinterpret_cast<const char*>(data) + 4, size - 4);
    size_t length = 0;
    for (int i = 3; i >= 0; --i) length = length << 8 | data[i];
    length = std::min(length, all.size());
    std::string config(all.substr(0, length));
    const std::string_view rest = all.substr(length);
    sign(&config, rest);
    Bytes weights(rest);
    dtwin_model model;
    try {
        read_model(config, "config", weights, &model);
    } catch (const Refusal&) {
        return 0;
    }
    use(model);
    return 0;
}
