// The time loops of gru.h for GPUs.
#define DTWIN_ISA gpu
#define DTWIN_GRU_KERNELS

#include "cells/gru.h"
#include "instantiate.h"
