"""The emulated GPU from Python, through ctypes: memory, launches, and what they return.

As a program, ``driver.py LIBRARY CHOICE N THREADS CLUSTER KERNEL`` launches a kernel of
selftest.cu: those that break a rule end the process.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
MAX_DYNAMIC_SHARED, NON_PORTABLE_CLUSTER = 8, 14  # CU_FUNC_ATTRIBUTE_...


class Attribute(ctypes.Structure):
    """CUlaunchAttribute with the dimensions of a cluster."""

    _fields_ = (
        ("id", ctypes.c_uint),
        ("pad", ctypes.c_uint),
        ("cluster", ctypes.c_uint * 3),
        ("rest", ctypes.c_char * 52),
    )


class Launch(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("n_attributes", ctypes.c_uint),
    )


class Product(ctypes.Structure):
    """The argument of selftest_product."""

    _fields_ = (
        ("matrix", ctypes.c_void_p),
        ("vector", ctypes.c_void_p),
        ("result", ctypes.c_void_p),
        ("rows", ctypes.c_int),
        ("columns", ctypes.c_int),
    )


class Arrays(ctypes.Structure):
    """The argument of the other kernels of selftest.cu."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("result", ctypes.c_void_p),
        ("n", ctypes.c_int),
        ("choice", ctypes.c_int),
    )


def configure(
    grid: tuple[int, ...], threads: int, cluster: int = 0, shared_bytes: int = 0
) -> Launch:
    """A launch's configuration; ``cluster`` 0 leaves the attribute out."""
    attribute = Attribute(id=CLUSTER_DIMENSION, cluster=(cluster, 1, 1))
    return Launch(
        grid=(*grid, 1, 1)[:3],
        block=(threads, 1, 1),
        shared_bytes=shared_bytes,
        attributes=ctypes.pointer(attribute),
        n_attributes=int(cluster > 0),
    )


class EmulatedGpu:
    """A device of the library, its primary context current in the calling thread."""

    def __init__(self, library: str, device: int = 0) -> None:
        self.library = ctypes.CDLL(library)
        self.library.dtwin_emulator_count.restype = ctypes.c_long
        self.device = device
        self.check("cuInit", 0)
        context, self.module = ctypes.c_void_p(), ctypes.c_void_p()
        self.check("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.check("cuCtxPushCurrent_v2", context)
        self.check("cuModuleLoadData", ctypes.byref(self.module), b"any image")

    def close(self) -> None:
        """Give the context back."""
        self.check("cuCtxPopCurrent_v2", None)
        self.check("cuDevicePrimaryCtxRelease_v2", self.device)

    def call(self, function: str, *arguments: Any) -> int:
        """The status of a function of the driver or of cuBLAS."""
        return int(getattr(self.library, function)(*arguments))

    def check(self, function: str, *arguments: Any) -> None:
        """Call a function that must succeed."""
        status = self.call(function, *arguments)
        if status:
            raise RuntimeError(f"{function} returned {status}")

    def count(self, function: str) -> int:
        """How often a function was called."""
        return int(self.library.dtwin_emulator_count(function.encode()))

    def allocate(self, n_bytes: int) -> ctypes.c_void_p:
        """Device memory, of NaN bytes."""
        data = ctypes.c_void_p()
        self.check("cuMemAlloc_v2", ctypes.byref(data), ctypes.c_size_t(n_bytes))
        return data

    def put(self, array: npt.NDArray[Any]) -> ctypes.c_void_p:
        """Device memory with an array's bytes."""
        array = np.ascontiguousarray(array)
        data = self.allocate(array.nbytes)
        size = ctypes.c_size_t(array.nbytes)
        self.check("cuMemcpyHtoDAsync_v2", data, ctypes.c_void_p(array.ctypes.data), size, None)
        return data

    def get(self, data: ctypes.c_void_p, shape: int | tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Float32 numbers of device memory."""
        array = np.zeros(shape, np.float32)
        size = ctypes.c_size_t(array.nbytes)
        self.check("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), data, size, None)
        self.check("cuStreamSynchronize", None)
        return array

    def function(self, name: str) -> ctypes.c_void_p:
        """A kernel's handle."""
        handle = ctypes.c_void_p()
        self.check("cuModuleGetFunction", ctypes.byref(handle), self.module, name.encode())
        return handle

    def launch(
        self, kernel: ctypes.c_void_p, params: ctypes.Structure, configuration: Launch
    ) -> int:
        """The status of a launch, which has run when this returns."""
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        return self.call("cuLaunchKernelEx", ctypes.byref(configuration), kernel, pointers, None)


def main(library: str, choice: str, n: str, threads: str, cluster: str, kernel: str) -> None:
    """Launch a kernel of selftest.cu on 100 numbers, with 256 bytes of shared memory."""
    gpu = EmulatedGpu(library)
    source, result = gpu.put(np.ones(100, np.float32)), gpu.allocate(400)
    params = Arrays(source=source, result=result, n=int(n), choice=int(choice))
    blocks = max(1, int(cluster))
    configuration = configure((blocks,), int(threads), int(cluster), shared_bytes=256)
    status = gpu.launch(gpu.function(kernel), params, configuration)
    print(f"launched with status {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
