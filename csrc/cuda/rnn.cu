// The time loops of rnn.h for GPUs.
#define DTWIN_ISA gpu
#define DTWIN_RNN_KERNELS

#include "cells/rnn.h"
#include "instantiate.h"
