#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "canary.h"
#include "fail.h"

namespace dtwin::emulator {

namespace {

// Pages: a closed one, one that ends in a canary, the data with a canary to the end of its last
// page, a closed one.
struct Allocation {
    int device;
    size_t bytes, open_bytes, page;

    size_t behind() const { return open_bytes - page - bytes; }
};

std::map<uintptr_t, Allocation>& allocations = *new std::map<uintptr_t, Allocation>;

char* start_of(uintptr_t data) { return reinterpret_cast<char*>(data); }

void protect(uintptr_t data, const Allocation& allocation, int access) {
    if (mprotect(start_of(data) - allocation.page, allocation.open_bytes, access) != 0)
        fail("mprotect failed");
}

void check_canaries(uintptr_t data, const Allocation& allocation) {
    const char* start = start_of(data);
    const size_t before = changed_canary(start - kCanaryBytes, kCanaryBytes);
    const size_t behind = changed_canary(start + allocation.bytes, allocation.behind());
    if (before != kCanaryBytes)
        fail("wrote %zu bytes before %zu bytes of device memory", kCanaryBytes - before,
             allocation.bytes);
    if (behind != allocation.behind())
        fail("wrote behind device memory: byte %zu of %zu", allocation.bytes + behind,
             allocation.bytes);
}

}  // namespace

uintptr_t allocate(int device, size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (bytes > SIZE_MAX / 2) return 0;
    const size_t open = page + (bytes + kCanaryBytes + page - 1) / page * page;
    void* all = mmap(nullptr, open + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return 0;
    const uintptr_t data = reinterpret_cast<uintptr_t>(all) + 2 * page;
    const Allocation& made = allocations[data] = {device, bytes, open, page};
    protect(data, made, PROT_READ | PROT_WRITE);
    std::memset(start_of(data), kPoison, bytes);
    put_canary(start_of(data) - kCanaryBytes, kCanaryBytes);
    put_canary(start_of(data) + bytes, made.behind());
    protect(data, made, PROT_NONE);
    return data;
}

bool release(uintptr_t data) {
    const auto found = allocations.find(data);
    if (found == allocations.end()) return false;
    const Allocation gone = found->second;
    munmap(start_of(data) - 2 * gone.page, gone.open_bytes + 2 * gone.page);
    allocations.erase(found);
    return true;
}

size_t bytes_allocated(int device) {
    size_t bytes = 0;
    for (const auto& [data, allocation] : allocations)
        if (allocation.device == device) bytes += allocation.bytes;
    return bytes;
}

bool on_device(int device, uintptr_t data, size_t bytes) {
    auto found = allocations.upper_bound(data);
    if (found == allocations.begin()) return false;
    --found;
    const size_t offset = data - found->first, size = found->second.bytes;
    return found->second.device == device && offset <= size && bytes <= size - offset;
}

bool touches_a_device(const void* data, size_t bytes) {
    const auto start = reinterpret_cast<uintptr_t>(data);
    for (const auto& [at, allocation] : allocations)
        if (start < at + allocation.bytes && at < start + bytes) return true;
    return false;
}

Access::Access(int device) : device_(device) {
    for (const auto& [data, allocation] : allocations)
        if (allocation.device == device_) protect(data, allocation, PROT_READ | PROT_WRITE);
}

Access::~Access() {
    for (const auto& [data, allocation] : allocations) {
        if (allocation.device != device_) continue;
        check_canaries(data, allocation);
        protect(data, allocation, PROT_NONE);
    }
}

}  // namespace dtwin::emulator
