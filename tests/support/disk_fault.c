/* Preloaded: below the folder $FAULT_FOLDER writes fail with EIO after $FAULT_BYTES bytes; fsync then fails too.
   With $FAULT_SYNC=1 writes succeed, as those into memory do, and only fsync says that the disk has failed.
   Below the folder $FAULT_READS the rank $FAULT_RANK of a Slurm job can open no file (EIO) while $FAULT_WHILE exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long written;

static int below(int descriptor)
{
    const char *folder = getenv("FAULT_FOLDER");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!folder || length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int failed(void)
{
    return written > atol(getenv("FAULT_BYTES"));
}

static int fails(int descriptor, size_t count)
{
    if (!below(descriptor))
        return 0;
    written += count;
    return failed() && !getenv("FAULT_SYNC");
}

ssize_t write(int descriptor, const void *data, size_t count)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "write");
    if (fails(descriptor, count)) {
        errno = EIO;
        return -1;
    }
    return next(descriptor, data, count);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "pwrite64");
    if (fails(descriptor, count)) {
        errno = EIO;
        return -1;
    }
    return next(descriptor, data, count, offset);
}

int fsync(int descriptor)
{
    static int (*next)(int);
    if (!next)
        next = dlsym(RTLD_NEXT, "fsync");
    if (below(descriptor) && failed()) {
        errno = EIO;
        return -1;
    }
    return next(descriptor);
}

static int unreadable(const char *path)
{
    const char *folder = getenv("FAULT_READS"), *flag = getenv("FAULT_WHILE"), *rank = getenv("SLURM_PROCID");
    if (!folder || !flag || !rank || !getenv("SLURM_STEP_NODELIST") || strcmp(rank, getenv("FAULT_RANK")))
        return 0;
    if (strncmp(path, folder, strlen(folder)) || path[strlen(folder)] != '/' || access(flag, F_OK))
        return 0;
    errno = EIO;
    return 1;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        static int (*next)(const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        if (!next) \
            next = dlsym(RTLD_NEXT, #name); \
        return unreadable(path) ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        static FILE *(*next)(const char *, const char *); \
        if (!next) \
            next = dlsym(RTLD_NEXT, #name); \
        return unreadable(path) ? NULL : next(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)
