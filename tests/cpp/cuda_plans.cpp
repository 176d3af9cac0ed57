// Prints how the GPU engine lays out each kernel's sizes: one line for each direction, cell, kind
// of weights and H of the arguments, on device 0.
#include <cstdio>
#include <cstdlib>

#include "cuda/plan.h"

using namespace dtwin::gpu;

int main(int argc, char** argv) {
    try {
        Device& device = Device::get(0);
        const Device::Use use(device);
        const Device::Turn turn(device);
        const char* cells[] = {"rnn", "gru", "lstm"};
        for (Direction direction : {Direction::kForward, Direction::kBackward}) {
            for (int cell = 0; cell < 3; ++cell) {
                for (bool bfloat16 : {false, true}) {
                    for (int i = 1; i < argc; ++i) {
                        const int64_t H = std::atoi(argv[i]);
                        const bool forward = direction == Direction::kForward;
                        std::printf("%s %s %s %d ", forward ? "forward" : "backward", cells[cell],
                                    bfloat16 ? "bfloat16" : "float32", static_cast<int>(H));
                        try {
                            const Plan plan =
                                make_plan(device, {direction, cell, bfloat16, 1, 1, 8, 9, H, 0});
                            const Loop& loop = forward ? plan.forward.loop : plan.backward.loop;
                            const Plan many = make_plan(
                                device, {direction, cell, bfloat16, 999, 3, 5000, 9, H, 7});
                            const Loop& other = forward ? many.forward.loop : many.backward.loop;
                            if (many.kernel != plan.kernel || other.cluster != loop.cluster) {
                                std::printf("other subjects, sequences or steps: ");
                            }
                            std::printf("%s %d %d %d %d\n", plan.kernel.c_str(), loop.cluster,
                                        loop.units, plan.threads, plan.shared);
                        } catch (const Unsupported&) {
                            std::printf("none\n");
                        }
                    }
                }
            }
        }
    } catch (const Failure& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
        return 1;
    }
}
