/* SPDX-License-Identifier: Apache-2.0 */

/*
 * kernel.pml - the kernel's side of userfaultfd, and the oracle that judges what the guest sees
 *
 * A page is present or not, and what is there is one of three kinds of bytes (a bit each, so that sets are masks).
 * A vCPU that touches a page which it may not touch raises a fault: a message that can be read (QUEUED), and once it
 * is read (ASLEEP) nothing but a wake of that page brings the vCPU back. A wake takes an unread message away, and
 * the vCPU tries its access again from the beginning.
 *
 * A discard (madvise) goes through these steps, and others run between any two of them:
 *
 *     ENTERED  mmap_changing goes up: from here on every install, of any page, is refused (EAGAIN)
 *     UNREAD   its REMOVE message can be read, after all faults that can be read
 *     READ     it has been read: the thread may run on, but has not yet
 *     ZAPPING  the thread has run: mmap_changing is down and installs work, but the page is still there
 *     IDLE     the page is gone, madvise has returned
 *
 * Any other system call is one step. Two things are thereby simpler than the truth. An install and its wake are one
 * step: a vCPU that faults between the two would be woken for nothing, and fault again. A raised fault and the
 * kernel's second look at the page are one step: to make them so is what the second look is for.
 *
 * The oracle. allowed[p] is the set of bytes that a read of page p may see: the image's at first, the guest's after a
 * write, zero after a zap. From the moment a discard is entered until the zap, zero is allowed too, whatever else
 * happens. heard[p] is set when a REMOVE of p is handed out: no image bytes may be put there afterwards.
 */

#define VCPUS 2

#define NOTHING     0
#define IMAGE_BYTES 1
#define ZEROES      2
#define GUEST_BYTES 4

/* What the image has: bytes of its own, or zeroes in the last page. */
#ifdef ZERO_RANGE
#define IMAGE_LAST ZEROES
#else
#define IMAGE_LAST IMAGE_BYTES
#endif
#define IMAGE_AT(p) ((p) == PAGES - 1 -> IMAGE_LAST : IMAGE_BYTES)

byte content[PAGES];
#if PAGES == 1
byte allowed[PAGES] = IMAGE_LAST;
#else
byte allowed[PAGES] = { IMAGE_BYTES, IMAGE_LAST };
#endif
bit armed[PAGES]; /* write-protected */
bit heard[PAGES];
byte changing;

#define AWAKE     0
#define QUEUED    1 /* with a missing fault */
#define QUEUED_WP 2 /* with a write-protect fault */
#define ASLEEP    3
byte vcpu_is[VCPUS];
byte vcpu_page[VCPUS]; /* the page that it wants to touch */
bit vcpu_write[VCPUS]; /* and whether for a write */

#define IDLE    0
#define ENTERED 1
#define UNREAD  2
#define READ    3
#define ZAPPING 4
byte discard_is[BALLOONS];
byte discard_page[BALLOONS];

/* What an ioctl says. */
#define DONE   0
#define AGAIN  1
#define EXISTS 2

/* Kinds of messages. */
#define MSG_READ   1 /* missing fault for a read */
#define MSG_WRITE  2 /* missing fault for a write */
#define MSG_WP     3 /* write-protect fault */
#define MSG_REMOVE 4

#define IS_DISCARDED_BY(b, p) (discard_is[b] != IDLE && discard_page[b] == (p))
#if BALLOONS == 1
#define IS_DISCARDED(p) IS_DISCARDED_BY(0, p)
#define REMOVE_UNREAD   (discard_is[0] == UNREAD)
#else
#define IS_DISCARDED(p) (IS_DISCARDED_BY(0, p) || IS_DISCARDED_BY(1, p))
#define REMOVE_UNREAD   (discard_is[0] == UNREAD || discard_is[1] == UNREAD)
#endif

#define FAULT_UNREAD(v) (vcpu_is[v] == QUEUED || vcpu_is[v] == QUEUED_WP)
#define UFFD_READABLE   (FAULT_UNREAD(0) || FAULT_UNREAD(1) || REMOVE_UNREAD)

inline kernel_wake_one(v, p)
{
    if
    :: vcpu_is[v] != AWAKE && vcpu_page[v] == p ->
        vcpu_is[v] = AWAKE;
        printf("kernel: vCPU %d is awake\n", v)
    :: else
    fi
}

/* UFFDIO_WAKE */
inline kernel_wake(p)
{
    kernel_wake_one(0, p);
    kernel_wake_one(1, p)
}

/* UFFDIO_COPY, UFFDIO_ZEROPAGE of one page; with arm: UFFDIO_COPY_MODE_WP */
inline kernel_install(p, what, arm, says)
{
    if
    :: changing > 0 ->
        says = AGAIN;
        printf("kernel: install in page %d: EAGAIN\n", p)
    :: changing == 0 && content[p] != NOTHING ->
        says = EXISTS;
        printf("kernel: install in page %d: EEXIST\n", p)
    :: else ->
        assert(what != IMAGE_BYTES || !heard[p]); /* I2: no stale bytes */
        content[p] = what;
        armed[p] = arm;
        says = DONE;
        if
        :: what == IMAGE_BYTES -> printf("kernel: install of the image in page %d: done\n", p)
        :: else -> printf("kernel: install of zeroes in page %d: done\n", p)
        fi;
        kernel_wake(p)
    fi
}

/* UFFDIO_WRITEPROTECT of one page, on or off; only off wakes; nothing can be armed that is not there */
inline kernel_protect(p, arm, says)
{
    if
    :: changing > 0 ->
        says = AGAIN;
        printf("kernel: protect or unprotect page %d: EAGAIN\n", p)
    :: else ->
        armed[p] = (content[p] != NOTHING && arm);
        says = DONE;
        printf("kernel: page %d is armed: %d\n", p, armed[p]);
        if
        :: !(arm) -> kernel_wake(p)
        :: else
        fi
    fi
}

inline kernel_hand_out_fault(v, who, message)
{
    who = v;
    message = (vcpu_is[v] == QUEUED_WP -> MSG_WP : (vcpu_write[v] -> MSG_WRITE : MSG_READ));
    vcpu_is[v] = ASLEEP;
    printf("pager: read a fault of vCPU %d on page %d\n", v, vcpu_page[v])
}

inline kernel_hand_out_remove(b, who, message)
{
    who = b;
    message = MSG_REMOVE;
    discard_is[b] = READ;
    heard[discard_page[b]] = 1;
    printf("pager: read a REMOVE of page %d\n", discard_page[b])
}

/* read(2) of one message, faults before anything else; who: the vCPU of a fault, the balloon of a REMOVE */
inline kernel_read(who, message)
{
    if
    :: FAULT_UNREAD(0) -> kernel_hand_out_fault(0, who, message)
    :: !FAULT_UNREAD(0) && FAULT_UNREAD(1) -> kernel_hand_out_fault(1, who, message)
    :: else ->
        if
        :: discard_is[0] == UNREAD -> kernel_hand_out_remove(0, who, message)
#if BALLOONS == 2
        :: discard_is[0] != UNREAD -> kernel_hand_out_remove(1, who, message)
#endif
        fi
    fi
}

#define MAY_TOUCH(p, write) (content[p] != NOTHING && !((write) && armed[p]))

/* Somebody's write arrives in a page. */
inline memory_write(p)
{
    content[p] = GUEST_BYTES;
    allowed[p] = (IS_DISCARDED(p) -> GUEST_BYTES | ZEROES : GUEST_BYTES)
}

/* The guest reads a page. */
inline memory_read(p)
{
    assert((content[p] & allowed[p]) != 0) /* I2: what the guest sees */
}
