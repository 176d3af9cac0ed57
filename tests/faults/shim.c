/* An LD_PRELOAD library: the n-th call that writes below a folder fails, or ends the process.
 *
 *   FAULTS_FOLDER  calls below this absolute path count; without it none does
 *   FAULTS_JOURNAL a file of zeros: a counter that all processes share, where the text ends, and
 *                  for each call a line "number kind path"
 *   FAULTS_AT      the number of the call that fails, from 1; without it none does
 *   FAULTS_ACTION  ENOSPC, EIO, EDQUOT: this call fails with it
 *                  full: this call and all later ones that need space fail with ENOSPC
 *                  short: this write and all later ones write half of their bytes
 *                  kill: SIGKILL to the process group, half-way through a write and before any
 *                  other call
 *
 * faults_arm() reads these again, for a process that was forked. Paths are compared as they are
 * given, so the folder must be given to the process as an absolute one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    char folder[PATH_MAX];
    size_t length;
    long at;
    char action[16];
    int error;
    char *journal;
    size_t journal_bytes;
} plan;

/* The journal's first bytes. */
struct head {
    atomic_long calls;
    atomic_long end;
};

static void stop(const char *why) {
    dprintf(2, "tests/faults/shim.c: %s: %s\n", why, strerror(errno));
    _exit(99);
}

void faults_arm(void) {
    const char *folder = getenv("FAULTS_FOLDER"), *journal = getenv("FAULTS_JOURNAL");
    const char *at = getenv("FAULTS_AT"), *action = getenv("FAULTS_ACTION");
    plan.length = 0;
    if (!folder || !journal) return;
    snprintf(plan.folder, sizeof plan.folder, "%s", folder);
    snprintf(plan.action, sizeof plan.action, "%s", action ? action : "");
    plan.at = at ? atol(at) : 0;
    plan.error = !strcmp(plan.action, "EIO") ? EIO : !strcmp(plan.action, "EDQUOT") ? EDQUOT : ENOSPC;
    int file = (int)syscall(SYS_openat, AT_FDCWD, journal, O_RDWR | O_CLOEXEC);
    struct stat info;
    if (file < 0 || fstat(file, &info)) stop(journal);
    plan.journal_bytes = (size_t)info.st_size;
    plan.journal = mmap(NULL, plan.journal_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (plan.journal == MAP_FAILED) stop("mmap");
    close(file);
    plan.length = strlen(plan.folder);
}

__attribute__((constructor)) static void on_load(void) { faults_arm(); }

static int below(const char *path) {
    return plan.length && path && !strncmp(path, plan.folder, plan.length) &&
           (path[plan.length] == '/' || path[plan.length] == 0);
}

static const char *path_of(int file, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = plan.length ? readlink(link, buffer, PATH_MAX - 1) : -1;
    if (length < 0) return NULL;
    buffer[length] = 0;
    return buffer;
}

static void die(void) {
    kill(0, SIGKILL);
    for (;;) pause();
}

enum verdict { WORK, FAIL, HALF, HALF_AND_DIE };

/* What becomes of this call; writes say so, since they can be done by halves. */
static enum verdict judge(const char *kind, const char *path, int writes) {
    if (!below(path)) return WORK;
    struct head *head = (struct head *)plan.journal;
    long number = atomic_fetch_add(&head->calls, 1) + 1;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, kind, path);
    size_t place = sizeof *head + (size_t)atomic_fetch_add(&head->end, length);
    if (place + (size_t)length > plan.journal_bytes) stop("the journal is full");
    memcpy(plan.journal + place, line, (size_t)length);
    if (!plan.at || number < plan.at) return WORK;
    if (!strcmp(plan.action, "full")) return strcmp(kind, "fsync") ? FAIL : WORK;
    if (!strcmp(plan.action, "short")) return writes ? HALF : WORK;
    if (number > plan.at) return WORK;
    if (strcmp(plan.action, "kill")) return FAIL;
    if (writes) return HALF_AND_DIE;
    die();
    return FAIL;
}

static int failed(void) {
    errno = plan.error;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t count) {
    char buffer[PATH_MAX];
    switch (judge("write", path_of(file, buffer), 1)) {
    case FAIL: return failed();
    case HALF: count = (count + 1) / 2; break;
    case HALF_AND_DIE: syscall(SYS_write, file, data, count / 2); die();
    case WORK: break;
    }
    return syscall(SYS_write, file, data, count);
}

static ssize_t write_at(int file, const void *data, size_t count, off_t offset) {
    char buffer[PATH_MAX];
    switch (judge("pwrite", path_of(file, buffer), 1)) {
    case FAIL: return failed();
    case HALF: count = (count + 1) / 2; break;
    case HALF_AND_DIE: syscall(SYS_pwrite64, file, data, count / 2, offset); die();
    case WORK: break;
    }
    return syscall(SYS_pwrite64, file, data, count, offset);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t offset) {
    return write_at(file, data, count, offset);
}
ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) {
    return write_at(file, data, count, offset);
}

#define ON_FILE(name, parameters, arguments, kind)                       \
    int name parameters {                                                \
        char buffer[PATH_MAX];                                           \
        if (judge(kind, path_of(file, buffer), 0)) return failed();      \
        return REAL(name) arguments;                                     \
    }
ON_FILE(fsync, (int file), (file), "fsync")
ON_FILE(fdatasync, (int file), (file), "fsync")
ON_FILE(ftruncate, (int file, off_t length), (file, length), "ftruncate")
ON_FILE(ftruncate64, (int file, off64_t length), (file, length), "ftruncate")

#define ON_PATH(name, parameters, arguments, path, kind)  \
    int name parameters {                                 \
        if (judge(kind, path, 0)) return failed();        \
        return REAL(name) arguments;                      \
    }
ON_PATH(rename, (const char *from, const char *to), (from, to), to, "rename")
ON_PATH(renameat, (int d, const char *from, int e, const char *to), (d, from, e, to), to, "rename")
ON_PATH(link, (const char *from, const char *to), (from, to), to, "link")
ON_PATH(linkat, (int d, const char *from, int e, const char *to, int flags),
        (d, from, e, to, flags), to, "link")

/* A folder that is there already is nothing to be written. */
static int is_there(const char *path) {
    struct stat info;
    return !lstat(path, &info);
}
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), is_there(path) ? NULL : path,
        "mkdir")

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    if ((flags & O_CREAT) && judge("open", path, 0)) return failed();
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN(name, parameters, folder)                                \
    int name(parameters const char *path, int flags, ...) {           \
        va_list more;                                                 \
        va_start(more, flags);                                        \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                 \
        return open_at(folder, path, flags, mode);                    \
    }
#define COMMA ,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, int folder COMMA, folder)
OPEN(openat64, int folder COMMA, folder)
