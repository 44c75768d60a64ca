/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"

#define LONG_MS 20000u

/* ---- a driver whose VMM is a shell script ---------------------------------------------------------------------- */

static char folder[64];
static char calls[32];     /* a letter an operation */
static int answer;         /* of the next operation */
static bool dies;          /* the VMM ends in the next operation */
static const char *script; /* what it is */
static uint64_t latest_ns; /* the deadline of the last operation */
static struct vmm *vm;

static int operation(struct vmm *v, char letter, uint64_t deadline_ns)
{
    size_t n = strlen(calls);

    assert_true(n + 1 < sizeof(calls));
    calls[n] = letter;
    latest_ns = deadline_ns;
    if (dies) {
        assert_int_equal(child_signal(v->id, SIGTERM), 0);
        assert_int_equal(child_wait_end(v->id, LONG_MS), 0);
    }
    return answer < 0 ? err_origin(answer, "it was asked for '%c'", letter) : answer;
}

static int fake_start(struct vmm *v, bool loads, uint64_t deadline_ns)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    int r = vmm_spawn(v, argv, NULL, -1, -1);

    return r < 0 ? r : operation(v, loads ? 'L' : 'S', deadline_ns);
}

static int fake_boot(struct vmm *v, uint64_t deadline_ns)
{
    return operation(v, 'b', deadline_ns);
}

static int fake_load(struct vmm *v, bool resume, uint64_t deadline_ns)
{
    return operation(v, resume ? 'r' : 'l', deadline_ns);
}

static int fake_snapshot(struct vmm *v, bool with_memory, uint64_t deadline_ns)
{
    char path[256];

    assert_int_equal(vmm_path(v, VMM_FILE_STATE, path, sizeof(path)), 0);
    assert_int_equal(file_replace(path, "state", 5), 0);
    return operation(v, with_memory ? 'M' : 'm', deadline_ns);
}

static int fake_state(struct vmm *v, enum vmm_run_state *out, uint64_t deadline_ns)
{
    *out = VMM_PAUSED;
    return operation(v, 's', deadline_ns);
}

static int fake_balloon_set(struct vmm *v, unsigned mib, uint64_t deadline_ns)
{
    (void)mib;
    return operation(v, 'B', deadline_ns);
}

static int fake_console_write(struct vmm *v, const char *text, size_t len, uint64_t deadline_ns)
{
    (void)text;
    (void)len;
    return operation(v, 'c', deadline_ns);
}

static int fake_hint(struct vmm *v, uint64_t deadline_ns)
{
    return operation(v, 'h', deadline_ns);
}

static int fake_check(const struct vmm_spec *spec, const char *version)
{
    return spec->machine ? err_origin(-EINVAL, "machine: %s has none", version) : 0;
}

static const char *fake_meaning(int status)
{
    return status == 148 ? "a system call that it may not make" : NULL;
}

static const struct vmm_driver fake = {
    .name = "fake",
    .program = "sh",
    .knows_jail = true,
    .check = fake_check,
    .start = fake_start,
    .boot = fake_boot,
    .load = fake_load,
    .pause = fake_boot,
    .resume = fake_boot,
    .snapshot = fake_snapshot,
    .state = fake_state,
    .balloon_set = fake_balloon_set,
    .hint = fake_hint,
    .console_write = fake_console_write,
    .exit_meaning = fake_meaning,
};

static const struct vmm_spec plain = {.memory_mib = 64, .n_vcpus = 1, .free_page_hinting = true};

static const char *in_folder(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(file_replace(in_folder(name), text, strlen(text)), 0);
}

static int setup(void **state)
{
    (void)state;
    memset(calls, 0, sizeof(calls));
    answer = 0;
    dies = false;
    script = "echo its own words >&2; exec sleep 60";
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-driver.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    put(VMM_FILE_KERNEL, "kernel");
    put(VMM_FILE_STATE, "state");
    return vmm_new(&vm, &fake, &plain, folder);
}

