/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

static_assert(IMAGE_ID_BYTES == SHA256_DIGEST_SIZE, "an id is a SHA-256");

void digest_init(struct digest *d)
{
    sha256_init(&d->sha256);
}

void digest_add(struct digest *d, const void *bytes, size_t len)
{
    sha256_update(&d->sha256, len, bytes);
}

void digest_end(struct digest *d, uint8_t out[IMAGE_ID_BYTES])
{
    sha256_digest(&d->sha256, IMAGE_ID_BYTES, out);
}

void digest_of(const void *bytes, size_t len, uint8_t out[IMAGE_ID_BYTES])
{
    struct digest d;

    digest_init(&d);
    digest_add(&d, bytes, len);
    digest_end(&d, out);
}
