/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_RECORDER_H
#define PAGER_RECORDER_H

/*
 * recorder.h - which pages a guest touches first, as its faults say
 *
 * A page is in the record when a thread waited for it and then got the snapshot's bytes. So it is not there when it was only
 * installed along with another one, when it could not be had, or when the VMM discarded it before its answer; and a page
 * that was installed ahead is never seen. The order is that in which the faults were read, which is as close to the order of
 * the touches as anybody outside of the guest can come.
 *
 * A record of what was missed (struct thaw_pager_options, record_missed) has what was installed around a page that was waited
 * for as well, right behind it: who installs all of it ahead has none of these faults the next time, not even with its neighbours.
 *
 * The clock starts with the first fault. The window ends when the guest is said to be ready, or when its time is up; nothing
 * is recorded after it. What it saw is then written to its file by a thread that may wait for the disk.
 */

#include "core/geom.h"

struct recorder;

/**
 * recorder_new() - with nothing in it
 * @out:         (give)
 * @path:        of the file that is to be written (borrow for the recorder's life)
 * @folder:      that of @path (borrow for the recorder's life), see folder_open()
 * @g:           (borrow for the recorder's life)
 * @image_bytes: size of the memory file
 * @window_ns:   0: until recorder_close()
 *
 * Return: 0 or -ENOMEM with a text.
 */
int recorder_new(struct recorder **out, const char *path, int folder, const struct geom *g,
                 uint64_t image_bytes, uint64_t window_ns);

/** recorder_free() - @r: (take) may be NULL. Return: NULL */
struct recorder *recorder_free(struct recorder *r);

/** recorder_fault() - a thread waits for page @p. Pager thread */
void recorder_fault(struct recorder *r, pgno_t p, bool write, uint64_t now_ns);

/** recorder_answered() - page @p is there, with the snapshot's bytes. Pager thread */
void recorder_answered(struct recorder *r, pgno_t p);

/** recorder_along() - page @p was installed around one that was waited for, with the snapshot's bytes. Pager thread */
void recorder_along(struct recorder *r, pgno_t p, uint64_t now_ns);

/** recorder_deadline_ns() - when the window ends; UINT64_MAX: not by the clock, or it has ended */
uint64_t recorder_deadline_ns(const struct recorder *r);

/**
 * recorder_close() - the window has ended
 * @complete: it came to its end; false: something else ended before
 *
 * Return: whether it had been open until now; then somebody has to call recorder_write().
 */
bool recorder_close(struct recorder *r, bool complete, uint64_t now_ns);

/** recorder_write() - write the file, whole or not at all; any thread, once, after recorder_close(). Return: 0 or a negative errno with a text */
int recorder_write(struct recorder *r);

/** recorder_count() - how many pages are recorded */
size_t recorder_count(const struct recorder *r);

DEFINE_CLEANUP(struct recorder *, recorder_free);

#endif