static int teardown(void **state)
{
    DIR *dir = opendir(folder);
    struct dirent *e;

    (void)state;
    assert_int_equal(vmm_kill(vm, LONG_MS), 0);
    if (vm->id.pid != 0) { /* its keeper writes into the folder */
        char how[256];

        vmm_end_text(vm, how, sizeof(how));
    }
    vm = vmm_free(vm);
    while (dir && (e = readdir(dir)))
        (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    return rmdir(folder);
}

static void start(void)
{
    assert_int_equal(vmm_start(vm, false, LONG_MS), 0);
    assert_false(vmm_has_ended(vm));
}

/* wait_for_words() - until the script has said what it says */
static void wait_for_words(void)
{
    uint64_t deadline_ns = clock_now_ns() + LONG_MS * NS_PER_MS;
    char line[64] = "";

    while (line[0] == '\0') {
        assert_true(clock_left_ms(deadline_ns) > 0);
        (void)usleep(1000);
        log_last_line(in_folder(VMM_FILE_LOG), line, sizeof(line));
    }
}

/* ---- before there is a VM -------------------------------------------------------------------------------------- */

static int check(const struct vmm_spec *spec)
{
    return vmm_driver_check(&fake, spec, "fake 1.0");
}

static void a_spec_that_no_vm_can_be_made_of_is_refused_by_field(void **state)
{
    struct vmm_spec spec = plain;
    struct vmm *none = NULL;

    (void)state;
    assert_int_equal(check(&spec), 0);
    spec.memory_mib = VMM_MEMORY_MIB_MIN - 1;
    assert_int_equal(check(&spec), -EINVAL);
    assert_non_null(strstr(err_text(), "memory: 31 MiB, at least 32"));
    assert_int_equal(vmm_new(&none, &fake, &spec, folder), -EINVAL);
    spec.memory_mib = 65;
    assert_int_equal(check(&spec), 0);
    spec.huge_pages = true;
    assert_int_equal(check(&spec), -EINVAL);
    assert_non_null(strstr(err_text(), "huge pages"));
    spec = plain;
    spec.n_vcpus = 0;
    assert_int_equal(check(&spec), -EINVAL);
    assert_non_null(strstr(err_text(), "vcpus: 0"));
    spec = plain;
    spec.machine = "pc";
    assert_int_equal(check(&spec), -EINVAL);
    assert_non_null(strstr(err_text(), "machine: fake 1.0 has none"));
    assert_null(vmm_driver_find("no-such-vmm"));
    assert_string_equal(vmm_driver_name(&fake), "fake");
}

static void a_jail_has_an_id_and_a_driver_that_knows_it(void **state)
{
    static char long_id[66] = "";
    static const char *const bad[] = {"", "a/b", "a_b", "..", long_id};
    struct vmm_jail jail = {.id = "a-1", .chroot_base = "/srv/jails", .cgroup_version = 2};
    struct vmm_driver free_one = fake;
    struct vmm_spec spec = plain;

    (void)state;
    memset(long_id, 'x', sizeof(long_id) - 1);
    spec.jail = &jail;
    assert_int_equal(check(&spec), 0);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        jail.id = bad[i];
        assert_int_equal(check(&spec), -EINVAL);
    }
    jail.id = "a-1";
    jail.cgroup_version = 3;
    assert_int_equal(check(&spec), -EINVAL);
    jail.cgroup_version = 2;
    free_one.knows_jail = false;
    assert_int_equal(vmm_driver_check(&free_one, &spec, ""), -EINVAL);
}

static void a_vm_has_a_copy_of_its_spec(void **state)
{
    static const char *const cgroups[] = {"memory.max=1", "cpu.max=2"};
    char program[] = "/bin/sh", id[] = "one";
    struct vmm_jail jail = {.id = id, .chroot_base = "/srv", .cgroups = cgroups, .n_cgroups = 2};
    struct vmm_spec spec = plain;
    struct vmm *copy = NULL;

    (void)state;
    spec.program = program;
    spec.jail = &jail;
    assert_int_equal(vmm_new(&copy, &fake, &spec, folder), 0);
    memset(program, 'x', sizeof(program) - 1);
    memset(id, 'x', sizeof(id) - 1);
    memset(&jail, 0, sizeof(jail));
    assert_string_equal(vmm_program(copy), "/bin/sh");
    assert_string_equal(copy->spec.jail->id, "one");
    assert_string_equal(copy->spec.jail->cgroups[1], "cpu.max=2");
    assert_string_equal(vmm_root(copy), folder);
    assert_null(vmm_free(copy));
    assert_null(vmm_free(NULL));
    assert_int_equal(vmm_new(&copy, &fake, &plain, "/nowhere"), -ENOENT);
}

