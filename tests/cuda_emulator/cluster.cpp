#include "cluster.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "canary.h"
#include "fail.h"
#include "fibers.h"
#include "order.h"

namespace dtwin::emulator {

namespace {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr size_t kGapBytes = 4096;  // canaries on both sides of a block's shared memory

const gpu::EmulatedKernel* first_kernel = nullptr;

enum class At { kRunning, kShuffle, kBarrier, kCluster, kMailbox, kEnd };

struct Thread : gpu::EmulatedThread {
    void* stack_pointer;
    At at;
    const gpu::Mailbox* mailbox;  // where it waits
};

struct Warp {
    int n_shuffling, mask;
    float sent[kLanes], received[kLanes];
};

struct Block {
    int n_at_barrier, n_ended;
    bool started;
};

// What a mailbox holds: a GPU's mbarrier of one arrival, which is expect().
struct Post {
    int32_t missing;      // bytes expected and not here yet; below 0: here before they are expected
    uint16_t deliveries;  // complete ones, modulo 2^16
    uint8_t expected;     // whether expect() was called for the next one
    uint8_t open;         // kOpen

    static constexpr uint8_t kOpen = 0xd7;
    static constexpr int32_t kMostMissing = (1 << 20) - 1;  // as PTX has it
};
static_assert(sizeof(Post) == sizeof(gpu::Mailbox), "it lies in the mailbox");

// A float on its way, which can arrive at any time.
struct Letter {
    float* to;
    float v;
    gpu::Mailbox* mailbox;
    int rank;
};

// The cluster that runs. Its vectors and stacks stay for the next one.
class Cluster {
  public:
    void run(const gpu::EmulatedKernel& kernel, const void* params, const Grid& grid, int first_x,
             int y, Order& order);

    void barrier();
    float shuffle(float v, int mask);
    void cluster_barrier();
    void open(gpu::Mailbox* mailbox);
    void expect(gpu::Mailbox* mailbox, int bytes);
    void send(const Letter& letter);
    void receive(gpu::Mailbox* mailbox, int n);

  private:
    static void entry();
    Thread& self() { return *static_cast<Thread*>(gpu::emulated_thread); }
    int place(const Thread& thread) { return static_cast<int>(&thread - threads_.data()); }
    void give_way(At at);
    void run_warp(int warp);
    bool deliver_all();
    void deliver(const Letter& letter);
    template <class T>
    void check_shared(const T* local);
    template <class T>
    T* peer(T* local, int rank);
    Post take(const gpu::Mailbox* mailbox);
    void put(gpu::Mailbox* mailbox, int rank, Post post);
    char* shared(int block) { return memory_ + static_cast<size_t>(block) * shared_stride_; }
    void start_block(int block);
    void end_block(int block);
    [[noreturn]] void fail_stuck();

