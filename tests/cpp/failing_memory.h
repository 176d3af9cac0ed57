// Allocations that fail on command, for one file of a program: they replace operator new and
// delete, for the libraries that it is linked with too.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

#include "dtwin.h"

namespace {

std::atomic<long> left{-1};  // allocations that still succeed; negative: all
std::atomic<bool> for_good{false};
std::atomic<bool> has_failed{false};
std::atomic<long> live{0};

bool fails() {
    if (left < 0) return false;
    if (left-- > 0) return false;
    if (for_good) left = 0;
    has_failed = true;
    return true;
}

void* allocate(size_t size, size_t alignment) noexcept {
    if (fails()) return nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment, size)) {
        return nullptr;
    }
    ++live;
    return memory;
}

void* allocate_or_throw(size_t size, size_t alignment) {
    void* memory = allocate(size, alignment);
    if (!memory) throw std::bad_alloc();
    return memory;
}

void release(void* memory) noexcept {
    if (!memory) return;
    --live;
    std::free(memory);
}

}  // namespace

// The library's allocations come here too.
using Align = std::align_val_t;
void* operator new(size_t n) { return allocate_or_throw(n, 16); }
void* operator new[](size_t n) { return allocate_or_throw(n, 16); }
void* operator new(size_t n, Align a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
void* operator new[](size_t n, Align a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, 16); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, 16); }
void* operator new(size_t n, Align a, const std::nothrow_t&) noexcept {
    return allocate(n, static_cast<size_t>(a));
}
void* operator new[](size_t n, Align a, const std::nothrow_t&) noexcept {
    return allocate(n, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }
void operator delete(void* p, Align) noexcept { release(p); }
void operator delete[](void* p, Align) noexcept { release(p); }
void operator delete(void* p, size_t, Align) noexcept { release(p); }
void operator delete[](void* p, size_t, Align) noexcept { release(p); }

namespace {

struct Count {
    long failed = 0;   // calls without memory
    long without = 0;  // of those, the ones that went well all the same
    long leaks = 0, other = 0;
};

// Fails the first allocation of `work`, which returns a dtwin_status, then the second, and so on to
// the last; each alone, then with all that follow it.
template <class Work>
void sweep(Work work, Count* count) {
    for (const bool good : {false, true}) {
        for (long n = 0;; ++n) {
            const long before = live;
            for_good = good;
            has_failed = false;
            left = n;
            const int status = work();
            left = -1;
            count->leaks += live != before;
            if (!has_failed) break;
            ++count->failed;
            // What can be done without, such as a second thread, need not fail the call.
            count->without += status == DTWIN_OK;
            count->other += status != DTWIN_ERROR_MEMORY && status != DTWIN_OK;
        }
    }
}

}  // namespace
