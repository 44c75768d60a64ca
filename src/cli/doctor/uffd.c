/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd.c - what userfaultfd can do here: claimed by the kernel, then tried on real page
 * faults
 */
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/linux_compat.h"
#include "base/procfs.h"
#include "cli/doctor/doctor.h"
#include "cli/map/size_text.h"
#include "uffd/probe.h"
#include "uffd/trial.h"

#define TRIAL_MS 3000u
#define HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB/"

void doctor_userfaultfd(struct doctor_finding *f)
{
    struct uffd_abilities a;
    struct stat st;
    uint64_t sysctl = 0;

    if (uffd_probe(&a) < 0) {
        doctor_found(f, DOCTOR_MISSING, "%s", err_text());
        return;
    }
    if (a.how == UFFD_BY_SYSCALL) {
        (void)procfs_read_u64("/proc/sys/vm/unprivileged_userfaultfd", &sysctl);
        doctor_found(f, DOCTOR_OK, "userfaultfd(2) is allowed (%s); there is no " UFFD_DEVICE_PATH,
                     sysctl == 1 ? "vm.unprivileged_userfaultfd=1" : "CAP_SYS_PTRACE");
        return;
    }
    if (stat(UFFD_DEVICE_PATH, &st) < 0) {
        doctor_found(f, DOCTOR_OK, "%s opens", UFFD_DEVICE_PATH);
        return;
    }
    doctor_found(f, DOCTOR_OK, "%s opens (owner uid %u, gid %u, mode %03o)", UFFD_DEVICE_PATH,
                 st.st_uid, st.st_gid, st.st_mode & 0777u);
    if ((st.st_mode & 0006u) != 0006u)
        doctor_advise(
            f, "It is the VMM that opens it: one that runs as another user needs permission on it");
}

void doctor_features(struct doctor_finding *f)
{
    struct uffd_abilities a;
    char names[400];

    if (uffd_probe(&a) < 0) {
        doctor_found(f, DOCTOR_MISSING, "cannot be asked: there is no userfaultfd");
        return;
    }
    uffd_features_text(a.features, names, sizeof(names));
    if (a.features & UFFD_FEATURE_EVENT_REMOVE) {
        doctor_found(f, DOCTOR_OK, "%s", names);
    } else {
        doctor_found(f, DOCTOR_MISSING, "EVENT_REMOVE is not among %s", names);
        doctor_advise(f, "Use a kernel of 4.11 or later with CONFIG_USERFAULTFD");
    }
}

/* Serves real faults. Without a userfaultfd there is nothing to try, and its own line says why. */
static bool trial(struct doctor_finding *f, enum uffd_trial what, enum doctor_state if_not,
                  uint64_t *touch_ns)
{
    struct uffd_abilities a;

    if (uffd_probe(&a) < 0) {
        doctor_found(f, if_not, "not tried: there is no userfaultfd");
        return false;
    }
    if (uffd_try(what, TRIAL_MS, touch_ns) == 0)
        return true;
    doctor_found(f, if_not, "%s", err_text());
    return false;
}

void doctor_page_fault(struct doctor_finding *f)
{
    uint64_t touch_ns = 0;

    if (trial(f, UFFD_TRIAL_TOUCH, DOCTOR_MISSING, &touch_ns))
        doctor_found(f, DOCTOR_OK,
                     "64 page faults of another process were served, %.1f us each (median)",
                     (double)touch_ns / 1e3);
}

void doctor_kernel_fault(struct doctor_finding *f)
{
    if (trial(f, UFFD_TRIAL_KERNEL, DOCTOR_MISSING, NULL))
        doctor_found(f, DOCTOR_OK, "a fault raised by the kernel, as KVM raises them, was served");
}

void doctor_discard(struct doctor_finding *f)
{
    if (trial(f, UFFD_TRIAL_REMOVE, DOCTOR_MISSING, NULL))
        doctor_found(f, DOCTOR_OK, "a discard was heard, and the page came back as zeroes");
}

void doctor_write_tracking(struct doctor_finding *f)
{
    if (trial(f, UFFD_TRIAL_WRITE, DOCTOR_WARN, NULL))
        doctor_found(f, DOCTOR_OK, "the first write to an armed page was seen (--track wp)");
    else
        doctor_advise(f, "Serve with --track none");
}

void doctor_huge_pages(struct doctor_finding *f)
{
    struct uffd_abilities a;
    uint64_t n_all = 0;
    uint64_t n_free = 0;

    if (procfs_read_u64(HUGE_DIR "nr_hugepages", &n_all) < 0 ||
        procfs_read_u64(HUGE_DIR "free_hugepages", &n_free) < 0) {
        doctor_found(f, DOCTOR_WARN,
                     "this kernel has no 2 MiB hugetlb pages; VMs with 4 KiB pages only");
        return;
    }
    if (uffd_probe(&a) == 0 && a.hugetlb.error != 0) {
        doctor_found(f, DOCTOR_WARN, "2 MiB pages cannot be registered: %s",
                     strerrordesc_np(-a.hugetlb.error));
        return;
    }
    if (n_all == 0) {
        doctor_found(f, DOCTOR_WARN, "none reserved: VMs with 4 KiB pages only");
        doctor_advise(f, "For VMs with 2 MiB pages reserve 512 for each GiB: "
                         "sysctl vm.nr_hugepages=512");
        return;
    }
    if (n_free == 0) {
        doctor_found(f, DOCTOR_WARN,
                     "all %ju pages of 2 MiB are in use: no more VMs with such pages",
                     (uintmax_t)n_all);
        doctor_advise(f, "Reserve more: raise vm.nr_hugepages");
        return;
    }
    if (trial(f, UFFD_TRIAL_HUGE, DOCTOR_WARN, NULL))
        doctor_found(f, DOCTOR_OK,
                     "%ju of %ju pages of 2 MiB are free (%s), and a fault on one was served",
                     (uintmax_t)n_free, (uintmax_t)n_all, size_text(n_free * 2 * MIB));
}