    const gpu::EmulatedKernel* kernel_ = nullptr;
    const void* params_ = nullptr;
    Grid grid_ = {};
    void* scheduler_ = nullptr;
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<uint32_t> ready_;  // of each warp: the lanes that can run
    std::vector<Block> blocks_;
    std::vector<char> storage_;
    char* memory_ = nullptr;
    size_t shared_stride_ = 0;
    int n_at_barrier_ = 0;
    std::vector<Letter> letters_;
    Order* order_ = nullptr;
    Stacks stacks_;
};

Cluster& cluster = *new Cluster;

void Cluster::run(const gpu::EmulatedKernel& kernel, const void* params, const Grid& grid,
                  int first_x, int y, Order& order) {
    kernel_ = &kernel;
    params_ = params;
    grid_ = grid;
    n_at_barrier_ = 0;
    order_ = &order;
    const int n_threads = grid.cluster * grid.threads, n_warps = n_threads / kLanes;
    threads_.assign(n_threads, {});
    warps_.assign(n_warps, {});
    ready_.assign(n_warps, kAllLanes);
    blocks_.assign(grid.cluster, {});
    constexpr size_t kAlignment = 256;
    const size_t rounded = (grid.shared_bytes + kAlignment - 1) / kAlignment * kAlignment;
    shared_stride_ = rounded + 2 * kGapBytes;
    storage_.resize(grid.cluster * shared_stride_ + kAlignment);
    const size_t past = reinterpret_cast<uintptr_t>(storage_.data()) % kAlignment;
    memory_ = storage_.data() + (kAlignment - past) + kGapBytes;
    stacks_.reserve(n_threads);
    for (int block = 0; block < grid.cluster; ++block) {
        put_canary(shared(block) - kGapBytes, kGapBytes);
        put_canary(shared(block) + grid.shared_bytes, kGapBytes);
        for (int i = 0; i < grid.threads; ++i) {
            Thread& thread = threads_[block * grid.threads + i];
            thread.index = i;
            thread.count = grid.threads;
            thread.block_x = first_x + block;
            thread.block_y = y;
            thread.cluster_rank = block;
            thread.shared = shared(block);
            thread.stack_pointer = stacks_.begin(place(thread), entry);
        }
    }
    int warp = -1;
    do {
        while ((warp = order_->first(ready_.data(), n_warps, warp)) >= 0) run_warp(warp);
    } while (deliver_all());
    for (const Block& block : blocks_)
        if (block.n_ended != grid.threads) fail_stuck();
}

void Cluster::run_warp(int warp) {
    const int block = warp * kLanes / grid_.threads;
    if (!blocks_[block].started) start_block(block);
    int lanes[kLanes];
    order_->arrange(lanes, kLanes);
    const uint32_t ready = std::exchange(ready_[warp], 0);
    for (const int lane : lanes) {
        if (!(ready >> lane & 1)) continue;
        Thread& thread = threads_[warp * kLanes + lane];
        thread.at = At::kRunning;
        gpu::emulated_thread = &thread;
        dtwin_emulator_switch(&scheduler_, thread.stack_pointer);
    }
    if (blocks_[block].n_ended == grid_.threads) end_block(block);
}

void Cluster::entry() {
    cluster.kernel_->run(cluster.params_);
    const Thread& self = cluster.self();
    ++cluster.blocks_[self.cluster_rank].n_ended;
    cluster.give_way(At::kEnd);
}

void Cluster::give_way(At at) {
    Thread& thread = self();
    thread.at = at;
    dtwin_emulator_switch(&thread.stack_pointer, scheduler_);
}

void Cluster::start_block(int block) {
    blocks_[block].started = true;
    std::memset(shared(block), kPoison, grid_.shared_bytes);
}

void Cluster::end_block(int block) {
    const Thread& thread = threads_[block * grid_.threads];
    const size_t before = changed_canary(shared(block) - kGapBytes, kGapBytes);
    const size_t behind = changed_canary(shared(block) + grid_.shared_bytes, kGapBytes);
    if (before != kGapBytes)
        fail("block %d, %d: wrote %zu bytes before its shared memory", thread.block_x,
             thread.block_y, kGapBytes - before);
    if (behind != kGapBytes)
        fail("block %d, %d: wrote behind its shared memory: byte %zu of %zu", thread.block_x,
             thread.block_y, grid_.shared_bytes + behind, grid_.shared_bytes);
}

void Cluster::fail_stuck() {
    constexpr std::pair<At, const char*> kPlaces[] = {
        {At::kShuffle, "in shuffle_xor"},     {At::kBarrier, "at block_barrier"},
        {At::kCluster, "at cluster_barrier"}, {At::kMailbox, "in receive"},
        {At::kEnd, "at their end"},
    };
    std::string text;
    for (const auto& [at, words] : kPlaces) {
        const auto is_there = [at = at](const Thread& thread) { return thread.at == at; };
        const auto first = std::find_if(threads_.begin(), threads_.end(), is_there);
        if (first == threads_.end()) continue;
        const auto n = std::count_if(threads_.begin(), threads_.end(), is_there);
        text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + words + " (first: block " +
                std::to_string(first->block_x) + ", " + std::to_string(first->block_y) +
                ", thread " + std::to_string(first->index) + ")";
    }
    fail("threads wait for others for ever: %s", text.c_str());
}

void Cluster::barrier() {
    const Thread& thread = self();
    Block& block = blocks_[thread.cluster_rank];
    if (++block.n_at_barrier == grid_.threads) {
        block.n_at_barrier = 0;
        const int n_warps = grid_.threads / kLanes;
        std::fill_n(ready_.begin() + thread.cluster_rank * n_warps, n_warps, kAllLanes);
    }
    give_way(At::kBarrier);
}

float Cluster::shuffle(float v, int mask) {
    const int at = place(self()), lane = at % kLanes;
    Warp& warp = warps_[at / kLanes];
    if (mask < 0 || mask >= kLanes) fail("shuffle_xor with mask %d", mask);
    if (warp.n_shuffling == 0) warp.mask = mask;
    if (warp.mask != mask)
        fail("shuffle_xor with masks %d and %d in one warp (block %d, %d, thread %d)", warp.mask,
             mask, self().block_x, self().block_y, self().index);
    warp.sent[lane] = v;
    if (++warp.n_shuffling == kLanes) {
        warp.n_shuffling = 0;
        for (int i = 0; i < kLanes; ++i) warp.received[i] = warp.sent[i ^ mask];
        ready_[at / kLanes] = kAllLanes;
    }
    give_way(At::kShuffle);
    return warp.received[lane];
}

void Cluster::cluster_barrier() {
    if (!grid_.clusters_exist) return;
    if (++n_at_barrier_ == static_cast<int>(threads_.size())) {
        n_at_barrier_ = 0;
        std::fill(ready_.begin(), ready_.end(), kAllLanes);
    }
    give_way(At::kCluster);
}

template <class T>
void Cluster::check_shared(const T* local) {
    const Thread& thread = self();
    const char* start = reinterpret_cast<const char*>(local);
    const char* end = thread.shared + grid_.shared_bytes;
    if (start < thread.shared || start + sizeof(T) > end || (start - thread.shared) % sizeof(T))
        fail("block %d, %d, thread %d: not an aligned place in its shared memory", thread.block_x,
             thread.block_y, thread.index);
}

// Where `local`, in the running block's shared memory, lies in that of block `rank`.
template <class T>
T* Cluster::peer(T* local, int rank) {
    check_shared(local);
    if (rank < 0 || rank >= grid_.cluster) fail("block %d of a cluster of %d", rank, grid_.cluster);
    const std::ptrdiff_t offset = reinterpret_cast<char*>(local) - self().shared;
    return reinterpret_cast<T*>(shared(rank) + offset);
}

Post Cluster::take(const gpu::Mailbox* mailbox) {
    Post post;
    std::memcpy(&post, mailbox, sizeof post);
    if (post.open != Post::kOpen) fail("the mailbox is not open");
    return post;
}

// Back into the mailbox of block `rank`, and on to the next delivery if this one is complete.
void Cluster::put(gpu::Mailbox* mailbox, int rank, Post post) {
    if (std::abs(post.missing) > Post::kMostMissing)
        fail("a mailbox counts at most %d bytes", Post::kMostMissing);
    const bool complete = post.expected && post.missing == 0;
    if (complete) {
        ++post.deliveries;
        post.expected = 0;
    }
    std::memcpy(mailbox, &post, sizeof post);
    if (!complete) return;
    for (int i = rank * grid_.threads; i < (rank + 1) * grid_.threads; ++i)
        if (threads_[i].at == At::kMailbox && threads_[i].mailbox == mailbox)
            ready_[i / kLanes] |= 1u << i % kLanes;
}

void Cluster::open(gpu::Mailbox* mailbox) {
    if (!grid_.clusters_exist) return;
    check_shared(mailbox);
    put(mailbox, self().cluster_rank, {0, 0, 0, Post::kOpen});
}

void Cluster::expect(gpu::Mailbox* mailbox, int bytes) {
    if (!grid_.clusters_exist) return;
    check_shared(mailbox);
    Post post = take(mailbox);
    if (post.expected) fail("expect() twice for one delivery");
    post.expected = 1;
    post.missing += bytes;
    put(mailbox, self().cluster_rank, post);
}

void Cluster::send(const Letter& letter) {
    if (!grid_.clusters_exist) return;
    const Letter abroad = {peer(letter.to, letter.rank), letter.v,
                           peer(letter.mailbox, letter.rank), letter.rank};
    if (order_->now())
        deliver(abroad);
    else
        letters_.push_back(abroad);
}

// Once no thread can go on without them: whether there were any.
bool Cluster::deliver_all() {
    std::vector<Letter> letters;
    letters.swap(letters_);
    std::vector<int> turns(letters.size());
    order_->arrange(turns.data(), static_cast<int>(turns.size()));
    for (const int turn : turns) deliver(letters[turn]);
    return !letters.empty();
}

void Cluster::deliver(const Letter& letter) {
    const Block& block = blocks_[letter.rank];
    if (!block.started) fail("sent to block %d of the cluster before it began", letter.rank);
    if (block.n_ended == grid_.threads)
        fail("sent to block %d of the cluster, which has ended", letter.rank);
    Post post = take(letter.mailbox);
    *letter.to = letter.v;
    post.missing -= static_cast<int>(sizeof letter.v);
    put(letter.mailbox, letter.rank, post);
}

// A GPU tells deliveries apart by one bit: it would take the one before last for this one.
void Cluster::receive(gpu::Mailbox* mailbox, int n) {
    if (!grid_.clusters_exist) return;
    check_shared(mailbox);
    Thread& thread = self();
    const auto wanted = static_cast<uint16_t>(n), next = static_cast<uint16_t>(n + 1);
    while (take(mailbox).deliveries != next) {
        if (take(mailbox).deliveries != wanted)
            fail("block %d, %d, thread %d: waits for delivery %d when %d are there", thread.block_x,
                 thread.block_y, thread.index, n, take(mailbox).deliveries);
        thread.mailbox = mailbox;
        give_way(At::kMailbox);
    }
}

}  // namespace

const gpu::EmulatedKernel* find_kernel(const char* name) {
    const gpu::EmulatedKernel* kernel = first_kernel;
    while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
    return kernel;
}

void run_grid(const gpu::EmulatedKernel& kernel, const void* params, const Grid& grid) {
    Order order = Order::from_environment();
    const int row = grid.blocks_x / grid.cluster;
    std::vector<int> turns(static_cast<size_t>(row) * grid.blocks_y);
    order.arrange(turns.data(), static_cast<int>(turns.size()));
    for (const int turn : turns)
        cluster.run(kernel, params, grid, turn % row * grid.cluster, turn / row, order);
    gpu::emulated_thread = nullptr;
}

}  // namespace dtwin::emulator

namespace dtwin::gpu {

EmulatedThread* emulated_thread = nullptr;

EmulatedKernel::EmulatedKernel(const char* name, size_t params_bytes, int most_threads,
                               void (*run)(const void* params))
    : name(name),
      params_bytes(params_bytes),
      most_threads(most_threads),
      run(run),
      next(emulator::first_kernel) {
    if (emulator::find_kernel(name)) emulator::fail("two kernels are called %s", name);
    emulator::first_kernel = this;
}

void block_barrier() { emulator::cluster.barrier(); }
float shuffle_xor(float v, int mask) { return emulator::cluster.shuffle(v, mask); }
void cluster_barrier() { emulator::cluster.cluster_barrier(); }
void open_mailbox(Mailbox* mailbox) { emulator::cluster.open(mailbox); }
void expect(Mailbox* mailbox, int bytes) { emulator::cluster.expect(mailbox, bytes); }
void send(float* to, float v, Mailbox* mailbox, int rank) {
    emulator::cluster.send({to, v, mailbox, rank});
}
void receive(Mailbox* mailbox, int n) { emulator::cluster.receive(mailbox, n); }

}  // namespace dtwin::gpu
