/* SPDX-License-Identifier: Apache-2.0 */
/* test_host_facts.c - what a snapshot knows of its host, and where it can go on */
#include "testing.h"

#include <string.h>

#include "base/err.h"
#include "node/host_facts.h"

#define X86(flags)                                                                              \
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: " \
    "Some CPU\nstepping\t: 7\nflags\t\t: " flags "\nbugs\t\t:\n\nprocessor\t: 1\nvendor_id\t: " \
    "Other\nflags\t\t: other\n"
#define ARM                                                                                     \
    "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\n" \
    "CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"

static struct host_facts facts(const char *arch, const char *release, const char *cpuinfo)
{
    struct host_facts f;

    assert_int_equal(host_facts_parse(&f, arch, release, cpuinfo), 0);
    return f;
}

/* compare() - how many reasons there are, and that the first one has @why */
static unsigned compare(struct host_facts then, struct host_facts here, bool emulated,
                        const char *why)
{
    struct reasons reasons = {0};
    unsigned n;

    host_facts_compare(&then, &here, emulated, &reasons);
    n = reasons.n;
    if (why && (n == 0 || !strstr(reasons.lines[0], why)))
        fail_msg("'%s' does not say '%s'", n > 0 ? reasons.lines[0] : "", why);
    reasons_deinit(&reasons);
    host_facts_deinit(&then);
    host_facts_deinit(&here);
    return n;
}

static void the_first_processor_is_described(void **state)
{
    struct host_facts f = facts("x86_64", "6.18.3-1-cloud", X86("sse2 fpu avx"));

    (void)state;
    assert_string_equal(f.cpu, "GenuineIntel family 6 model 85 stepping 7");
    assert_string_equal(f.cpu_features, "avx fpu sse2");
    assert_string_equal(f.kernel, "6.18");
    host_facts_deinit(&f);
    f = facts("aarch64", "6.1", ARM);
    assert_string_equal(f.cpu, "0x41 family 8 model 0xd0c stepping 1");
    assert_string_equal(f.cpu_features, "asimd crc32 fp");
    assert_string_equal(f.kernel, "6.1");
    host_facts_deinit(&f);
    f = facts("riscv64", "6", "");
    assert_string_equal(f.cpu, "unknown");
    assert_string_equal(f.cpu_features, "");
    assert_string_equal(f.kernel, "6");
    host_facts_deinit(&f);
}

static void this_host_is_as_itself(void **state)
{
    struct host_facts a;
    struct host_facts b;

    (void)state;
    assert_int_equal(host_facts_read(&a), 0);
    assert_int_equal(host_facts_read(&b), 0);
    assert_true(strlen(a.kernel) >= 3);
    assert_int_equal(compare(a, b, false, NULL), 0);
}

static void each_difference_is_a_sentence(void **state)
{
    const char *then = X86("fpu avx avx512f sse2");

    (void)state;
    assert_int_equal(compare(facts("x86_64", "6.18", then),
                             facts("x86_64", "6.18", X86("fpu sse2")), false,
                             "features that the guest has seen: avx avx512f"),
                     1);
    assert_int_equal(compare(facts("x86_64", "6.18", then), facts("x86_64", "6.12.1", then), false,
                             "it was built on Linux 6.18, this is Linux 6.12"),
                     1);
    assert_int_equal(compare(facts("x86_64", "6.18", then), facts("aarch64", "6.1", ARM), false,
                             "architecture x86_64, this one is aarch64"),
                     4);
}

static void more_features_than_before_do_no_harm(void **state)
{
    (void)state;
    assert_int_equal(compare(facts("x86_64", "6.18", X86("fpu")),
                             facts("x86_64", "6.18.9", X86("fpu fpu2 avx")), false, NULL),
                     0);
}

static void an_emulated_processor_is_the_same_everywhere(void **state)
{
    (void)state;
    assert_int_equal(compare(facts("x86_64", "6.18", X86("fpu avx")),
                             facts("x86_64", "5.10", "vendor_id : X\n"), true, NULL),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_processor_is_described),
        cmocka_unit_test(this_host_is_as_itself),
        cmocka_unit_test(each_difference_is_a_sentence),
        cmocka_unit_test(more_features_than_before_do_no_harm),
        cmocka_unit_test(an_emulated_processor_is_the_same_everywhere),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("host_facts", tests, NULL, NULL);
}
