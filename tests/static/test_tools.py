# SPDX-License-Identifier: Apache-2.0
"""test_tools.py - the tools that judge the tree are judged themselves: each must find what it is there to find."""

import json
import os
import pathlib
import subprocess
import sys

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
PYTHON = "/usr/bin/python3"
DEADLINE = 60


def run(*command, **options):
    """Runs a command to its end, its output as text."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                          timeout=DEADLINE, stdin=subprocess.DEVNULL, **options)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# layers.py


def layers(root, path, *includes):
    write(root / path, "".join(f"#include {include}\n" for include in includes))
    return run(PYTHON, TOOLS / "layers.py", root)


def test_a_layer_may_include_what_is_below_it(tmp_path):
    result = layers(tmp_path, "src/pager/x.c", '"core/engine.h"', '"uffd/install.h"', "<thaw/thaw.h>")
    assert result.returncode == 0, result.stdout


def test_source_and_uffd_never_meet(tmp_path):
    assert layers(tmp_path / "a", "src/source/x.c", '"uffd/install.h"').returncode == 1
    assert layers(tmp_path / "b", "src/uffd/x.c", '"source/source.h"').returncode == 1


def test_an_arrow_upwards_is_found_and_the_rule_named(tmp_path):
    result = layers(tmp_path, "src/core/x.c", '"base/base.h"', '"pager/session.h"')
    assert result.returncode == 1
    assert 'src/core/x.c:2: #include "pager/session.h": core may include base' in result.stdout


def test_uffd_sees_the_events_of_core_and_not_its_engine(tmp_path):
    assert layers(tmp_path / "a", "src/uffd/x.c", '"core/event.h"').returncode == 0
    assert layers(tmp_path / "b", "src/uffd/x.c", '"core/engine.h"').returncode == 1


def test_an_example_uses_the_public_interface_only(tmp_path):
    assert layers(tmp_path / "a", "examples/x.c", "<thaw/thaw.h>").returncode == 0
    assert layers(tmp_path / "b", "examples/x.c", '"base/base.h"').returncode == 1


def test_an_include_that_is_not_from_the_root_is_found(tmp_path):
    assert layers(tmp_path, "src/core/x.c", '"engine.h"').returncode == 1


def test_only_the_owner_includes_the_userfaultfd_header(tmp_path):
    assert layers(tmp_path, "src/pager/x.c", "<linux/userfaultfd.h>").returncode == 1


# file_sizes.py


def sizes(root, path, text):
    write(root / path, text)
    return run(PYTHON, TOOLS / "file_sizes.py", root)


def c_function(n_lines):
    return "int f(int a,\n      int b)\n{\n" + "    a++;\n" * n_lines + "}\n"


def test_a_function_of_sixty_lines_is_short_enough(tmp_path):
    assert sizes(tmp_path, "src/x.c", c_function(60)).returncode == 0


def test_a_function_of_sixty_one_lines_is_too_long(tmp_path):
    result = sizes(tmp_path, "src/x.c", c_function(61))
    assert result.returncode == 1
    assert "f() has 61 lines" in result.stdout


def test_a_long_table_is_no_function(tmp_path):
    assert sizes(tmp_path, "src/x.c", "int t[] = {\n" + "    1,\n" * 100 + "};\n").returncode == 0


def test_a_file_of_more_than_six_hundred_lines_is_too_long(tmp_path):
    assert sizes(tmp_path, "src/x.h", "\n" * 600).returncode == 0
    assert sizes(tmp_path, "src/y.h", "\n" * 601).returncode == 1


def test_a_long_python_function_is_found(tmp_path):
    assert sizes(tmp_path, "tools/x.py", "def f():\n" + "    pass\n" * 60).returncode == 1


# syscalls.py


def syscalls(root, *arguments, serve="/* #syscalls read */\n", libc="/* #syscalls brk */\n"):
    write(root / "src/pager/x.c", serve)
    write(root / "src/pager/syscall_filter.c", libc)
    return run(PYTHON, TOOLS / "syscalls.py", "--root", root, *arguments)


def rules(root, serve):
    result = syscalls(root, "rules", serve=serve, libc="")
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if line.startswith("RULE")]


def test_calls_of_a_serving_pager_become_rules_and_those_of_the_start_do_not(tmp_path):
    assert rules(tmp_path, "/* #syscalls read write */\n/* #syscalls:start socket */\n") == [
        "RULE(SYS_read)", "RULE(SYS_write)"]


def test_arguments_become_one_rule_for_each_value(tmp_path):
    text = " * #syscalls ioctl:1=A,B|C mmap:2&PROT_EXEC=0  for a reason\n"
    assert rules(tmp_path, text) == [
        "RULE_IF(SYS_ioctl, 1, 0xffffffff, A)", "RULE_IF(SYS_ioctl, 1, 0xffffffff, B|C)",
        "RULE_IF(SYS_mmap, 2, PROT_EXEC, 0)"]


def test_a_call_with_any_arguments_takes_the_place_of_narrower_rules(tmp_path):
    assert rules(tmp_path, "/* #syscalls openat:2=O_PATH */\n/* #syscalls openat */\n") == ["RULE(SYS_openat)"]


def test_each_rule_is_there_once_and_only_where_the_architecture_has_the_call(tmp_path):
    result = syscalls(tmp_path, "rules", serve="/* #syscalls open */\n/* #syscalls open */\n", libc="")
    assert result.stdout.count("RULE(SYS_open)") == 1
    assert "#ifdef SYS_open\nRULE(SYS_open)\n#endif" in result.stdout


def test_a_filler_has_rules_of_its_own_and_those_of_both(tmp_path):
    lists = "/* #syscalls read */\n/* #syscalls:all pread64 */\n/* #syscalls:fill clone3=ENOSYS accept4 */\n"
    assert rules(tmp_path, lists) == ["RULE(SYS_pread64)", "RULE(SYS_read)"]
    result = syscalls(tmp_path, "rules", "fill", serve=lists, libc="")
    assert [line for line in result.stdout.splitlines() if line.startswith("RULE")] == [
        "RULE(SYS_accept4)", "RULE_FAIL(SYS_clone3, ENOSYS)", "RULE(SYS_pread64)"]


def test_a_list_that_cannot_be_read_names_its_line(tmp_path):
    result = syscalls(tmp_path, "rules", serve="int a;\n/* #syscalls ioctl:7=A */\n")
    assert result.returncode == 2
    assert "src/pager/x.c: line 2" in result.stderr and "ioctl:7=A" in result.stderr


def test_a_call_that_no_list_has_is_found(tmp_path):
    code = 'int f(void) { return socket(1, 2, 3); } /* bind() */ const char *s = "listen(";\n'
    result = syscalls(tmp_path, "check", serve=code)
    assert result.returncode == 1
    assert "src/pager/x.c: calls socket" in result.stdout and "1 calls" in result.stdout
    assert syscalls(tmp_path, "check", serve="/* #syscalls:start socket */\n" + code).returncode == 0


def test_a_raw_call_that_no_list_has_is_found(tmp_path):
    code = "long f(void) { return syscall(SYS_bpf, 0); }\n"
    assert "calls bpf" in syscalls(tmp_path, "check", serve=code).stdout


def test_what_the_c_library_needs_anyway_may_be_called_everywhere(tmp_path):
    code = "void *f(void) { return mmap(0, 1, 2, 3, 4, 5); }\n"
    assert syscalls(tmp_path, "check", serve=code).returncode == 1
    assert syscalls(tmp_path, "check", serve=code, libc="/* #syscalls mmap */\n").returncode == 0


def test_the_filter_of_this_tree_lets_nothing_in_or_out():
    result = run(PYTHON, TOOLS / "syscalls.py", "rules")
    free = {line[len("RULE(SYS_"):-1] for line in result.stdout.splitlines() if line.startswith("RULE(")}
    assert {"read", "write", "futex"} <= free
    assert not free & {"open", "openat", "openat2", "creat", "socket", "connect", "bind", "accept4", "sendmsg", "sendto",
                       "fork", "vfork", "clone", "clone3", "execve", "execveat", "kill", "tkill", "tgkill", "ptrace",
                       "ioctl", "mmap", "mprotect", "prctl", "seccomp", "rt_sigaction", "pidfd_open", "pidfd_getfd",
                       "pidfd_send_signal", "process_vm_readv", "process_vm_writev", "bpf", "io_uring_setup", "mount",
                       "unshare", "setns", "setuid", "setresuid", "chmod", "chown", "symlink", "link", "mkdir", "mknod"}


def test_the_filter_of_a_filler_lets_it_answer_and_read_and_no_more():
    result = run(PYTHON, TOOLS / "syscalls.py", "rules", "fill")
    free = {line[len("RULE(SYS_"):-1] for line in result.stdout.splitlines() if line.startswith("RULE(")}
    assert {"accept4", "sendmsg", "pread64", "read", "write"} <= free
    assert not free & {"open", "openat", "openat2", "creat", "socket", "connect", "bind", "recvmsg", "rename", "unlink", "unlinkat",
                       "fork", "vfork", "clone", "clone3", "execve", "kill", "tkill", "tgkill", "ptrace", "ioctl", "mmap",
                       "mprotect", "prctl", "seccomp", "rt_sigaction", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
                       "process_vm_readv", "process_vm_writev", "ftruncate", "memfd_create", "fcntl", "dup", "dup2"}


# purity.sh


def archive(root, name, source):
    write(root / f"{name}.c", source)
    assert run("gcc", "-c", "-o", root / f"{name}.c.o", root / f"{name}.c").returncode == 0
    assert run("ar", "rc", root / f"lib{name}.a", root / f"{name}.c.o").returncode == 0
    return root / f"lib{name}.a"


def purity(root, core, base="int bitset_has(void) { return 1; }\n", base_name="bitset"):
    return run(TOOLS / "purity.sh", archive(root, "core", core), archive(root, base_name, base))


def test_core_may_copy_memory_and_use_the_pure_part_of_base(tmp_path):
    result = purity(tmp_path, "void *memcpy(void *, const void *, unsigned long); int bitset_has(void);\n"
                              "void *f(void *a, void *b, int n) { return memcpy(a, b, n + bitset_has()); }\n")
    assert result.returncode == 0, result.stdout


def test_core_may_not_make_a_system_call(tmp_path):
    result = purity(tmp_path, "int close(int); int f(void) { return close(3); }\n")
    assert result.returncode == 1
    assert "core may not use close (in core.c.o)" in result.stdout


def test_core_may_not_use_the_impure_part_of_base(tmp_path):
    result = purity(tmp_path, "int clock_ns(void); int f(void) { return clock_ns(); }\n",
                    "int clock_ns(void) { return 1; }\n", "clock")
    assert result.returncode == 1


# run_pytest.py


def run_pytest(root, text):
    write(root / "test_x.py", text)
    environment = dict(os.environ, THAW_JUNIT_DIR=str(root / "junit"))
    return run(PYTHON, TOOLS / "run_pytest.py", "--name", "x", root / "test_x.py", env=environment, cwd=root)


def test_the_wrapper_passes_when_pytest_passes(tmp_path):
    assert run_pytest(tmp_path, "def test_a():\n    pass\n").returncode == 0
    assert (tmp_path / "junit/x.xml").exists()


def test_the_wrapper_fails_when_a_test_fails(tmp_path):
    assert run_pytest(tmp_path, "def test_a():\n    assert False\n").returncode == 1


def test_the_wrapper_fails_when_there_is_no_test(tmp_path):
    assert run_pytest(tmp_path, "\n").returncode == 1


def test_the_wrapper_skips_when_all_tests_skip(tmp_path):
    skip = "import pytest\ndef test_a():\n    pytest.skip('not here')\n"
    assert run_pytest(tmp_path / "a", skip).returncode == 77
    assert run_pytest(tmp_path / "b", skip + "def test_b():\n    pass\n").returncode == 0


# summary.py


def meson_log(root, *records):
    log = root / "b/meson-logs/check.json"
    write(log, "".join(json.dumps({"name": "t", "stdout": "", "starttime": 0, "command": [], "env": {}} | r) + "\n"
                       for r in records))
    return str(log)


def summary(root, steps, allowed="", end=True):
    lines = [json.dumps({"step": "s", "status": 0, "seconds": 1, "log": ""} | s) for s in steps]
    write(root / "ledger", "\n".join(lines + ['{"end": true}'] * end) + "\n")
    write(root / "allowed", allowed)
    result = run(PYTHON, TOOLS / "summary.py", root / "ledger", "--allowed", root / "allowed", "--line")
    return result.returncode, result.stdout.splitlines()[-1], result.stdout


def test_a_step_without_a_log_counts_as_one(tmp_path):
    assert summary(tmp_path, [{}, {}])[:2] == (0, "2 passed, 0 failed, 0 skipped")
    assert summary(tmp_path, [{}, {"status": 2}])[:2] == (1, "1 passed, 1 failed, 0 skipped")


def test_tap_tests_count_one_by_one(tmp_path):
    text = "1..4\nok 1 - a\nnot ok 2 - b\nok 3 # SKIP no luck\nok 4 - d # SKIP none either\n"
    log = meson_log(tmp_path, {"stdout": text, "result": "FAIL"})
    status, line, output = summary(tmp_path, [{"log": log, "status": 1}], allowed="t: * | because\n")
    assert (status, line) == (1, "1 passed, 1 failed, 2 skipped")
    assert "failed: s: t: b" in output


def test_a_tap_test_that_crashes_after_good_lines_has_failed(tmp_path):
    log = meson_log(tmp_path, {"stdout": "1..2\nok 1 - a\n", "result": "ERROR"})
    assert summary(tmp_path, [{"log": log, "status": 1}])[1] == "1 passed, 1 failed, 0 skipped"


def test_pytest_tests_count_one_by_one(tmp_path):
    log = meson_log(tmp_path, {"result": "FAIL", "command": ["run_pytest.py", "--name", "x", "f"]})
    write(tmp_path / "b/meson-logs/pytest/x.xml",
          '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="m"/></testcase>'
          '<testcase name="c"><skipped message="why"/></testcase></testsuite></testsuites>')
    status, line, output = summary(tmp_path, [{"log": log, "status": 1}], allowed="t: c (why) | because\n")
    assert (status, line) == (1, "1 passed, 1 failed, 1 skipped")
    assert "skipped: s: t: c (why)" in output


def test_a_skip_that_is_not_on_the_list_is_a_failure_of_the_run(tmp_path):
    log = meson_log(tmp_path, {"result": "SKIP", "stdout": "no KVM\n"})
    assert summary(tmp_path, [{"log": log}])[:2] == (1, "0 passed, 0 failed, 1 skipped")
    assert summary(tmp_path, [{"log": log}], allowed="* (no KVM) | why\n")[:2] == (0, "0 passed, 0 failed, 1 skipped")


def test_a_run_without_results_has_failed(tmp_path):
    log = meson_log(tmp_path)
    assert summary(tmp_path, [{"log": log}])[:2] == (1, "0 passed, 1 failed, 0 skipped")
    assert summary(tmp_path, [{"log": str(tmp_path / "none.json"), "status": 1}])[0] == 1


def test_a_run_that_was_cut_off_has_failed(tmp_path):
    assert summary(tmp_path, [{}], end=False)[:2] == (1, "1 passed, 1 failed, 0 skipped")


# setup.sh


def run_setup(root, installed, *groups, apt="exit 0"):
    """Runs a copy of setup.sh with dpkg-query and apt-get played by scripts; apt-get's calls end up in root/calls."""
    names = "|".join(installed) or "-"
    write(root / "bin/dpkg-query", f"#!/bin/sh\ncase $4 in {names}) echo installed ;; *) exit 1 ;; esac\n")
    write(root / "bin/apt-get", f'#!/bin/sh\necho "$*" >>"{root}/calls"\n{apt}\n')
    write(root / "bin/sudo", '#!/bin/sh\nexec "$@"\n')
    write(root / "tools/packages.txt", "# comment\nbuild alpha a reason\nbuild beta another\ndemo gamma a third\n")
    write(root / "tools/setup.sh", (TOOLS / "setup.sh").read_text(encoding="utf-8"))
    for name in ("bin/dpkg-query", "bin/apt-get", "bin/sudo", "tools/setup.sh"):
        (root / name).chmod(0o755)
    (root / "calls").write_text("", encoding="utf-8")
    result = run(root / "tools/setup.sh", *groups, env={"PATH": f"{root}/bin:/usr/bin:/bin"})
    return result, (root / "calls").read_text(encoding="utf-8").splitlines()


def test_setup_does_nothing_where_nothing_is_missing(tmp_path):
    result, calls = run_setup(tmp_path, ["alpha", "beta"], "build")
    assert (result.returncode, result.stdout, calls) == (0, "", [])


def test_setup_installs_exactly_what_is_missing(tmp_path):
    result, calls = run_setup(tmp_path, ["alpha"], "build", "demo")
    assert result.returncode == 0, result.stderr
    assert len(calls) == 2
    assert calls[0].endswith(" update")
    assert calls[1].endswith(" install --no-install-recommends beta gamma")


def test_setup_says_in_one_line_why_apt_failed(tmp_path):
    result, _ = run_setup(tmp_path, [], "build", apt="echo 'E: Could not resolve host' >&2; exit 100")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "setup: apt-get update failed: E: Could not resolve host"


def test_setup_refuses_a_group_that_does_not_exist(tmp_path):
    result, calls = run_setup(tmp_path, [], "nonsense")
    assert result.returncode == 1
    assert calls == []


if __name__ == "__main__":
    sys.exit("run me with tools/run_pytest.py")
