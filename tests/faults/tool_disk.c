/* Runs a program and makes one of its calls to the disk fail.
 *
 *     tool_disk KIND K COUNT COMMAND...
 *
 * Calls are counted over all threads, in the order in which they begin: open for writing or of a
 * folder, write, fsync, fdatasync, ftruncate, rename, mkdir; only those on files, not on sockets,
 * pipes or the standard streams. What becomes of call K (1 is the first):
 *   enospc, eio, eintr   it is not done and says so
 *   full                 this and all later opens and writes say ENOSPC
 *   short                a write does half of it
 *   kill                 the program gets SIGKILL just before it
 *   torn                 a write does half of it, and the next call is the one before which it is
 * killed none                 nothing The number of calls is written to the file COUNT. The exit
 * status is the program's (128 + signal if one ended it), 77 where the system does not allow this
 * or is not x86-64.
 *
 * By ptrace and a seccomp filter, so that calls from within libc (stdio) are seen too, and without
 * reading the program's memory, which it forbids. */
#define _GNU_SOURCE
#include <stdio.h>

#ifndef __x86_64__
int main(void)
{
    puts("skipped: knows the registers of x86-64 only");
    return 77;
}
#else

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FD = 4096, MAX_THREADS = 1024 };

static const int traced[] = {SYS_open,      SYS_openat,  SYS_creat,    SYS_write,
                             SYS_pwrite64,  SYS_writev,  SYS_fsync,    SYS_fdatasync,
                             SYS_ftruncate, SYS_rename,  SYS_renameat, SYS_renameat2,
                             SYS_mkdir,     SYS_mkdirat, SYS_close};

struct injector {
    const char *kind;
    long at, n;                 /* the call to disturb; calls so far */
    bool is_file[MAX_FD];       /* descriptors that were opened for writing */
    pid_t opening[MAX_THREADS]; /* threads that are inside such an open */
    pid_t child;
};

/* ---- the program's side ---- */

static void install_filter(void)
{
    enum { N = sizeof traced / sizeof traced[0] };
    struct sock_filter code[N + 6];
    size_t n = 0;
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, N + 1);
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)traced[i],
                                                 (uint8_t)(N - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    const struct sock_fprog program = {(unsigned short)n, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

static void run_program(char **argv)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(77);
    raise(SIGSTOP); /* until the tracer has set its options */
    install_filter();
    execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

/* ---- the tracer's side ---- */

static bool is_open(long long number)
{
    return number == SYS_open || number == SYS_openat || number == SYS_creat;
}

static bool writes(const struct injector *x, long long number, unsigned long long fd)
{
    bool is = number == SYS_write || number == SYS_pwrite64 || number == SYS_writev;
    return is && fd < MAX_FD && x->is_file[fd];
}

static bool opens_for_writing(const struct user_regs_struct *r)
{
    if ((long long)r->orig_rax == SYS_creat)
        return true;
    unsigned long long flags = (long long)r->orig_rax == SYS_open ? r->rsi : r->rdx;
    return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;
}

static bool opens_folder(const struct user_regs_struct *r)
{
    return ((long long)r->orig_rax == SYS_open ? r->rsi : r->rdx) & O_DIRECTORY;
}

static bool is_counted(const struct injector *x, const struct user_regs_struct *r)
{
    long long number = (long long)r->orig_rax;
    if (is_open(number))
        return opens_for_writing(r) || opens_folder(r);
    if (number == SYS_write || number == SYS_pwrite64 || number == SYS_writev)
        return writes(x, number, r->rdi);
    return number != SYS_close;
}

static pid_t *find_opening(struct injector *x, pid_t thread)
{
    for (size_t i = 0; i < MAX_THREADS; i++)
        if (x->opening[i] == thread)
            return &x->opening[i];
    return NULL;
}

/* A call that is answered in the program's place: number -1 is skipped (seccomp(2)). */
static void answer(pid_t thread, struct user_regs_struct *r, int error)
{
    r->orig_rax = (unsigned long long)-1;
    r->rax = (unsigned long long)-error;
    ptrace(PTRACE_SETREGS, thread, NULL, r);
}

/* Whether the call was answered. */
static bool disturb(struct injector *x, pid_t thread, struct user_regs_struct *r)
{
    long long number = (long long)r->orig_rax;
    bool here = x->n == x->at;
    if (strcmp(x->kind, "full") == 0 && x->n >= x->at &&
        (writes(x, number, r->rdi) || (is_open(number) && opens_for_writing(r)))) {
        answer(thread, r, ENOSPC);
        return true;
    }
    if (!here)
        return false;
    if (strcmp(x->kind, "kill") == 0)
        kill(x->child, SIGKILL);
    bool torn = strcmp(x->kind, "torn") == 0;
    if ((torn || strcmp(x->kind, "short") == 0) &&
        (number == SYS_write || number == SYS_pwrite64) && r->rdx > 1) {
        r->rdx /= 2;
        ptrace(PTRACE_SETREGS, thread, NULL, r);
    }
    if (torn) {
        x->kind = "kill";
        x->at++;
    }
    int error = strcmp(x->kind, "enospc") == 0  ? ENOSPC
                : strcmp(x->kind, "eio") == 0   ? EIO
                : strcmp(x->kind, "eintr") == 0 ? EINTR
                                                : 0;
    if (error)
        answer(thread, r, error);
    return error != 0;
}

/* A thread is about to make a traced call. */
static void on_call(struct injector *x, pid_t thread)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, thread, NULL, &r) != 0)
        return;
    if ((long long)r.orig_rax == SYS_close && r.rdi < MAX_FD)
        x->is_file[r.rdi] = false;
    bool tracks = is_open((long long)r.orig_rax) && opens_for_writing(&r), answered = false;
    if (is_counted(x, &r)) {
        x->n++;
        answered = disturb(x, thread, &r);
    }
    pid_t *slot = tracks && !answered ? find_opening(x, 0) : NULL;
    if (slot)
        *slot = thread;
    ptrace(slot ? PTRACE_SYSCALL : PTRACE_CONT, thread, NULL, NULL); /* SYSCALL: also its end */
}

