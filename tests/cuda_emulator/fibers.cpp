#include "fibers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "fail.h"

// What a called function must keep goes on the old stack and comes off the new one.
#if defined(__x86_64__)
asm(R"(
    .text
    .hidden dtwin_emulator_switch
    .globl dtwin_emulator_switch
    .type dtwin_emulator_switch, @function
dtwin_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size dtwin_emulator_switch, .-dtwin_emulator_switch
)");
#elif defined(__aarch64__)
asm(R"(
    .text
    .hidden dtwin_emulator_switch
    .globl dtwin_emulator_switch
    .type dtwin_emulator_switch, %function
dtwin_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size dtwin_emulator_switch, .-dtwin_emulator_switch
)");
#else
#error "The emulator's fibers are written for x86-64 and 64-bit Arm."
#endif

namespace dtwin::emulator {

namespace {

constexpr size_t kStackBytes = 64 << 10;

#if defined(__x86_64__)
constexpr size_t kFrameWords = 8, kReturnWord = 6;  // a word more keeps a call's alignment
#else
constexpr size_t kFrameWords = 20, kReturnWord = 11;
#endif

}  // namespace

void Stacks::reserve(size_t n) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    while (tops_.size() < n) {
        char* stack = static_cast<char*>(mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (stack == MAP_FAILED) fail("no memory for the stacks of %zu threads", n);
        mprotect(stack, page, PROT_NONE);  // a stack that overflows ends the process
        // Tops at one place of their page would share a few lines of the cache.
        tops_.push_back(stack + page + kStackBytes - 64 * (tops_.size() % 61));
    }
}

void* Stacks::begin(size_t i, void (*entry)()) {
    auto* frame = reinterpret_cast<uintptr_t*>(tops_[i]) - kFrameWords;
    for (size_t word = 0; word < kFrameWords; ++word) frame[word] = 0;
    frame[kReturnWord] = reinterpret_cast<uintptr_t>(entry);
    return frame;
}

}  // namespace dtwin::emulator
