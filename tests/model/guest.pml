/* SPDX-License-Identifier: Apache-2.0 */

/*
 * guest.pml - those who touch the memory: two vCPUs, a balloon or two, and others who do as they like
 *
 * vCPUs and balloons are the first processes of the model: their _pid is their place in kernel.pml's tables. Each
 * chooses anew what it does, so that spin tries every choice at every moment, and may stop before its bound.
 *
 * The labels: a process that sleeps at accept_x for ever is what spin looks for (invariants I1 and I3).
 */

byte running = VCPUS + BALLOONS; /* those that have not ended */

#if PAGES == 1
#define SELECT_PAGE(p) p = 0
#else
#define SELECT_PAGE(p) if :: p = 0 :: p = 1 fi
#endif

/* One more of at most `limit`; without a limit there is nothing to count. */
#define MAY_COUNT(n, limit) (limit == 0 || n < limit)
#define COUNT(n, limit)     n = (limit == 0 -> 0 : n + 1)
#define MAY_END(n, limit)   (limit == 0 || n > 0)

#define WANTED  vcpu_page[_pid]
#define WRITING vcpu_write[_pid]

/* One try: it works, or a fault is raised. */
inline try_access()
{
    if
    :: MAY_TOUCH(WANTED, WRITING) ->
        if
        :: WRITING ->
            printf("vCPU %d: writes to page %d\n", _pid, WANTED);
            memory_write(WANTED)
        :: else ->
            printf("vCPU %d: reads page %d: %d (1 image, 2 zeroes, 4 guest)\n", _pid, WANTED, content[WANTED]);
            memory_read(WANTED)
        fi;
        WANTED = 0;
        WRITING = 0;
        goto next
    :: else ->
        vcpu_is[_pid] = (content[WANTED] == NOTHING -> QUEUED : QUEUED_WP);
        printf("vCPU %d: faults on page %d (write: %d)\n", _pid, WANTED, WRITING)
    fi
}

active [VCPUS] proctype vcpu()
{
    byte n;

next:
    if
    :: atomic {
            MAY_COUNT(n, OPS) -> COUNT(n, OPS);
            SELECT_PAGE(WANTED);
            if :: WRITING = 0 :: WRITING = 1 fi;
            try_access()
        };
accept_asleep:
        atomic {
            vcpu_is[_pid] == AWAKE -> try_access();
            goto accept_asleep
        }
    :: atomic { MAY_END(n, OPS) -> running-- }
    fi
}

#define MINE    (_pid - VCPUS)
#define DISCARD discard_page[MINE]

active [BALLOONS] proctype balloon()
{
    byte n;

    do
    :: atomic {
            MAY_COUNT(n, REMOVES) -> COUNT(n, REMOVES);
            SELECT_PAGE(DISCARD);
            changing++;
            discard_is[MINE] = ENTERED;
            allowed[DISCARD] = allowed[DISCARD] | ZEROES;
            printf("balloon %d: enters madvise for page %d\n", MINE, DISCARD)
        };
        discard_is[MINE] = UNREAD;
accept_in_madvise:
        atomic {
            discard_is[MINE] == READ -> discard_is[MINE] = ZAPPING;
            changing--;
            printf("balloon %d: runs on, page %d is still there\n", MINE, DISCARD)
        };
        d_step {
            content[DISCARD] = NOTHING;
            armed[DISCARD] = 0;
            allowed[DISCARD] = ZEROES;
            printf("balloon %d: page %d is gone\n", MINE, DISCARD);
            discard_is[MINE] = IDLE;
            DISCARD = 0
        }
    :: atomic { true -> running--; break }
    od
}

#ifdef INTRUDER
active proctype intruder()
{
    if
    :: d_step { content[0] == NOTHING -> memory_write(0); printf("intruder: page 0 is there\n") }
#if PAGES == 2
    :: d_step { content[1] == NOTHING -> memory_write(1); printf("intruder: page 1 is there\n") }
#endif
    :: true
    fi
}
#endif

#ifdef UNHEARD
/* What was there and zero are both right from here on; a snapshot may have either, or the image. */
active proctype unmapper()
{
    if
    :: d_step {
            content[0] != NOTHING && !IS_DISCARDED(0) -> content[0] = NOTHING;
            armed[0] = 0;
            allowed[0] = allowed[0] | ZEROES;
            printf("unmapper: page 0 is gone\n")
        }
    :: true
    fi
}
#endif