/* A thread's open has ended. */
static void on_opened(struct injector *x, pid_t thread)
{
    struct user_regs_struct r;
    pid_t *slot = find_opening(x, thread);
    if (slot && ptrace(PTRACE_GETREGS, thread, NULL, &r) == 0 && (long long)r.rax > 2 &&
        r.rax < MAX_FD)
        x->is_file[r.rax] = true;
    if (slot)
        *slot = 0;
    ptrace(PTRACE_CONT, thread, NULL, NULL);
}

static int trace(struct injector *x)
{
    for (;;) {
        int status;
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0 && errno == EINTR)
            continue;
        if (thread < 0)
            return 1;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == x->child)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP)
            on_call(x, thread);
        else if (signal == (SIGTRAP | 0x80))
            on_opened(x, thread);
        else if (event || signal == SIGSTOP) /* a new thread, or the first stop of one */
            ptrace(PTRACE_CONT, thread, NULL, NULL);
        else
            ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)signal);
    }
}

int main(int argc, char **argv)
{
    static struct injector x;
    int status;
    if (argc < 5) {
        fprintf(stderr, "usage: tool_disk KIND K COUNT COMMAND...\n");
        return 2;
    }
    x.kind = argv[1];
    x.at = strtol(argv[2], NULL, 10);
    x.child = fork();
    if (x.child == 0)
        run_program(argv + 4);
    if (x.child < 0 || waitpid(x.child, &status, 0) < 0)
        return 1;
    if (WIFEXITED(status)) {
        puts("skipped: this system allows no ptrace");
        return WEXITSTATUS(status);
    }
    ptrace(PTRACE_SETOPTIONS, x.child, NULL,
           (void *)(intptr_t)(PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE |
                              PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC |
                              PTRACE_O_EXITKILL));
    ptrace(PTRACE_CONT, x.child, NULL, NULL);
    int code = trace(&x);
    FILE *count = fopen(argv[3], "w");
    if (!count)
        return 1;
    fprintf(count, "%ld\n", x.n);
    return fclose(count) == 0 ? code : 1;
}
#endif
