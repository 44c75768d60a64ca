/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_FAULT_H
#define CLI_BENCH_FAULT_H

/* fault.h - `thaw bench fault`: what a page fault costs, with Thaw and with other handlers */

/** bench_fault() - the verb; @argv[0] is "fault". Return: exit status */
int bench_fault(int argc, char **argv);

#endif
