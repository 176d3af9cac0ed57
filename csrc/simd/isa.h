// The builds of the time loop that are in this library, and the one that runs here.
#pragma once

#include "rollout.h"

namespace dtwin {

// The build that DTWIN_ISA names in the environment, or else the last one of the list that the
// processor can run. Decided once; null when DTWIN_ISA names none that can run here.
const Isa* active_isa();

// The builds that the processor can run, slowest first; their number is written to `count`.
const Isa* const* usable_isas(int* count);

}  // namespace dtwin