/* version_of() - of a program that prints @text */
static const char *version_of(const char *text)
{
    static char out[512];
    char line[256], *version = NULL;
    int r;

    (void)snprintf(line, sizeof(line), "#!/bin/sh\ncat <<'END'\n%s\nEND\n", text);
    put("program", line);
    assert_int_equal(chmod(in_folder("program"), 0755), 0);
    r = vmm_program_version(&fake, in_folder("program"), &version);
    (void)snprintf(out, sizeof(out), "%s", r == 0 ? version : err_text());
    free(version);
    return out;
}

static void the_version_is_the_first_word_that_looks_like_one(void **state)
{
    char *version;

    (void)state;
    assert_string_equal(version_of("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), "7.2.22");
    assert_string_equal(version_of("Firecracker v1.14.1\n\nformats: v8.0.0"), "1.14.1");
    assert_string_equal(version_of("v1.15.0-dev_abc"), "1.15.0-dev_abc");
    assert_non_null(strstr(version_of("no number"), "names no version: no number"));
    assert_int_equal(vmm_program_version(&fake, "/nowhere/vmm", &version), -ENOENT);
}

/* ---- its life -------------------------------------------------------------------------------------------------- */

static void a_new_life_begins_without_the_files_of_the_last_one(void **state)
{
    static const char *const stale[] = {VMM_FILE_API, VMM_FILE_SERIAL, VMM_FILE_EXIT,
                                        VMM_FILE_CONSOLE};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(stale); i++)
        put(stale[i], "old");
    put(VMM_FILE_LOG, "the last life's words");
    start();
    for (unsigned i = 0; i < ARRAY_LEN(stale); i++)
        assert_int_equal(access(in_folder(stale[i]), F_OK), -1);
    assert_int_equal(access(in_folder(VMM_FILE_PID), F_OK), 0);
    assert_string_equal(calls, "S");
    assert_int_equal(vmm_boot(vm, LONG_MS), 0);
    assert_true(latest_ns > clock_now_ns() && latest_ns <= clock_now_ns() + LONG_MS * NS_PER_MS);
    assert_string_equal(calls, "Sb");
}

static void a_file_that_the_vm_needs_is_missed_before_anything_starts(void **state)
{
    (void)state;
    assert_int_equal(unlink(in_folder(VMM_FILE_KERNEL)), 0);
    assert_int_equal(vmm_start(vm, false, LONG_MS), -ENOENT);
    assert_non_null(strstr(err_text(), "needs the file kernel in"));
    assert_string_equal(calls, "");
    assert_int_equal(unlink(in_folder(VMM_FILE_STATE)), 0);
    assert_int_equal(vmm_start(vm, true, LONG_MS), -ENOENT);
    assert_non_null(strstr(err_text(), "needs the file vmstate in"));
    put(VMM_FILE_STATE, "state");
    assert_int_equal(vmm_start(vm, true, LONG_MS), 0); /* this one needs no kernel for that */
    assert_string_equal(calls, "L");
}

static void a_folder_has_one_vmm_at_a_time(void **state)
{
    struct vmm *second = NULL;

    (void)state;
    start();
    assert_int_equal(vmm_start(vm, false, LONG_MS), -EBUSY);
    assert_int_equal(vmm_new(&second, &fake, &plain, folder), 0);
    assert_int_equal(vmm_start(second, false, LONG_MS), -EBUSY);
    assert_non_null(strstr(err_text(), "runs in"));
    second = vmm_free(second);
    assert_false(vmm_has_ended(vm));
    assert_int_equal(vmm_kill(vm, LONG_MS), 0);
    start();
}

static void a_vm_can_be_adopted_while_its_process_lives(void **state)
{
    struct vmm *other = NULL;
    struct vmm_id id;

    (void)state;
    start();
    assert_int_equal(child_id_read(in_folder(VMM_FILE_PID), &id), 0);
    assert_int_equal(id.pid, vmm_id(vm).pid);
    assert_int_equal(vmm_adopt(&other, &fake, &plain, folder, id), 0);
    assert_int_equal(vmm_wait_end(other, 10), -ETIMEDOUT);
    assert_int_equal(vmm_kill(other, LONG_MS), 0);
    assert_true(vmm_has_ended(vm));
    assert_null(vmm_free(other));
    assert_int_equal(vmm_adopt(&other, &fake, &plain, folder, id), -ESRCH);
}

static void a_vmm_that_does_not_answer_at_its_start_is_killed(void **state)
{
    (void)state;
    answer = -ETIMEDOUT;
    assert_int_equal(vmm_start(vm, false, LONG_MS), -ETIMEDOUT);
    assert_string_equal(err_text(), "it was asked for 'S'");
    assert_true(vmm_has_ended(vm));
}

static void a_vmm_that_ends_at_its_start_has_the_last_word(void **state)
{
    (void)state;
    script = "echo no such device >&2; exit 148";
    answer = -ECONNREFUSED;
    assert_int_equal(vmm_start(vm, false, LONG_MS), -ECONNREFUSED);
    assert_non_null(strstr(err_text(), "it was asked for 'S'; sh, process "));
    assert_non_null(strstr(err_text(), "exited with status 148: a system call that it may not make "
                                       "(its last words: no such device)"));
}

static void a_vmm_that_could_not_load_is_killed_and_one_that_could_not_pause_is_not(void **state)
{
    (void)state;
    start();
    answer = -EIO;
    assert_int_equal(vmm_pause(vm, LONG_MS), -EIO);
    assert_false(vmm_has_ended(vm));
    assert_int_equal(vmm_load(vm, true, LONG_MS), -EIO);
    assert_string_equal(err_text(), "it was asked for 'r'");
    assert_true(vmm_has_ended(vm));
}

static void who_is_gone_is_not_asked(void **state)
{
    char text[256];

    (void)state;
    assert_int_equal(vmm_boot(vm, LONG_MS), -ESRCH);
    assert_non_null(strstr(err_text(), "no VMM was started in"));
    start();
    wait_for_words();
    assert_int_equal(vmm_kill(vm, LONG_MS), 0);
    assert_int_equal(vmm_kill(vm, 0), 0);
    assert_int_equal(vmm_boot(vm, LONG_MS), -ESRCH);
    assert_non_null(
        strstr(err_text(), "killed by signal 9 (KILL) (its last words: its own words)"));
    assert_int_equal(vmm_console_write(vm, "x", 1, LONG_MS), -ESRCH);
    assert_string_equal(calls, "S");
    vmm_end_text(vm, text, sizeof(text));
    assert_string_equal(text, "killed by signal 9 (KILL) (its last words: its own words)");
}

static void an_operation_in_which_the_vmm_ends_says_how(void **state)
{
    (void)state;
    start();
    answer = -EPIPE;
    dies = true;
    assert_int_equal(vmm_resume(vm, LONG_MS), -EPIPE);
    assert_non_null(strstr(err_text(), "asked for 'b'; sh, process"));
    assert_non_null(strstr(err_text(), "killed by signal 15 (TERM)"));
}

static void a_snapshot_that_failed_leaves_no_state(void **state)
{
    (void)state;
    start();
    assert_int_equal(vmm_snapshot(vm, false, LONG_MS), 0);
    assert_int_equal(access(in_folder(VMM_FILE_STATE), F_OK), 0);
    answer = -EIO;
    assert_int_equal(vmm_snapshot(vm, true, LONG_MS), -EIO);
    assert_int_equal(access(in_folder(VMM_FILE_STATE), F_OK), -1);
    assert_string_equal(calls, "SmM");
}

static void the_state_of_a_vm_that_is_gone_is_known_without_asking(void **state)
{
    enum vmm_run_state now;

    (void)state;
    assert_int_equal(vmm_state(vm, &now, LONG_MS), 0);
    assert_int_equal(now, VMM_NOT_STARTED);
    start();
    assert_int_equal(vmm_state(vm, &now, LONG_MS), 0);
    assert_int_equal(now, VMM_PAUSED);
    answer = -EIO;
    assert_int_equal(vmm_state(vm, &now, LONG_MS), -EIO);
    dies = true;
    assert_int_equal(vmm_state(vm, &now, LONG_MS), 0); /* it ended while it was asked */
    assert_int_equal(now, VMM_ENDED);
    assert_int_equal(vmm_state(vm, &now, LONG_MS), 0);
    assert_int_equal(now, VMM_ENDED);
    assert_string_equal(calls, "Ssss");
}

static void what_a_vm_does_not_have_is_refused_by_the_gate(void **state)
{
    struct vmm_driver bare = fake;

    (void)state;
    start();
    assert_int_equal(vmm_balloon_set(vm, 64, LONG_MS), -EINVAL);
    assert_int_equal(vmm_balloon_set(vm, 63, LONG_MS), 0);
    answer = 1;
    assert_int_equal(vmm_hint(vm, LONG_MS), 1);
    answer = 0;
    vm->spec.free_page_hinting = false;
    assert_int_equal(vmm_hint(vm, LONG_MS), -EOPNOTSUPP);
    vm->spec.free_page_hinting = true;
    bare.hint = NULL;
    vm->driver = &bare;
    assert_int_equal(vmm_hint(vm, LONG_MS), -EOPNOTSUPP);
    vm->driver = &fake;
    assert_int_equal(vmm_console_write(vm, "", 0, LONG_MS), 0);
    assert_string_equal(calls, "SBh");
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static void a_socket_is_waited_for_until_the_deadline_or_the_end_of_the_vmm(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd;

    (void)state;
    start();
    assert_int_equal(vmm_connect(vm, VMM_FILE_API, clock_now_ns() + 20 * NS_PER_MS), -ETIMEDOUT);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", folder, VMM_FILE_API);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(vmm_connect(vm, VMM_FILE_API, clock_now_ns() + 20 * NS_PER_MS), -ETIMEDOUT);
    assert_int_equal(listen(listener, 1), 0);
    fd = vmm_connect(vm, VMM_FILE_API, clock_now_ns() + LONG_MS * NS_PER_MS);
    assert_true(fd >= 0);
    (void)fd_close(fd);
    (void)fd_close(listener);
    assert_int_equal(vmm_kill(vm, LONG_MS), 0);
    assert_int_equal(vmm_connect(vm, VMM_FILE_API, clock_now_ns() + LONG_MS * NS_PER_MS),
                     -ECONNREFUSED);
}

static void a_folder_may_be_deeper_than_a_socket_address_is_long_and_a_link_is_no_socket(
    void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char deep[512], here[256];
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd;

    (void)state;
    (void)snprintf(deep, sizeof(deep), "%s/%0150d", folder, 0);
    assert_int_equal(mkdir(deep, 0755), 0);
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(deep), 0);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", "s");
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(chdir(here), 0);
    fd = socket_connect(deep, "s");
    assert_true(fd >= 0);
    (void)fd_close(fd);
    /* But a link in its place is not followed. */
    assert_int_equal(chdir(deep), 0);
    assert_int_equal(symlink("s", "link"), 0);
    assert_int_equal(socket_connect(deep, "link"), -ECONNREFUSED);
    assert_int_equal(unlink("link"), 0);
    assert_int_equal(chdir(here), 0);
    (void)fd_close(listener);
    (void)snprintf(deep + strlen(deep), 3, "/s");
    assert_int_equal(unlink(deep), 0);
    deep[strlen(deep) - 2] = '\0';
    assert_int_equal(rmdir(deep), 0);
}

#define WITH_VM(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_VM(a_spec_that_no_vm_can_be_made_of_is_refused_by_field),
        WITH_VM(a_jail_has_an_id_and_a_driver_that_knows_it),
        WITH_VM(a_vm_has_a_copy_of_its_spec),
        WITH_VM(the_version_is_the_first_word_that_looks_like_one),
        WITH_VM(a_new_life_begins_without_the_files_of_the_last_one),
        WITH_VM(a_file_that_the_vm_needs_is_missed_before_anything_starts),
        WITH_VM(a_folder_has_one_vmm_at_a_time),
        WITH_VM(a_vm_can_be_adopted_while_its_process_lives),
        WITH_VM(a_vmm_that_does_not_answer_at_its_start_is_killed),
        WITH_VM(a_vmm_that_ends_at_its_start_has_the_last_word),
        WITH_VM(a_vmm_that_could_not_load_is_killed_and_one_that_could_not_pause_is_not),
        WITH_VM(who_is_gone_is_not_asked),
        WITH_VM(an_operation_in_which_the_vmm_ends_says_how),
        WITH_VM(a_snapshot_that_failed_leaves_no_state),
        WITH_VM(the_state_of_a_vm_that_is_gone_is_known_without_asking),
        WITH_VM(what_a_vm_does_not_have_is_refused_by_the_gate),
        WITH_VM(a_socket_is_waited_for_until_the_deadline_or_the_end_of_the_vmm),
        WITH_VM(a_folder_may_be_deeper_than_a_socket_address_is_long_and_a_link_is_no_socket),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("driver", tests, NULL, NULL);
}
