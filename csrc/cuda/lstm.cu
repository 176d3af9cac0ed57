// The time loops of lstm.h for GPUs.
#define DTWIN_ISA gpu
#define DTWIN_LSTM_KERNELS

#include "cells/lstm.h"
#include "instantiate.h"
