/* A disk that fails when told to, put between one process and its C library by LD_PRELOAD.
 *
 * Every call that changes a file below the watched folder is counted, written to a trace with its data, and, when its
 * turn comes, made to fail: not carried out, carried out all the same, or cut short.  Reading is never disturbed.
 * One lock orders the calls, so that the trace is what happened.  Unwatched files pass through untouched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum op { OP_CREATE = 1, OP_LINK, OP_UNLINK, OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_MARK };
enum how { NOT_DONE = 0, DONE = 1, SHORT = 2 };

struct record {
    uint32_t op, name_len;
    uint64_t offset, data_len; /* OP_TRUNCATE: offset is the new length */
    int32_t failed_with, was_done; /* failed_with: the fault's errno; negative where it failed by itself */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char watched[PATH_MAX];
static size_t watched_len;
static int trace_fd = -1;
static long num_calls, fault_at = -1;
static int fault_errno, fault_how, fault_stays;

void disk_watch(const char *folder, int fd) {
    snprintf(watched, sizeof watched, "%s/", folder);
    watched_len = strlen(watched);
    trace_fd = fd;
    num_calls = 0;
}

/* The call number `nth`, counted from 0, fails; `stays`: so does every later one. */
void disk_fault(long nth, int error, int how, int stays) {
    fault_at = nth;
    fault_errno = error;
    fault_how = how;
    fault_stays = stays;
}

static int below_folder(const char *path) {
    if (!watched_len) return 0;
    if (!strncmp(path, watched, watched_len)) return 1;
    return strlen(path) == watched_len - 1 && !strncmp(path, watched, watched_len - 1);
}

static int name_of(int fd, char *name) {
    char link[64];
    if (!watched_len) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, PATH_MAX - 1);
    if (len < 0) return 0;
    name[len] = 0;
    return below_folder(name);
}

static void put(const void *bytes, size_t len) {
    const char *at = bytes;
    while (len) {
        ssize_t done = syscall(SYS_write, trace_fd, at, len);
        if (done <= 0) _exit(70); /* a trace with a hole would prove nothing */
        at += done;
        len -= done;
    }
}

static void trace(enum op op, const char *name, const void *data, size_t len, off_t offset, int error, int done) {
    struct record head = {op, strlen(name), offset, len, error, done};
    if (trace_fd < 0) return;
    put(&head, sizeof head);
    put(name, head.name_len);
    if (len) put(data, len);
}

/* Tell whether this call is to fail. */
static int turn(void) {
    long number = num_calls++;
    return fault_at >= 0 && (fault_stays ? number >= fault_at : number == fault_at);
}

void disk_mark(const char *text) {
    pthread_mutex_lock(&lock);
    trace(OP_MARK, text, NULL, 0, 0, 0, 1);
    pthread_mutex_unlock(&lock);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A call without data: `expression` carries it out; a failed call that was carried out all the same still fails. */
#define CALL(op, name, offset, expression)                                          \
    pthread_mutex_lock(&lock);                                                      \
    int fails = turn(), done = !fails || fault_how == DONE;                         \
    int result = done ? (int)(expression) : 0, error = errno;                       \
    trace(op, name, NULL, 0, offset, fails ? fault_errno : result < 0 ? -error : 0, done && result >= 0); \
    pthread_mutex_unlock(&lock);                                                    \
    errno = fails ? fault_errno : error;                                            \
    return fails ? -1 : result

static ssize_t write_at(int fd, const void *data, size_t len, off_t offset, const char *name,
                        ssize_t (*real)(int, const void *, size_t, off_t)) {
    pthread_mutex_lock(&lock);
    int fails = turn();
    size_t wanted = !fails ? len : fault_how == SHORT ? len / 2 : fault_how == DONE ? len : 0;
    ssize_t result = wanted ? real(fd, data, wanted, offset) : 0;
    int error = errno;
    int told = fails && fault_how != SHORT ? fault_errno : 0;
    trace(OP_WRITE, name, data, result > 0 ? result : 0, offset, told ? told : result < 0 ? -error : 0, result > 0);
    pthread_mutex_unlock(&lock);
    errno = told ? told : error;
    return told ? -1 : result;
}

#define PWRITE(symbol)                                                          \
    ssize_t symbol(int fd, const void *data, size_t len, off_t offset) {        \
        REAL(symbol);                                                           \
        char name[PATH_MAX];                                                    \
        if (!name_of(fd, name)) return real(fd, data, len, offset);             \
        return write_at(fd, data, len, offset, name, real);                     \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

static ssize_t write_here(int fd, const void *data, size_t len, off_t offset) {
    (void)offset;
    return syscall(SYS_write, fd, data, len);
}

ssize_t write(int fd, const void *data, size_t len) {
    char name[PATH_MAX];
    if (fd == trace_fd || !name_of(fd, name)) return syscall(SYS_write, fd, data, len);
    return write_at(fd, data, len, lseek(fd, 0, SEEK_CUR), name, write_here);
}

#define TRUNCATE(symbol)                                             \
    int symbol(int fd, off_t len) {                                  \
        REAL(symbol);                                                \
        char name[PATH_MAX];                                         \
        if (!name_of(fd, name)) return real(fd, len);                \
        CALL(OP_TRUNCATE, name, len, real(fd, len));                 \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

/* A flush is noted and not carried out: what it would have made durable is for the reader of the trace to say. */
#define SYNC(symbol)                                                 \
    int symbol(int fd) {                                             \
        REAL(symbol);                                                \
        char name[PATH_MAX];                                         \
        if (!name_of(fd, name)) return real(fd);                     \
        CALL(OP_SYNC, name, 0, 0);                                   \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    REAL(unlink);
    if (!below_folder(path)) return real(path);
    CALL(OP_UNLINK, path, 0, real(path));
}

int link(const char *from, const char *to) {
    REAL(link);
    if (!below_folder(to)) return real(from, to);
    char both[2 * PATH_MAX];
    snprintf(both, sizeof both, "%s\n%s", from, to);
    CALL(OP_LINK, both, 0, real(from, to));
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    REAL(linkat);
    if (!below_folder(to)) return real(from_fd, from, to_fd, to, flags);
    char both[2 * PATH_MAX];
    snprintf(both, sizeof both, "%s\n%s", from, to);
    CALL(OP_LINK, both, 0, real(from_fd, from, to_fd, to, flags));
}

/* Opening counts where it makes a name. */
#define OPEN(symbol)                                                                        \
    int symbol(const char *path, int flags, ...) {                                          \
        REAL(symbol);                                                                       \
        mode_t mode = 0;                                                                    \
        struct stat status;                                                                 \
        if (flags & O_CREAT) {                                                              \
            va_list arguments;                                                              \
            va_start(arguments, flags);                                                     \
            mode = va_arg(arguments, mode_t);                                               \
            va_end(arguments);                                                              \
        }                                                                                   \
        if (!(flags & O_CREAT) || !below_folder(path) || !stat(path, &status))              \
            return real(path, flags, mode);                                                 \
        pthread_mutex_lock(&lock);                                                          \
        int fails = turn();                                                                 \
        int result = fails ? -1 : real(path, flags, mode), error = errno;                   \
        trace(OP_CREATE, path, NULL, 0, 0, fails ? fault_errno : result < 0 ? -error : 0, result >= 0); \
        pthread_mutex_unlock(&lock);                                                        \
        errno = fails ? fault_errno : error;                                                \
        return result;                                                                      \
    }
OPEN(open)
OPEN(open64)
