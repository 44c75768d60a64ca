/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_SOCKET_H
#define VMM_FC_SOCKET_H

/* fc_socket.h - the unix socket that a VMM listens on: an address for a path of any length, and what its errors mean */

#include <sys/un.h>

#include "base/base.h"

/** struct fc_socket - an address for a path */
struct fc_socket {
    char text[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "" until it was found */
    int dir_fd; /* owned: the folder, by way of which a path that is too long is reached; -1: none */
};

#define FC_SOCKET_NONE           \
    {                            \
        .text = "", .dir_fd = -1 \
    }

/**
 * fc_socket_find() - the address, if that was not done yet; the same until fc_socket_forget()
 * @path: may be longer than the 107 bytes of an address; its last part may have some 80
 *
 * Return: 0, -ENAMETOOLONG, or another negative errno if the folder of a long path cannot be opened; with a text.
 */
int fc_socket_find(struct fc_socket *s, const char *path);

/** fc_socket_forget() - a folder of that path may be another one by now. Also frees all that it has */
void fc_socket_forget(struct fc_socket *s);

/** fc_socket_error() - @neg_errno of a connect(): says what it means for people. Return: @neg_errno */
int fc_socket_error(int neg_errno, const char *path);

#endif
