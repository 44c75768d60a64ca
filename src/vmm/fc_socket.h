/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_SOCKET_H
#define VMM_FC_SOCKET_H

/* fc_socket.h - the unix socket that a VMM listens on: an address for a path of any length, and what its errors mean */

#include <sys/un.h>

#include "base/base.h"

/** struct fc_socket - an address for a path */
struct fc_socket {
    char text[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "" until it was found */
    int fd; /* owned: the folder, or with @no_links the socket's file, by way of which it is reached; -1: none */
    bool
        no_links; /* a symbolic link in the socket's place is not followed; kept by fc_socket_forget() */
};

#define FC_SOCKET_NONE       \
    {                        \
        .text = "", .fd = -1 \
    }

/**
 * fc_socket_find() - the address, if that was not done yet; the same until fc_socket_forget()
 * @path: may be longer than the 107 bytes of an address; its last part may have some 80
 *
 * Return: 0, -ENAMETOOLONG, or another negative errno if the folder of a long path cannot be opened; with @no_links also that of a
 * connect() to what is no socket; with a text.
 */
int fc_socket_find(struct fc_socket *s, const char *path);

/** fc_socket_forget() - a folder of that path may be another one by now. Also frees all that it has */
void fc_socket_forget(struct fc_socket *s);

/** fc_socket_error() - @neg_errno of a connect(): says what it means for people. Return: @neg_errno */
int fc_socket_error(int neg_errno, const char *path);

#endif
